// SPDX-License-Identifier: Apache-2.0
//! The component's side of the contract: keeps the configured plugin of the instance, and turns the calls of the host into
//! calls of the author's trait. Used by the macros alone.

pub mod bindings;
mod convert;
mod export;

use std::cell::RefCell;
use std::rc::Rc;
use std::thread::LocalKey;

use penstock_dialects::ir::{Fault, FaultClass};

use crate::call::Wants;
use crate::config::{Config, Issue, Reader};
use crate::log;

pub use export::{AdapterExport, AuthExport, FilterExport, LimitsExport, RoutingExport};
pub use wit_bindgen::rt;

/// Where an instance keeps its plugin.
pub type Slot<T> = LocalKey<RefCell<Option<Rc<T>>>>;

/// A plugin type with a place in the instance; the macros implement it.
pub trait Installed: Sized + 'static {
    /// The place.
    fn slot() -> &'static Slot<Self>;
}

/// `lifecycle.configure`.
fn configure<T: Installed, C: Config>(
    config: &str,
    new: impl FnOnce(C) -> Result<T, Vec<Issue>>,
    wants: impl FnOnce(&T) -> Wants,
) -> Result<Wants, Vec<Issue>> {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        log::error(&format!("panicked: {}", panic.payload_as_str().unwrap_or("?")), &[("at", &place)]);
    }));
    let value = serde_json::from_str(config).map_err(|error| vec![Issue::new("", error.to_string())])?;
    let plugin = new(Reader::read(&value)?)?;
    let wants = wants(&plugin);
    T::slot().set(Some(Rc::new(plugin)));
    Ok(wants)
}

/// The plugin of this instance.
fn installed<T: Installed>() -> Result<Rc<T>, Fault> {
    T::slot()
        .with_borrow(Clone::clone)
        .ok_or_else(|| Fault::new(FaultClass::VendorBug, "the plugin was called before it was configured"))
}
