// SPDX-License-Identifier: Apache-2.0
//! Components for tests of the plugin runtime: those that `cargo xtask plugins` builds, with other manifests, or made
//! here.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use penstock::config::{Isolation, Sandbox};
use penstock::documents::Documents;
use penstock::keys::{Grants, Secret};
use penstock::plugin::types::Call;
use penstock::plugin::{Adapter, Compiler, Component, Plugin, Refusal, Runtime, RuntimeOptions, Settings};
use penstock::state::Memory;
use serde_json::{Value, json};

/// Where `cargo xtask plugins` puts all components.
pub fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    std::env::var_os("PENSTOCK_PLUGINS").map_or_else(|| target.join("test-plugins"), PathBuf::from)
}

/// The bytes of a component that `cargo xtask plugins` has built.
pub fn built(name: &str) -> Vec<u8> {
    let path = folder().join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask plugins` first", path.display()))
}

/// The component with a custom section more, as its last.
pub fn with_section(mut component: Vec<u8>, name: &str, content: &[u8]) -> Vec<u8> {
    let mut section = leb128(name.len());
    section.extend_from_slice(name.as_bytes());
    section.extend_from_slice(content);
    component.push(0);
    component.extend(leb128(section.len()));
    component.extend(section);
    component
}

/// A manifest for a component of a kind.
pub fn manifest(kind: &str) -> Value {
    json!({
        "kind": kind, "api": "0.1.0", "name": "test", "version": "1.0.0",
        "dialects": ["openai-chat"], "operations": ["chat"],
    })
}

/// `hostile` as a plugin of another kind.
pub fn hostile(kind: &str) -> Vec<u8> {
    with_section(built("hostile"), "penstock:plugin", manifest(kind).to_string().as_bytes())
}

/// A runtime that compiles in this process.
pub fn runtime(sandbox: Sandbox) -> Arc<Runtime> {
    let options = RuntimeOptions { sandbox, cache_dir: None, compiler: Compiler::InProcess, self_test: None };
    Runtime::new(options).expect("the runtime starts")
}

/// The ceilings that most tests are happy with, and small enough to be reached.
pub fn sandbox() -> Sandbox {
    Sandbox { instances_max: 4, memory_bytes_max: 16 << 20, ..Sandbox::default() }
}

/// `hostile`, an adapter, loaded once for all tests.
pub fn hostile_adapter() -> &'static Arc<Component> {
    static COMPONENT: OnceLock<Arc<Component>> = OnceLock::new();
    COMPONENT.get_or_init(|| runtime(sandbox()).load(&built("hostile")).expect("passes the gate"))
}

/// Settings of a plugin of this name.
pub fn settings(name: &str) -> Settings {
    Settings {
        name: name.to_owned(),
        config: Value::Null,
        secrets: Grants::default(),
        isolation: Isolation::Shared,
        state: Arc::new(Memory::new(1000)),
        directory: None,
        documents: Arc::new(Documents::new(&penstock::config::Auth::default())),
        metrics: prometheus::Registry::new(),
    }
}

/// Grants of one secret.
pub fn granted(name: &str, secret: &str) -> Grants {
    [(name.to_owned(), Arc::new(Secret::new(secret.as_bytes().to_vec())))].into_iter().collect()
}

/// A configured adapter.
pub fn adapter(component: &Arc<Component>, settings: Settings) -> Result<Arc<Adapter>, Refusal> {
    match component.configure(settings)? {
        Plugin::Adapter(adapter) => Ok(adapter),
        _ => panic!("no adapter"),
    }
}

/// A call for a model; `hostile` does what the model says.
pub fn call(model: &str) -> Call<'_> {
    Call { id: "r-1", operation: "chat", dialect: "openai-chat", model, deadline_ms: 1000, ..Call::default() }
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).expect("seven bits");
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
