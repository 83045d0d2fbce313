// SPDX-License-Identifier: Apache-2.0
//! The integration tests of the host: one binary, a file for each topic.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod net_listener;
mod net_support;
mod net_tunnel;
mod net_upstream;
