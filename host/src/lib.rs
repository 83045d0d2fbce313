// SPDX-License-Identifier: Apache-2.0
//! The Penstock host: a lean HTTP proxy that hot-loads WebAssembly components.
//!
//! The modules are listed in the order in which a request meets them; ARCHITECTURE.md has the picture, the layers and the
//! invariants. Start with [`gateway`]: the life of a request is one function there.

// -- control plane and foundations
pub mod admin;
pub mod config;
pub mod control;
pub mod library;
pub mod metrics;
pub mod watch;

// -- plugin runtime
pub mod plugin;
