#[path = "it/plugin_gate.rs"] mod plugin_gate;
#[path = "it/plugin_runtime.rs"] mod plugin_runtime;
mod support { #[path = "/work/wt/runtime/host/tests/it/support/plugins.rs"] pub mod plugins; }
