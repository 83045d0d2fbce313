// SPDX-License-Identifier: Apache-2.0
//! The Penstock host: a lean HTTP proxy that hot-loads WebAssembly components.
//!
//! The modules are listed in the order in which a request meets them; ARCHITECTURE.md has the picture, the layers and the
//! invariants. Start with [`gateway`]: the life of a request is one function there.

// -- data path, in the order in which a request meets it
pub mod listener;
pub mod head;
pub mod gateway;
pub mod underway;
pub mod routes;
pub mod stages;
pub mod inbound;
pub mod canonical;
pub mod attempt;
pub mod proxy;
pub mod tunnel;
pub mod upstream;
pub mod answer;
pub mod relay;
pub mod ledger;
pub mod failure;
pub mod random;

// -- plugin runtime
pub mod plugin;

// -- control plane and foundations
pub mod cli;
pub mod config;
pub mod keys;
pub mod library;
pub mod metrics;
pub mod snapshot;
pub mod state;
