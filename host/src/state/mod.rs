// SPDX-License-Identifier: Apache-2.0
//! Counters and values that outlive a request, shared by everything in the process or by many nodes, and bounded.
//!
//! [`State`] is what a request sees of limits: it charges counters ([`charge`]) and settles them. They are kept in memory
//! ([`limits`]), in maps that forget what was used least recently ([`recent`]), with a [`journal`] of what must outlive the
//! process; or in Redis ([`redis`], over a [`link`]), which is told later what calls have come to ([`owed`]). [`Memory`] also keeps the values
//! of plugins ([`values`]). Nothing here takes a lock, and nothing waits but a decision of a shared store.

pub mod charge;
mod journal;
mod limits;
pub mod link;
mod memory;
mod owed;
mod recent;
mod redis;
mod store;
pub mod values;

pub use memory::Memory;
pub use redis::Redis;
pub use store::{Denied, Held, Item, Options, ROUND_TRIP, State};
