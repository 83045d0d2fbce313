// SPDX-License-Identifier: Apache-2.0
//! `penstock plugin new`: writes a project from `plugin-sdk/template`, which is part of this program.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::{ProjectKind, unwritable};

/// A file of a project: its path there, and its text in the template.
type File = (&'static str, &'static str);

macro_rules! template {
    ($kind:literal: $($path:literal),*) => {
        &[$(($path, include_str!(concat!("../../../../plugin-sdk/template/", $kind, "/", $path)))),*]
    };
}

const COMMON: &[File] = &[
    ("Cargo.toml", include_str!("../../../../plugin-sdk/template/common/Cargo.toml")),
    ("README.md", include_str!("../../../../plugin-sdk/template/common/README.md")),
    (".gitignore", include_str!("../../../../plugin-sdk/template/common/gitignore")),
];

const ADAPTER: &[File] =
    template!("adapter": "src/lib.rs", "cases/chat.json", "cases/stream.json", "cases/rate-limit.json");
const AUTH: &[File] =
    template!("auth": "src/lib.rs", "cases/right-token.json", "cases/wrong-token.json", "cases/no-secret.json");
const LIMITS: &[File] = template!("limits": "src/lib.rs", "cases/subject.json", "cases/none-allowed.json");
const ROUTING: &[File] = template!("routing": "src/lib.rs", "cases/fastest.json");
const FILTER: &[File] = template!("filter": "src/lib.rs", "cases/closed.json", "cases/marked.json");

/// The line of the template's manifest that names the SDK.
const SDK_LINE: &str = "penstock-sdk = { path = \"../..\" }";
/// The line that only adapters need.
const JSON_LINE: &str = "serde_json = \"1\"\n";

/// Writes a project and says how to go on.
pub(super) fn write(
    name: &str,
    kind: ProjectKind,
    dir: Option<PathBuf>,
    sdk: Option<PathBuf>,
    out: &mut impl Write,
) -> Result<(), String> {
    check_name(name)?;
    let project = dir.unwrap_or_else(|| PathBuf::from(name));
    if project.exists() {
        return Err(format!("{} exists: give another place with --dir", project.display()));
    }
    let dependency = match sdk.or_else(find_sdk) {
        Some(folder) => {
            let folder = folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))?;
            format!("penstock-sdk = {{ path = {:?} }}", folder.to_string_lossy())
        }
        None => format!("penstock-sdk = {:?}", env!("CARGO_PKG_VERSION")),
    };
    for (path, text) in COMMON.iter().chain(files(kind)) {
        let text = text
            .replace(SDK_LINE, &dependency)
            .replace(JSON_LINE, if kind == ProjectKind::Adapter { JSON_LINE } else { "" })
            .replace("my-plugin", name)
            .replace("my_plugin", &name.replace('-', "_"))
            .replace("MyPlugin", &type_name(name))
            .replace("kind KIND", &format!("kind {}", kind_name(kind)));
        write_file(&project.join(path), &text)?;
    }
    let place = project.display();
    writeln!(out, "wrote {place}, a plugin of kind {}. Next:", kind_name(kind)).map_err(unwritable)?;
    let file = format!("target/wasm32-wasip2/release/{}.wasm", name.replace('-', "_"));
    for step in [
        format!("cd {place}"),
        "cargo test".to_owned(),
        "cargo build --release --target wasm32-wasip2".to_owned(),
        format!("penstock plugin check {file}"),
        format!("penstock plugin test {file} --cases cases"),
    ] {
        writeln!(out, "  {step}").map_err(unwritable)?;
    }
    Ok(())
}

fn files(kind: ProjectKind) -> &'static [File] {
    match kind {
        ProjectKind::Adapter => ADAPTER,
        ProjectKind::Auth => AUTH,
        ProjectKind::Limits => LIMITS,
        ProjectKind::Routing => ROUTING,
        ProjectKind::Filter => FILTER,
    }
}

fn kind_name(kind: ProjectKind) -> &'static str {
    match kind {
        ProjectKind::Adapter => "adapter",
        ProjectKind::Auth => "auth",
        ProjectKind::Limits => "limits",
        ProjectKind::Routing => "routing",
        ProjectKind::Filter => "filter",
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if fits {
        return Ok(());
    }
    Err(format!("{name:?} is no name for a plugin: it is made of lower-case letters, digits and hyphens"))
}

/// "rain-gauge" as `RainGauge`.
fn type_name(name: &str) -> String {
    let words = name.split('-').filter_map(|word| {
        let mut letters = word.chars();
        letters.next().map(|first| format!("{}{}", first.to_ascii_uppercase(), letters.as_str()))
    });
    words.collect()
}

/// The SDK of the repository that this program or this folder lies in.
fn find_sdk() -> Option<PathBuf> {
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    let folders = starts.iter().flatten().flat_map(|start| start.ancestors());
    folders.map(|folder| folder.join("plugin-sdk")).find(|sdk| sdk.join("Cargo.toml").is_file())
}

fn write_file(path: &Path, text: &str) -> Result<(), String> {
    let refuse = |error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(refuse)?;
    }
    std::fs::write(path, text).map_err(refuse)
}
