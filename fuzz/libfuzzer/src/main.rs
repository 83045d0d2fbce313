// SPDX-License-Identifier: Apache-2.0
//! One program for all targets: `PENSTOCK_FUZZ_TARGET` names the one to run.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use penstock_fuzz::{TARGETS, Target};

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("PENSTOCK_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("PENSTOCK_FUZZ_TARGET={name:?} names no target"))
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
