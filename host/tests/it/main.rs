// SPDX-License-Identifier: Apache-2.0
//! The integration tests of the host: one binary, a file per topic. They run the real library with the real components of
//! `cargo xtask plugins` against fake upstreams on loopback.

mod support;

mod command;

mod relayed;
