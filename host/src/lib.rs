// SPDX-License-Identifier: Apache-2.0
//! The Penstock host: a lean HTTP proxy that hot-loads WebAssembly components.
//!
//! The modules are listed in the order in which a request meets them; ARCHITECTURE.md has the picture, the layers and the
//! invariants. Start with [`gateway`]: the life of a request is one function there.

// -- data path, in the order in which a request meets it
pub mod answer;
pub mod attempt;
pub mod canonical;
pub mod clock;
pub mod failure;
pub mod flood;
pub mod gateway;
pub mod head;
pub mod inbound;
pub mod jobs;
pub mod ledger;
pub mod listener;
pub mod outbound;
pub mod probes;
pub mod proxy;
pub mod random;
pub mod realtime;
pub mod relay;
pub mod routes;
pub mod shed;
pub mod stages;
pub mod tunnel;
pub mod underway;
pub mod upstream;

// -- plugin runtime
pub mod plugin;

// -- control plane and foundations
pub mod admin;
pub mod calendar;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod control;
pub mod credential;
pub mod database;
pub mod directory;
pub mod discovery;
pub mod documents;
pub mod keys;
pub mod library;
pub mod metrics;
pub mod slots;
pub mod snapshot;
pub mod state;
pub mod traces;
pub mod watch;
pub mod wire;
