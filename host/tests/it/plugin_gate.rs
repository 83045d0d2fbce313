// SPDX-License-Identifier: Apache-2.0
//! The load gate: every broken file is refused with its own code and a cure, and nothing that is refused does any harm.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock::config::Sandbox;
use penstock::directory::Directory;
use penstock::metrics::Metrics;
use penstock::plugin::{Compiler, Refusal, Runtime, RuntimeOptions};
use penstock::state::Memory;
use serde_json::{Value, json};

use crate::support::plugins::{
    adapter, built, hostile, hostile_adapter, manifest, runtime, sandbox, settings, with_section,
};
use crate::support::rig;

/// What the gate says of a file.
fn refusal(bytes: &[u8]) -> Refusal {
    runtime(sandbox()).load(bytes).err().expect("it is refused")
}

fn wat(text: &str, manifest: &Value) -> Vec<u8> {
    with_section(wat::parse_str(text).expect("good text"), "penstock:plugin", manifest.to_string().as_bytes())
}

/// A component that exports what an adapter does, by name only.
fn named(items: &str) -> Vec<u8> {
    let text = format!(
        r#"(component {items}
            (instance $nothing)
            (export "penstock:plugin/lifecycle@0.1.0" (instance $nothing))
            (export "penstock:plugin/adapter@0.1.0" (instance $nothing)))"#
    );
    wat(&text, &manifest("adapter"))
}

#[test]
fn every_broken_file_is_refused_with_its_code_and_a_cure() {
    let good = built("hostile");
    let with = |changes: Value| {
        let mut manifest = manifest("adapter");
        for (name, value) in changes.as_object().expect("an object") {
            manifest[name] = value.clone();
        }
        with_section(good.clone(), "penstock:plugin", manifest.to_string().as_bytes())
    };
    let importing = |name: &str| {
        let import = format!(r#"(component (import "{name}" (instance)))"#);
        wat(&import, &manifest("adapter"))
    };
    let core = wat::parse_str("(module)").expect("good text");
    let bare = wat::parse_str("(component)").expect("good text");
    let cases = [
        ("truncated", Vec::new(), "ends in the middle", "copy the whole file"),
        ("truncated", good[..6].to_vec(), "ends in the middle", "copy the whole file"),
        ("truncated", good[..good.len() / 2].to_vec(), "ends in the middle", "copy the whole file"),
        ("not-a-component", b"#!/bin/sh\n".to_vec(), "not a WebAssembly component", "wasm32-wasip2"),
        ("not-a-component", b"(component)".to_vec(), "not a WebAssembly component", "wasm32-wasip2"),
        ("core-module", core, "this is a core module", "build with `--target wasm32-wasip2`"),
        ("no-manifest", bare.clone(), "no section penstock:plugin", "penstock-sdk"),
        ("no-manifest", with_section(bare, "penstock:plugin", b"{"), "cannot be read", "penstock-sdk"),
        ("no-manifest", with(json!({"name": "../x"})), "../x", "rename"),
        ("unknown-kind", with(json!({"kind": "guard"})), "guard", "update the host"),
        ("api-mismatch", with(json!({"api": "2.0"})), "built for api 2.0, this host offers 0.1", "penstock-sdk 0.1"),
        ("api-mismatch", with(json!({"api": "0.2.0"})), "built for api 0.2.0", "update the host or rebuild"),
        ("import-refused", importing("wasi:filesystem/types@0.2.6"), "wasi:filesystem/types@0.2.6", "no files"),
        ("import-refused", importing("wasi:sockets/tcp@0.2.6"), "wasi:sockets/tcp@0.2.6", "no network"),
        ("import-refused", importing("wasi:http/types@0.2.6"), "wasi:http/types@0.2.6", "leave out"),
        ("import-refused", importing("penstock:plugin/state@0.1.0"), "penstock:plugin/state@0.1.0", "penstock-sdk"),
        ("import-refused", importing("penstock:plugin/log@0.2.0"), "penstock:plugin/log@0.2.0", "penstock-sdk"),
        ("export-missing", wat("(component)", &manifest("auth")), "exports penstock:plugin/lifecycle@0.1", "trait"),
        ("export-missing", named(""), "does not have export `configure`", "penstock-sdk"),
    ];
    for (code, bytes, message, help) in cases {
        let refusal = refusal(&bytes);
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.message.contains(message), "{refusal}");
        assert!(refusal.help.contains(help), "{refusal}");
        assert!(!refusal.to_string().chars().any(char::is_control), "{refusal}");
    }
}

#[test]
fn a_file_over_the_limit_is_refused_before_it_is_read() {
    let sandbox = Sandbox { component_bytes_max: 1000, ..sandbox() };
    let refusal = runtime(sandbox).load(&built("hostile")).err().expect("too large");
    assert_eq!((refusal.code, refusal.message.contains("at most 1000")), ("too-large", true), "{refusal}");
}

#[test]
fn an_export_of_another_type_is_refused_with_both_sides() {
    let bytes = wat(
        r#"(component
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (instance $lifecycle (export "configure" (func $f)))
            (instance $limits (export "plan" (func $f)))
            (export "penstock:plugin/lifecycle@0.1.0" (instance $lifecycle))
            (export "penstock:plugin/limits@0.1.0" (instance $limits)))"#,
        &manifest("limits"),
    );
    let refusal = refusal(&bytes);
    assert_eq!(refusal.code, "export-type", "{refusal}");
    assert!(refusal.message.contains("expected") && refusal.message.contains("found"), "{refusal}");
}

#[test]
fn a_component_that_breaks_at_its_start_is_refused() {
    let component = |body: &str, memory: &str| {
        let text = format!(
            r#"(component
                (core module $m {memory} (func $start {body}) (start $start) (func (export "f")))
                (core instance $i (instantiate $m))
                (func $f (canon lift (core func $i "f")))
                (instance $lifecycle (export "configure" (func $f)))
                (instance $limits (export "plan" (func $f)))
                (export "penstock:plugin/lifecycle@0.1.0" (instance $lifecycle))
                (export "penstock:plugin/limits@0.1.0" (instance $limits)))"#
        );
        wat(&text, &manifest("limits"))
    };
    let sandbox = Sandbox { configure_ms: 50, ..sandbox() };
    for (body, memory, code) in [
        ("unreachable", "", "start-trapped"),
        ("(loop br 0)", "", "start-trapped"),
        ("", "(memory 65536)", "too-demanding"),
        ("", "(table 100000000 funcref)", "too-demanding"),
    ] {
        let refusal = runtime(sandbox.clone()).load(&component(body, memory)).err().expect("refused");
        assert_eq!(refusal.code, code, "{body} {memory}: {refusal}");
    }
}

#[test]
fn any_cut_or_flipped_byte_ends_in_a_refusal_or_a_sound_component() {
    let good = named("");
    let runtime = runtime(sandbox());
    for length in 0..good.len() {
        assert!(runtime.load(&good[..length]).is_err(), "cut after {length} bytes");
    }
    for place in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[place] ^= flip;
            let refused = runtime.load(&bytes).is_err();
            assert!(refused, "byte {place} flipped by {flip}: it lacks its exports in any case");
        }
    }
}

#[test]
fn a_configuration_is_refused_with_the_paths_of_what_is_wrong() {
    let configure = |config: Value| {
        let settings = penstock::plugin::Settings { config, ..settings("test") };
        adapter(hostile_adapter(), settings).err().expect("refused")
    };
    let refusal = configure(json!({"ta": "x"}));
    assert_eq!(refusal.code, "config-invalid", "{refusal}");
    assert!(refusal.message.contains("ta: is not known"), "{refusal}");

    let refusal = configure(json!({"at": 7}));
    assert!(refusal.message.contains("at: must be of type string"), "{refusal}");

    let refusal = configure(json!({"at": "refuse"}));
    assert_eq!(refusal.code, "configure-refused", "{refusal}");
    assert!(refusal.message.contains("keys[2].sha256: is no digest: write 64"), "{refusal}");

    let mut odd = manifest("adapter");
    odd["schema"] = json!({"if": {}});
    let odd = with_section(built("hostile"), "penstock:plugin", odd.to_string().as_bytes());
    let odd = runtime(sandbox()).load(&odd).expect("its schema is looked at when it is configured");
    assert_eq!(adapter(&odd, settings("test")).err().map(|refusal| refusal.code), Some("config-schema"));
}

#[test]
fn a_configure_that_breaks_is_refused_in_time() {
    let sandbox = Sandbox { configure_ms: 200, ..sandbox() };
    let component = runtime(sandbox).load(&built("hostile")).expect("passes the gate");
    for (what, words) in
        [("trap", "unreachable"), ("loop", "within 200 ms"), ("hoard", "more memory"), ("exit", "exit")]
    {
        let begin = Instant::now();
        let settings = penstock::plugin::Settings { config: json!({ "at": what }), ..settings("test") };
        let refusal = adapter(&component, settings).err().expect("refused");
        assert_eq!(refusal.code, "configure-trapped", "{refusal}");
        assert!(refusal.message.contains(words), "{refusal}");
        assert!(begin.elapsed() < Duration::from_secs(2), "{what} took {:?}", begin.elapsed());
    }
    assert!(adapter(&component, settings("test")).is_ok(), "the component itself is sound");
}

#[test]
fn the_vectors_of_a_component_decide() {
    let with_runner = |self_test| {
        let options = RuntimeOptions {
            sandbox: sandbox(),
            cache_dir: None,
            compiler: Compiler::InProcess,
            self_test: Some(self_test),
        };
        Runtime::new(options).expect("the runtime starts")
    };
    let bytes = with_section(built("hostile"), "penstock:vectors", b"[4711]");
    let passing = with_runner(|component, vectors| {
        assert_eq!(vectors, b"[4711]");
        component.configure(settings("vector")).map(|_| 1).map_err(|refusal| refusal.to_string())
    });
    assert!(passing.load(&bytes).is_ok());
    let failing = with_runner(|_, _| Err("case 3: expected 1, found 2".to_owned()));
    let refusal = failing.load(&bytes).err().expect("refused");
    assert_eq!(refusal.code, "self-test-failed");
    assert!(refusal.message.contains("case 3: expected 1, found 2"), "{refusal}");
    assert!(failing.load(&built("hostile")).is_ok(), "no vectors, nothing to fail");
}

fn cached(dir: &Path, compiler: Compiler) -> anyhow::Result<Arc<Runtime>> {
    Runtime::new(RuntimeOptions { sandbox: sandbox(), cache_dir: Some(dir.to_owned()), compiler, self_test: None })
}

#[test]
fn a_compiled_component_is_kept_privately_and_a_spoilt_one_is_made_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().join("cache");
    let bytes = built("hostile");
    let digest = cached(&dir, Compiler::InProcess).unwrap().load(&bytes).expect("loads").digest().to_owned();
    let files = || std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let file = files().pop().expect("kept");
    assert!(file.file_name().unwrap().to_string_lossy().starts_with(&digest));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);

    let no_compiler = || cached(&dir, Compiler::Child("/nonexistent".into())).unwrap();
    assert!(no_compiler().load(&bytes).is_ok(), "found in the cache");
    for spoilt in [&b""[..], b"not code", &std::fs::read(&file).unwrap()[..5000]] {
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, spoilt).unwrap();
        assert_eq!(no_compiler().load(&bytes).err().map(|refusal| refusal.code), Some("compile-failed"));
        assert!(cached(&dir, Compiler::InProcess).unwrap().load(&bytes).is_ok(), "made anew");
        assert!(no_compiler().load(&bytes).is_ok(), "and kept");
    }
    assert_eq!(files().len(), 1, "no drafts are left");
}

#[test]
fn a_directory_that_others_can_write_into_is_no_cache() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = cached(dir.path(), Compiler::InProcess).err().expect("refused").to_string();
    assert!(error.contains("mode 0700"), "{error}");
}

#[test]
fn a_child_compiles_within_its_ceilings() {
    let child = |compile_s, compile_bytes_max| {
        let compiler = Compiler::Child(env!("CARGO_BIN_EXE_penstock").into());
        let sandbox = Sandbox { compile_s, compile_bytes_max, ..sandbox() };
        Runtime::new(RuntimeOptions { sandbox, cache_dir: None, compiler, self_test: None })
            .expect("the runtime starts")
    };
    let bytes = hostile("adapter");
    child(20, 1 << 30).load(&bytes).expect("compiles");

    let refusal = child(20, 1 << 30).load(&invalid()).err().expect("refused");
    assert_eq!(refusal.code, "not-a-component", "{refusal}");
    assert!(refusal.message.contains("type mismatch"), "{refusal}");

    let begin = Instant::now();
    let refusal = child(1, 1 << 30).load(&bomb()).err().expect("refused");
    assert_eq!(refusal.code, "compile-limit", "{refusal}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());

    let refusal = child(20, 96 << 20).load(&bomb()).err().expect("refused");
    assert_eq!(refusal.code, "compile-limit", "{refusal}");
}

/// Well formed, and wrong in what its code does.
fn invalid() -> Vec<u8> {
    named(r#"(core module (func (export "f") (result i32) (i64.const 1)))"#)
}

/// A function that is small as a file and takes many seconds to compile.
fn bomb() -> Vec<u8> {
    let sum = "(i32.const 7) (i32.add) ".repeat(600_000);
    named(&format!(r#"(core module (func (export "f") (result i32) (i32.const 0) {sum}))"#))
}

#[test]
fn a_policy_is_refused_that_uses_what_it_does_not_trust_or_states_rules_that_cannot_be_read() {
    let (state, metrics) = (Arc::new(Memory::new(100)), Metrics::new().unwrap());
    let directory = Directory::in_memory().unwrap();
    let problems = |rules: &str| {
        let policy = format!("{rules}\n[vendors.e]\nadapter = \"echo\"\n[[routes]]\nname = \"ai\"\npath = \"/v1\"\n");
        let built = rig::build(&policy, rig::library(), &state, &directory, &metrics, None);
        built.err().map(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    };
    let digest = rig::library().components["echo"].digest();
    assert_eq!(problems(&format!("[trust]\ndigests = [\"{digest}\"]")), None);
    let other = "0".repeat(64);
    for (rules, words) in [
        ("[trust]\nrequired = true".to_owned(), "[untrusted]"),
        (format!("[trust]\ndigests = [\"{other}\"]"), "sign it with `penstock plugin sign`"),
        ("[trust]\ndigests = [\"abc\"]".to_owned(), "no SHA-256"),
        ("[trust]\nkeys = [\"abc\"]".to_owned(), "no Ed25519 key"),
        ("[trust]\nkey = \"abc\"".to_owned(), "key"),
        ("[limits]\nupstream_addresses = [\"all\"]".to_owned(), "\"all\" is no range of addresses"),
    ] {
        let told = problems(&rules).unwrap_or_else(|| panic!("{rules} was taken"));
        assert!(told.contains(words), "{rules}: {told}");
    }
}
