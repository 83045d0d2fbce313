// SPDX-License-Identifier: Apache-2.0
//! The integration tests of the host: one binary, a file per topic. They run the real library with the real components of
//! `cargo xtask plugins` against fake upstreams on loopback.

mod support;

mod dialects;
mod failures;
mod fallback;
mod plain_http;
mod plugin_gate;
mod plugin_runtime;
mod policies;
mod relayed;
