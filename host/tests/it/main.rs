// SPDX-License-Identifier: Apache-2.0
//! The integration tests of the host: one binary, a file per topic. They run the real library with the real components of
//! `cargo xtask plugins` against fake upstreams on loopback.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    clippy::print_stderr,
    reason = "a test fails by panicking, and skips loudly"
)]

mod support;

mod auth;
mod auth_mtls;
mod cluster;
mod cluster_trust;
mod command;
mod discovery;
mod fallback;
mod golden;
mod hedge;
mod hostile;
mod jobs;
mod jobs_films;
mod jobs_reports;
mod jobs_restart;
mod jobs_waiting;
mod keys;
mod keys_planted;
mod limits;
mod net_certificates;
mod net_coded;
mod net_edge;
mod net_listener;
mod net_proxies;
mod net_proxy_protocol;
mod net_sni;
mod net_support;
mod net_tunnel;
mod net_upstream;
mod plain_http;
mod plugin_gate;
mod plugin_runtime;
mod prices;
mod relayed;
mod stages;
mod state;
mod state_away;
mod traces;
mod translated;
