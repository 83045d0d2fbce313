// SPDX-License-Identifier: Apache-2.0
//! `penstock plugin check`.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use wasmparser::{Parser, Payload};

use super::{read, unwritable};
use crate::config::{Auth, Isolation};
use crate::documents::Documents;
use crate::keys::Grants;
use crate::plugin::{Component, Manifest, Runtime, Settings};
use crate::state::Memory;

/// Passes a file through the gate and prints what it is.
pub(super) fn run(
    runtime: &Arc<Runtime>,
    file: &Path,
    config: Option<&Path>,
    out: &mut impl Write,
) -> Result<(), String> {
    let bytes = read(file)?;
    let mut steps = Vec::new();
    let mut begin = Instant::now();
    let loaded = runtime.load_in_steps(&bytes, &mut |step| {
        steps.push((step, begin.elapsed()));
        begin = Instant::now();
    });
    for (step, time) in &steps {
        writeln!(out, "ok  {:>9.2} ms  {step}", time.as_secs_f64() * 1e3).map_err(unwritable)?;
    }
    let component = loaded.map_err(|refusal| format!("refused: {refusal}"))?;
    describe(&component, &bytes, out).map_err(unwritable)?;
    try_configuration(&component, config, out)
}

fn describe(component: &Component, bytes: &[u8], out: &mut impl Write) -> std::io::Result<()> {
    let Manifest { kind, api, name, version, description, licence, secrets, dialects, operations, .. } =
        component.manifest();
    writeln!(out, "\n{name} {version}: {description}")?;
    let kilobytes = component.bytes_len().div_ceil(1024);
    let rows = [
        ("kind", format!("{kind}, contract {api}")),
        ("licence", licence.clone()),
        ("dialects", dialects.join(", ")),
        ("operations", operations.join(", ")),
        ("secrets", secrets.join(", ")),
        ("size", format!("{kilobytes} KiB")),
        ("sha256", component.digest().to_owned()),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "  {name:<10}  {value}")?;
    }
    for (index, import) in imports(bytes).into_iter().enumerate() {
        writeln!(out, "  {:<10}  {import}", if index == 0 { "imports" } else { "" })?;
    }
    Ok(())
}

/// The names of what the component imports.
fn imports(bytes: &[u8]) -> Vec<String> {
    let mut depth = 0_usize;
    let mut imports = Vec::new();
    for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                imports.extend(section.into_iter().flatten().map(|import| import.name.name.to_owned()));
            }
            _ => {}
        }
    }
    imports
}

/// Configures the plugin: with the given file, or with nothing where the schema demands nothing.
fn try_configuration(component: &Arc<Component>, config: Option<&Path>, out: &mut impl Write) -> Result<(), String> {
    let demands =
        component.manifest().schema.get("required").and_then(Value::as_array).is_some_and(|all| !all.is_empty());
    let value = match config {
        Some(file) => {
            let text = String::from_utf8(read(file)?).map_err(|error| format!("{}: {error}", file.display()))?;
            toml::from_str::<Value>(&text).map_err(|error| format!("{}: {error}", file.display()))?
        }
        None if demands => {
            let hint = "\nnot configured: it has options that must be given; try some with --config FILE.toml";
            return writeln!(out, "{hint}").map_err(unwritable);
        }
        None => Value::Null,
    };
    let begin = Instant::now();
    let settings = Settings {
        name: component.manifest().name.clone(),
        config: value,
        secrets: Grants::default(),
        isolation: Isolation::Shared,
        state: Arc::new(Memory::new(1_000)),
        directory: None,
        documents: Arc::new(Documents::new(&Auth::default())),
        metrics: prometheus::Registry::new(),
    };
    component.configure(settings).map_err(|refusal| format!("refused: {refusal}"))?;
    writeln!(out, "\nok  {:>9.2} ms  instance and configuration", begin.elapsed().as_secs_f64() * 1e3)
        .map_err(unwritable)
}
