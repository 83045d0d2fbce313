// SPDX-License-Identifier: Apache-2.0
//! Golden cases of plugins: one JSON file a case in the plugin's `cases/` folder, a runner, and a comparator that says where
//! an outcome differs.
//!
//! What is tested is a [`Subject`]: the author's type in a native test (`penstock_sdk::testkit`), or a component in the
//! host (`penstock plugin test`, and the self-test of the load gate). Both get the same inputs from here, and both have to
//! give the same outcome. A recorded stream is cut at every byte; the events may not depend on where.
//!
//! ```json
//! {
//!   "about": "A key that nobody has is refused, without repeating it.",
//!   "self_test": true,
//!   "config": { "keys": [{ "subject": "ann", "secret": "ann-key" }] },
//!   "secrets": { "ann-key": "test-key-1" },
//!   "ask": { "authenticate": { "headers": { "x-api-key": "guess" } } },
//!   "expect": { "fault": { "class": "authentication", "message": "unknown API key" } }
//! }
//! ```
//!
//! `ask` is one of the variants of [`case::Ask`]. `expect` names the parts of the outcome that are compared: `wants`,
//! `issues`, `fault`, `upstream`, `next`, `events`, `response`, `grant`, `checks`, `order`, `verdict`, `edits`. An expected
//! `message` has to be contained in the true one; everything else has to be equal.

pub mod case;
pub mod compare;
mod cut;
pub mod run;

pub use case::Case;
pub use run::{Outcome, Subject, run};
