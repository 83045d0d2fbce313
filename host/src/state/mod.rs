// SPDX-License-Identifier: Apache-2.0
//! Counters and values that outlive a request, shared by everything in the process and bounded.
//!
//! [`Memory`] keeps the counters of limits ([`limits`]) and the values that plugins keep ([`values`]), both in maps
//! that forget what was used least recently ([`recent`]). Nothing here waits and nothing takes a lock.

pub mod limits;
mod memory;
mod recent;
pub mod values;

pub use memory::Memory;
