// SPDX-License-Identifier: Apache-2.0
//! An adapter in good form that traps in `configure`: for the tests of the host, and for nothing else.

use penstock_sdk::adapter::Unasked;
use penstock_sdk::prelude::{Adapter, Blob, Call, Fault, FaultClass, Issue, Pairs, Plan};

/// Traps as soon as it is to serve.
pub struct Stillborn;

impl Adapter for Stillborn {
    type Config = ();
    type Exchange = Unasked;

    const OPERATIONS: &'static [&'static str] = &["chat"];

    #[allow(clippy::panic, reason = "what it is for")]
    fn new((): ()) -> Result<Self, Vec<Issue>> {
        panic!("stillborn, as the test wants it")
    }

    fn open(&self, _: &Call, _: &Pairs, _: &[u8], _: &[Blob]) -> Result<(Unasked, Plan), Fault> {
        Err(Fault::new(FaultClass::Unsupported, "it never serves"))
    }

    fn reject(&self, _: u16, _: &Pairs, _: &[u8]) -> Fault {
        Fault::new(FaultClass::VendorBug, "it never asks")
    }
}

penstock_sdk::adapter!(Stillborn);
