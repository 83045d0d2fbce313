// SPDX-License-Identifier: Apache-2.0
//! `penstock keys`, `teams`, `limits`, `budgets`, `usage`, `plugins`, `policies`, `cluster`: the admin API for people, as tables, and
//! for scripts, as JSON.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::remote::Remote;
use super::table::{self, Column};

use crate::clock;

/// A command about a running gateway.
#[derive(Debug, Args)]
pub struct Govern<C: Subcommand> {
    /// What to do.
    #[command(subcommand)]
    pub command: C,
    /// Where the gateway is, and how to print.
    #[command(flatten)]
    pub remote: Remote,
}

/// `penstock keys`.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Every virtual key.
    List,
    /// One virtual key.
    Show {
        /// Its id.
        id: String,
    },
    /// Make a virtual key, and print its secret: this once.
    Create(NewKey),
    /// A new secret.
    Rotate {
        /// Its id.
        id: String,
        /// How long the old secret is still accepted: 90s, 15m, 24h, 7d.
        #[arg(long, default_value = "0s", value_parser = seconds)]
        overlap: u64,
    },
    /// Refuse a key from now on.
    Disable {
        /// Its id.
        id: String,
    },
    /// Accept a key again.
    Enable {
        /// Its id.
        id: String,
    },
    /// Delete a key.
    Delete {
        /// Its id.
        id: String,
    },
}

/// A virtual key to be.
#[derive(Debug, Args)]
pub struct NewKey {
    /// Its name, for people.
    name: String,
    /// Its id; made up if it is left out.
    #[arg(long)]
    id: Option<String>,
    /// Who the caller is, in logs and limits; the id if it is left out.
    #[arg(long)]
    subject: Option<String>,
    /// The team that it belongs to.
    #[arg(long)]
    team: Option<String>,
    /// A model that it may use; can be given several times. A trailing `*` matches any rest. Without it: all.
    #[arg(long = "model")]
    models: Option<Vec<String>>,
    /// An operation that it may use (chat, images …); can be given several times. Without it: all.
    #[arg(long = "operation")]
    operations: Option<Vec<String>>,
    /// A limit of its own, by id; can be given several times.
    #[arg(long = "limit")]
    limits: Vec<String>,
    /// A budget of its own, by id; can be given several times.
    #[arg(long = "budget")]
    budgets: Vec<String>,
    /// It is accepted for so long: 24h, 30d. Without it: for ever.
    #[arg(long, value_parser = seconds)]
    expires_in: Option<u64>,
    /// What else is to be known of it, NAME=VALUE; can be given several times.
    #[arg(long, value_parser = pair)]
    metadata: Vec<(String, String)>,
}

/// `penstock budgets`.
#[derive(Debug, Subcommand)]
pub enum Budgets {
    /// Every budget.
    List,
    /// Make a budget; keys and teams refer to it by its id.
    Create {
        /// US dollars.
        usd: f64,
        /// Its id; made up if it is left out.
        #[arg(long)]
        id: Option<String>,
        /// Its name, for people.
        #[arg(long, default_value = "")]
        name: String,
        /// It begins anew after so long: 24h, 30d. Without it: never.
        #[arg(long, value_parser = seconds)]
        window: Option<u64>,
    },
    /// Other money for a budget.
    Set {
        /// Its id.
        id: String,
        /// US dollars.
        usd: f64,
    },
    /// Delete a budget that nobody refers to.
    Delete {
        /// Its id.
        id: String,
    },
}

/// `penstock usage`.
#[derive(Debug, Args)]
pub struct Usage {
    /// What is summed up: key, team, subject, vendor, model, day.
    #[arg(long, default_value = "key")]
    by: String,
    /// So many days, today included.
    #[arg(long, default_value_t = 30)]
    days: u32,
    /// Only of this virtual key.
    #[arg(long)]
    key: Option<String>,
    /// Only of this team.
    #[arg(long)]
    team: Option<String>,
    /// Only of this model.
    #[arg(long)]
    model: Option<String>,
    /// Where the gateway is, and how to print.
    #[command(flatten)]
    pub remote: Remote,
}

/// `penstock plugins`.
#[derive(Debug, Subcommand)]
pub enum Plugins {
    /// Plugins in force.
    List,
    /// One plugin: where it is used, and how it has broken, with the stack and its last lines.
    Show {
        /// Name of the plugin.
        name: String,
    },
    /// Upload a component, and put it in force.
    Upload {
        /// The component.
        file: PathBuf,
        /// Only keep it.
        #[arg(long)]
        keep: bool,
    },
    /// Put a version in force.
    Activate {
        /// Name of the plugin.
        name: String,
        /// SHA-256 of the version.
        digest: String,
    },
    /// Put the version before in force.
    Rollback {
        /// Name of the plugin.
        name: String,
    },
    /// Forget what was uploaded.
    Remove {
        /// Name of the plugin.
        name: String,
    },
}

/// `penstock policies`.
#[derive(Debug, Subcommand)]
pub enum Policies {
    /// The policy files in force.
    List,
    /// Check a file or directory with the plugins in force, and change nothing.
    Validate {
        /// The file, or a directory with *.toml.
        path: PathBuf,
    },
    /// Read policies, plugins and secrets anew.
    Reload,
}

const KEYS: &[Column] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("TEAM", "team"),
    ("ENABLED", "enabled"),
    ("EXPIRES", "expires_unix_s"),
    ("MODELS", "models"),
    ("LIMITS", "limits"),
    ("BUDGETS", "budgets"),
];
const BUDGETS: &[Column] =
    &[("ID", "id"), ("NAME", "name"), ("USD", "usd"), ("WINDOW S", "window_s"), ("ENABLED", "enabled")];
const PLUGINS: &[Column] =
    &[("NAME", "name"), ("KIND", "kind"), ("VERSION", "version"), ("SOURCE", "source"), ("DIGEST", "digest")];
const USES: &[Column] = &[("USED AS", "name"), ("INSTANCES", "instances"), ("BROKEN", "broken"), ("RESTS", "rests")];
const BREAKS: &[Column] = &[
    ("AT MS", "at_unix_ms"),
    ("CALL", "call"),
    ("REASON", "reason"),
    ("STACK", "stack"),
    ("LAST LINES", "last_lines"),
];
const NODES: &[Column] = &[
    ("NAME", "name"),
    ("ID", "id"),
    ("THERE", "there"),
    ("LEADS", "leads"),
    ("CHANGE", "change"),
    ("GENERATION", "generation"),
    ("REFUSED", "refused"),
    ("LAST ERROR", "last_error"),
];
const ANSWER: &[Column] =
    &[("RESULT", "result"), ("GENERATION", "generation"), ("PLUGIN", "plugin.name"), ("VERSION", "plugin.version")];

/// Runs `penstock keys`.
///
/// # Errors
/// Nobody answers, or the words of the refusal.
pub fn keys(Govern { command, remote }: &Govern<Keys>) -> anyhow::Result<ExitCode> {
    let one = |id: &str| format!("/api/v1/virtual-keys/{}", escaped(id));
    match command {
        Keys::List => {
            let all = every(remote, "/api/v1/virtual-keys")?;
            show(remote, KEYS, &all, all.as_array().map_or(&[], Vec::as_slice))
        }
        Keys::Show { id } => one_row(remote, KEYS, &remote.ask("GET", &one(id), None)?),
        Keys::Create(new) => minted(remote, &remote.ask("POST", "/api/v1/virtual-keys", Some(&body_of(new)))?),
        Keys::Rotate { id, overlap } => {
            let body = json!({ "overlap_s": overlap });
            minted(remote, &remote.ask("POST", &format!("{}/rotate", one(id)), Some(&body))?)
        }
        Keys::Disable { id } => {
            one_row(remote, KEYS, &remote.ask("PATCH", &one(id), Some(&json!({ "enabled": false })))?)
        }
        Keys::Enable { id } => {
            one_row(remote, KEYS, &remote.ask("PATCH", &one(id), Some(&json!({ "enabled": true })))?)
        }
        Keys::Delete { id } => one_row(remote, &[("DELETED", "deleted")], &remote.ask("DELETE", &one(id), None)?),
    }
}

/// Runs `penstock budgets`.
///
/// # Errors
/// As [`keys`].
pub fn budgets(Govern { command, remote }: &Govern<Budgets>) -> anyhow::Result<ExitCode> {
    let one = |id: &str| format!("/api/v1/budgets/{}", escaped(id));
    match command {
        Budgets::List => {
            let all = every(remote, "/api/v1/budgets")?;
            show(remote, BUDGETS, &all, all.as_array().map_or(&[], Vec::as_slice))
        }
        Budgets::Create { usd, id, name, window } => {
            let mut body = json!({ "usd": usd, "name": name, "window_s": window });
            if let Some(id) = id {
                body["id"] = json!(id);
            }
            one_row(remote, BUDGETS, &remote.ask("POST", "/api/v1/budgets", Some(&body))?)
        }
        Budgets::Set { id, usd } => {
            one_row(remote, BUDGETS, &remote.ask("PATCH", &one(id), Some(&json!({ "usd": usd })))?)
        }
        Budgets::Delete { id } => one_row(remote, &[("DELETED", "deleted")], &remote.ask("DELETE", &one(id), None)?),
    }
}

/// Runs `penstock usage`.
///
/// # Errors
/// As [`keys`].
pub fn usage(usage: &Usage) -> anyhow::Result<ExitCode> {
    let Usage { by, days, key, team, model, remote } = usage;
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("by", by).append_pair("days", &days.to_string()).append_pair("limit", "1000");
    for (name, value) in [("key", key), ("team", team), ("model", model)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let answer = remote.ask("GET", &format!("/api/v1/usage?{}", query.finish()), None)?;
    let mut rows = answer["items"].as_array().cloned().unwrap_or_default();
    for row in &mut rows {
        row["what"] = row[by.as_str()].clone();
    }
    let mut total = answer["total"].clone();
    total["what"] = json!("total");
    rows.push(total);
    let columns = [
        ("WHAT", "what"),
        ("REQUESTS", "requests"),
        ("FAILED", "failed"),
        ("INPUT TOKENS", "input_tokens"),
        ("OUTPUT TOKENS", "output_tokens"),
        ("USD", "usd"),
    ];
    show(remote, &columns, &answer, &rows)
}

/// Runs `penstock plugins`.
///
/// # Errors
/// As [`keys`].
pub fn plugins(Govern { command, remote }: &Govern<Plugins>) -> anyhow::Result<ExitCode> {
    let one = |name: &str| format!("/api/v1/plugins/{}", escaped(name));
    let answer = match command {
        Plugins::List => {
            let answer = remote.ask("GET", "/api/v1/plugins", None)?;
            return show(remote, PLUGINS, &answer, answer["plugins"].as_array().map_or(&[], Vec::as_slice));
        }
        Plugins::Show { name } => return show_plugin(remote, &remote.ask("GET", &one(name), None)?),
        Plugins::Upload { file, keep } => {
            let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
            remote.upload(&format!("/api/v1/plugins?activate={}", !keep), "application/octet-stream", &bytes)?
        }
        Plugins::Activate { name, digest } => {
            remote.ask("POST", &format!("{}/activate", one(name)), Some(&json!({ "digest": digest })))?
        }
        Plugins::Rollback { name } => remote.ask("POST", &format!("{}/rollback", one(name)), None)?,
        Plugins::Remove { name } => remote.ask("DELETE", &one(name), None)?,
    };
    one_row(remote, ANSWER, &answer)
}

fn show_plugin(remote: &Remote, answer: &Value) -> anyhow::Result<ExitCode> {
    if remote.json {
        return show(remote, PLUGINS, answer, &[]);
    }
    table::print(PLUGINS, std::slice::from_ref(&answer["plugin"]))?;
    for of in answer["uses"].as_array().into_iter().flatten() {
        writeln!(io::stdout())?;
        table::print(USES, std::slice::from_ref(of))?;
        table::print(BREAKS, of["breaks"].as_array().map_or(&[], Vec::as_slice))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `penstock policies`.
///
/// # Errors
/// As [`keys`].
pub fn policies(Govern { command, remote }: &Govern<Policies>) -> anyhow::Result<ExitCode> {
    match command {
        Policies::List => {
            let answer = remote.ask("GET", "/api/v1/policies", None)?;
            let files = answer["files"].as_array().into_iter().flatten();
            let rows: Vec<_> = files.map(|file| json!({ "file": file })).collect();
            show(remote, &[("FILE", "file")], &answer, &rows)
        }
        Policies::Validate { path } => {
            let body = json!({ "files": files(path)? });
            one_row(remote, ANSWER, &remote.ask("POST", "/api/v1/policies/validate", Some(&body))?)
        }
        Policies::Reload => one_row(remote, ANSWER, &remote.ask("POST", "/api/v1/reload", None)?),
    }
}

/// Runs `penstock cluster`.
///
/// # Errors
/// As [`keys`].
pub fn cluster(remote: &Remote) -> anyhow::Result<ExitCode> {
    let answer = remote.ask("GET", "/api/v1/cluster", None)?;
    if !remote.json && answer["clustered"] == false {
        writeln!(io::stdout(), "this gateway is in no cluster")?;
        return Ok(ExitCode::SUCCESS);
    }
    show(remote, NODES, &answer, answer["nodes"].as_array().map_or(&[], Vec::as_slice))
}

/// Every item of a list, page by page.
fn every(remote: &Remote, path: &str) -> anyhow::Result<Value> {
    let mut items = Vec::new();
    let mut after = String::new();
    loop {
        let mut page = remote.ask("GET", &format!("{path}?limit=1000{after}"), None)?;
        if let Value::Array(more) = page["items"].take() {
            items.extend(more);
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", escaped(next)),
            None => return Ok(Value::Array(items)),
        }
    }
}

fn body_of(new: &NewKey) -> Value {
    let metadata: Map<String, Value> = new.metadata.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut body = json!({
        "name": new.name,
        "subject": new.subject,
        "team": new.team,
        "models": new.models,
        "operations": new.operations,
        "limits": new.limits,
        "budgets": new.budgets,
        "expires_unix_s": new.expires_in.map(|seconds| clock::unix_s().saturating_add(seconds)),
        "metadata": metadata,
    });
    if let Some(id) = &new.id {
        body["id"] = json!(id);
    }
    body
}

fn files(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let sources = crate::config::load::read(Some(path))
        .map_err(|problems| anyhow!(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    Ok(sources.files().map(|(name, text)| (name.to_owned(), json!(text))).collect())
}

fn minted(remote: &Remote, answer: &Value) -> anyhow::Result<ExitCode> {
    if remote.json {
        return one_row(remote, KEYS, answer);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}", answer["key"].as_str().unwrap_or_default())?;
    out.flush()?;
    writeln!(io::stderr(), "the key {} is shown this once; keep it safe", answer["id"].as_str().unwrap_or_default())?;
    Ok(ExitCode::SUCCESS)
}

fn one_row(remote: &Remote, columns: &[Column], answer: &Value) -> anyhow::Result<ExitCode> {
    show(remote, columns, answer, std::slice::from_ref(answer))
}

fn show(remote: &Remote, columns: &[Column], answer: &Value, rows: &[Value]) -> anyhow::Result<ExitCode> {
    if remote.json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(answer)?)?;
    } else {
        table::print(columns, rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A name as a part of a path or query.
fn escaped(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20")
}

/// A length of time: 90s, 15m, 24h, 7d.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "expected a length of time such as 90s, 15m, 24h or 7d".to_owned();
    let unit = text.char_indices().next_back().ok_or_else(wrong)?;
    let factor = match unit.1 {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..unit.0].parse().map_err(|_| wrong())?;
    number.checked_mul(factor).ok_or_else(wrong)
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn lengths_of_time_are_read_with_their_units() {
        for (text, expected) in [("0s", 0), ("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(seconds(text), Ok(expected));
        }
        for wrong in ["", "7", "d", "-1s", "1w", "99999999999999999999d", "1é"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
