// SPDX-License-Identifier: Apache-2.0
//! What a call to a vendor costs. A [`table::Table`] finds the [`price::Price`] of a model, and [`cost`] counts a usage by
//! it, unless the vendor has said itself what it charges ([`stated`]). Pure: no I/O, no floating point ([`money`]).
//!
//! The host settles with it, and the tasks of the repository check it against recorded answers. docs/prices.md is for the
//! people who write prices.

pub mod cost;
pub mod money;
pub mod price;
pub mod stated;
pub mod table;
