// SPDX-License-Identifier: Apache-2.0
//! The plugin runtime: the only folder that names wasmtime.

pub mod types;
