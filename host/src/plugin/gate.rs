// SPDX-License-Identifier: Apache-2.0
//! The load gate: what a file must be before it is compiled. Each step has a code that stays, and says what to do.
//!
//! The order is that of the contract: size, a component at all, manifest with kind and api, imports, exports; then
//! compilation, types and canary (`component`). Nothing is executed here and nothing is compiled.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmparser::{Encoding, Parser, Payload};

use super::chatter::printable;
use super::component::Component;
use super::engine::SelfTest;
use super::manifest::{Kind, Manifest};
use crate::config::place::hex;

/// The version of the contract that this host offers.
pub const API: (u64, u64) = (0, 1);
/// Name of the custom section that holds the manifest.
pub const MANIFEST_SECTION: &str = "penstock:plugin";
/// Name of the custom section that holds the author's vectors.
pub const VECTORS_SECTION: &str = "penstock:vectors";
/// Largest manifest, in bytes.
const MANIFEST_BYTES_MAX: usize = 256 << 10;

/// What a pure guest needs of WASI. Files and sockets are not in it.
const WASI: &[&str] = &[
    "cli/environment",
    "cli/exit",
    "cli/stderr",
    "cli/stdin",
    "cli/stdout",
    "cli/terminal-input",
    "cli/terminal-output",
    "cli/terminal-stderr",
    "cli/terminal-stdin",
    "cli/terminal-stdout",
    "clocks/monotonic-clock",
    "clocks/wall-clock",
    "io/error",
    "io/poll",
    "io/streams",
    "random/insecure",
    "random/insecure-seed",
    "random/random",
];

/// Why a component or a configuration is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stable name of the check that failed.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
    /// What is wrong in the configuration, where that is the reason; `message` has all of it in one line.
    pub issues: Vec<Issue>,
}

/// One thing that is wrong in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Where: `keys[2].sha256`; empty for the whole.
    pub path: String,
    /// What.
    pub message: String,
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", printable(&self.path))?;
        }
        f.write_str(&printable(&self.message))
    }
}

impl Refusal {
    /// A refusal.
    #[must_use]
    pub fn new(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: help.into(), issues: Vec::new() }
    }

    /// A refusal of a configuration.
    #[must_use]
    pub fn of_config(code: &'static str, issues: Vec<Issue>, help: impl Into<String>) -> Self {
        let message = issues.iter().map(Issue::to_string).collect::<Vec<_>>().join("; ");
        Self { issues, ..Self::new(code, message, help) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}]", self.message, self.help, self.code)
    }
}

impl std::error::Error for Refusal {}

/// What the gate has read from a file that it let pass.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) digest: String,
    pub(super) kind: Kind,
    pub(super) manifest: Manifest,
    pub(super) vectors: Option<Vec<u8>>,
    pub(super) further: Further,
}

/// Exports that a plugin of its kind may have or not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Further {
    /// A filter sees the heads of answers.
    pub(super) filters_responses: bool,
    /// An adapter signs requests.
    pub(super) signs: bool,
    /// An adapter works with short-lived credentials.
    pub(super) fetches: bool,
}

/// Looks at a file.
pub(super) fn inspect(bytes: &[u8], bytes_max: usize) -> Result<Passed, Refusal> {
    if bytes.len() > bytes_max {
        return Err(Refusal::new(
            "too-large",
            format!("it has {} bytes, at most {bytes_max} are taken", bytes.len()),
            "build it with `--profile plugin` (optimised, no debug information), or raise sandbox.component_bytes_max",
        ));
    }
    let parts = Parts::read(bytes)?;
    let manifest = manifest(&parts)?;
    let kind = kind(&manifest)?;
    check_api(&manifest.api)?;
    check_imports(kind, &parts.imports)?;
    check_exports(kind, &parts.exports)?;
    let digest = hex(&Sha256::digest(bytes));
    let exports = |interface: &str| parts.exports.iter().any(|name| is_ours(name, interface));
    let further = Further {
        filters_responses: exports("response-filter"),
        signs: exports("signing"),
        fetches: exports("credentials"),
    };
    Ok(Passed { digest, kind, manifest, vectors: parts.vectors.map(<[u8]>::to_vec), further })
}

/// Runs the vectors that a component carries, if the runtime has a runner: how many passed, or what the first failure
/// is.
pub(super) fn self_test(run: SelfTest, component: &Arc<Component>) -> Result<usize, Refusal> {
    let Some(vectors) = component.vectors() else { return Ok(0) };
    run(component, vectors).map_err(|failure| {
        Refusal::new(
            "self-test-failed",
            format!("its own vectors do not pass: {failure}"),
            "run `penstock plugin test` on it, and correct the plugin or its vectors",
        )
    })
}

/// The parts of a component that the gate looks at.
#[derive(Default)]
struct Parts<'a> {
    imports: Vec<&'a str>,
    exports: Vec<&'a str>,
    manifest: Option<&'a [u8]>,
    vectors: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let mut parts = Self::default();
        let mut depth = 0_usize;
        let magic = &bytes[..bytes.len().min(4)];
        if !b"\0asm".starts_with(magic) {
            return Err(not_wasm("it does not begin like WebAssembly"));
        }
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(|error| unreadable(&error))? {
                Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => return Err(core_module()),
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        parts.imports.push(import.map_err(|error| unreadable(&error))?.name.name);
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        parts.exports.push(export.map_err(|error| unreadable(&error))?.name.name);
                    }
                }
                Payload::CustomSection(section) => parts.custom(section.name(), section.data(), depth == 0),
                _ => {}
            }
        }
        Ok(parts)
    }

    /// A section of the component itself stands above one of a module inside: it was put there later.
    fn custom(&mut self, name: &str, data: &'a [u8], outermost: bool) {
        let place = match name {
            MANIFEST_SECTION => &mut self.manifest,
            VECTORS_SECTION => &mut self.vectors,
            _ => return,
        };
        if outermost || place.is_none() {
            *place = Some(data);
        }
    }
}

fn unreadable(error: &wasmparser::BinaryReaderError) -> Refusal {
    if error.message().contains("unexpected end") {
        return Refusal::new(
            "truncated",
            format!("it ends in the middle, after {} bytes", error.offset()),
            "copy the whole file; to replace one in a watched directory, copy it beside and rename it",
        );
    }
    not_wasm(&format!("{} at byte {}", error.message(), error.offset()))
}

fn not_wasm(why: &str) -> Refusal {
    Refusal::new(
        "not-a-component",
        format!("it is not a WebAssembly component: {why}"),
        "give a file that `cargo build --target wasm32-wasip2` made",
    )
}

fn core_module() -> Refusal {
    Refusal::new("core-module", "this is a core module, not a component", "build with `--target wasm32-wasip2`")
}

fn manifest(parts: &Parts<'_>) -> Result<Manifest, Refusal> {
    let help = "build it with penstock-sdk, whose macros write the section";
    let Some(section) = parts.manifest else {
        return Err(Refusal::new("no-manifest", format!("it has no section {MANIFEST_SECTION}"), help));
    };
    if section.len() > MANIFEST_BYTES_MAX {
        return Err(Refusal::new("no-manifest", format!("its section {MANIFEST_SECTION} is too large"), help));
    }
    let manifest: Manifest = serde_json::from_slice(section).map_err(|error| {
        Refusal::new("no-manifest", format!("its section {MANIFEST_SECTION} cannot be read: {error}"), help)
    })?;
    if manifest.has_valid_name() {
        Ok(manifest)
    } else {
        let message = format!("its name {:?} is not made of lower-case letters, digits and hyphens", manifest.name);
        Err(Refusal::new("no-manifest", message, "rename the plugin"))
    }
}

fn kind(manifest: &Manifest) -> Result<Kind, Refusal> {
    Kind::from_name(&manifest.kind).ok_or_else(|| {
        let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        Refusal::new(
            "unknown-kind",
            format!("it is of kind {:?}, this host knows {}", manifest.kind, known.join(", ")),
            "update the host, or correct the kind",
        )
    })
}

fn check_api(api: &str) -> Result<(), Refusal> {
    let (major, minor) = API;
    if version(api) == Some(API) {
        return Ok(());
    }
    Err(Refusal::new(
        "api-mismatch",
        format!("built for api {}, this host offers {major}.{minor}", api.escape_debug()),
        format!("update the host or rebuild with penstock-sdk {major}.{minor}"),
    ))
}

/// Major and minor of a version; patch releases are compatible.
fn version(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split('.');
    let major = numbers.next()?.parse().ok()?;
    Some((major, numbers.next()?.parse().ok()?))
}

fn check_imports(kind: Kind, imports: &[&str]) -> Result<(), Refusal> {
    let refused: Vec<_> = imports.iter().copied().filter(|name| !may_import(kind, name)).collect();
    if refused.is_empty() {
        return Ok(());
    }
    let what = refused.join(", ").escape_debug().to_string();
    let help = if refused.iter().any(|name| name.starts_with("wasi:filesystem") || name.starts_with("wasi:sockets")) {
        "a plugin has no files and no network: leave out the code or the dependency that uses them"
    } else if refused.iter().any(|name| name.starts_with("penstock:plugin/")) {
        "leave it out, or rebuild with the penstock-sdk of this host"
    } else {
        "leave out the code or the dependency that needs it"
    };
    let offered = kind.imports().join(", ");
    let message = format!("it imports {what}; a plugin of kind {} may import {offered} and a pure WASI", kind.name());
    Err(Refusal::new("import-refused", message, help))
}

fn may_import(kind: Kind, name: &str) -> bool {
    if let Some(interface) = name.strip_prefix("wasi:") {
        let (interface, version) = interface.split_once('@').unwrap_or((interface, ""));
        return WASI.contains(&interface) && self::version(version) == Some((0, 2));
    }
    kind.imports().iter().any(|interface| is_ours(name, interface))
}

fn check_exports(kind: Kind, exports: &[&str]) -> Result<(), Refusal> {
    for interface in ["lifecycle", kind.export()] {
        if !exports.iter().any(|name| is_ours(name, interface)) {
            let (major, minor) = API;
            return Err(Refusal::new(
                "export-missing",
                format!(
                    "a plugin of kind {} exports penstock:plugin/{interface}@{major}.{minor}, this one exports {}",
                    kind.name(),
                    if exports.is_empty() {
                        "nothing".to_owned()
                    } else {
                        exports.join(", ").escape_debug().to_string()
                    },
                ),
                "implement the trait of its kind from penstock-sdk, or correct the kind",
            ));
        }
    }
    Ok(())
}

/// Whether a name is an interface of the contract, in a version that this host offers.
fn is_ours(name: &str, interface: &str) -> bool {
    let rest = name.strip_prefix("penstock:plugin/").and_then(|rest| rest.strip_prefix(interface));
    rest.and_then(|rest| rest.strip_prefix('@')).and_then(version) == Some(API)
}
