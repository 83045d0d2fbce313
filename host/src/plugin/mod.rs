// SPDX-License-Identifier: Apache-2.0
//! The plugin runtime: the only folder that names wasmtime.
//!
//! From a file to a call: [`Runtime::load`] passes a file through the [`gate`], has it compiled ([`compile`], kept by
//! `cache`), links it and has the author's own vectors run ([`self_test`]); [`Component::configure`] checks a
//! configuration against it and makes the first instance; the [`Plugin`] that comes out keeps its instances in a `pool`
//! and is called through [`Adapter`], [`Auth`] and the [policies](policy). What an instance sees of the host is in `imports` and
//! `wasi`, what comes out of it is checked in `convert`. All calls are synchronous and end within their deadline; no
//! lock is held beyond one call.

mod adapter;
mod auth;
mod bindings;
pub mod breaks;
mod cache;
mod chatter;
pub mod compile;
mod component;
mod convert;
mod engine;
pub mod gate;
mod imports;
pub mod manifest;
mod memo;
mod order;
pub mod policy;
mod pool;
mod schema;
pub mod self_test;
mod series;
pub mod types;
mod wasi;
mod watch;

pub use adapter::{Adapter, Exchange};
pub use auth::{Auth, Remembered};
pub use compile::Compiler;
pub use component::{Component, Plugin, Settings};
pub use engine::{Runtime, RuntimeOptions, SelfTest};
pub use gate::{Issue, Refusal};
pub use manifest::{Kind, Manifest};
pub use order::{Order, Share};
pub use policy::{Filter, Limits, Routing};
