// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask advisories`: holds Cargo.lock to a copy of the `RustSec` advisory database, without a network.
//! (`cargo deny check` does the same with a network, and looks at licences and sources besides: deny.toml.)

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use semver::{Version, VersionReq};
use serde::Deserialize;

/// Where to find the database, and what is accepted.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Checked-out copy of <https://github.com/rustsec/advisory-db>.
    #[arg(long)]
    pub(crate) db: PathBuf,
}

/// The head of an advisory (`crates/NAME/RUSTSEC-*.md`).
#[derive(Deserialize)]
struct Head {
    advisory: Advisory,
    #[serde(default)]
    versions: Versions,
}

#[derive(Deserialize)]
struct Advisory {
    id: String,
    package: String,
    #[serde(default)]
    informational: Option<String>,
    #[serde(default)]
    withdrawn: Option<String>,
}

#[derive(Default, Deserialize)]
struct Versions {
    #[serde(default)]
    patched: Vec<String>,
    #[serde(default)]
    unaffected: Vec<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
}

/// What deny.toml says of advisories.
#[derive(Deserialize)]
struct Deny {
    advisories: Accepted,
}

#[derive(Deserialize)]
struct Accepted {
    #[serde(default)]
    ignore: Vec<Ignored>,
}

#[derive(Deserialize)]
struct Ignored {
    id: String,
    reason: String,
}

/// Prints what is known of the packages in Cargo.lock.
///
/// # Errors
/// A package has a known hole, the database cannot be read, or deny.toml accepts what does not concern us.
pub(crate) fn run(root: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let read = |name: &str| fs::read_to_string(root.join(name)).with_context(|| name.to_owned());
    let lock: Lock = toml::from_str(&read("Cargo.lock")?).context("Cargo.lock")?;
    let deny: Deny = toml::from_str(&read("deny.toml")?).context("deny.toml")?;
    let mut accepted: BTreeMap<String, String> =
        deny.advisories.ignore.into_iter().map(|Ignored { id, reason }| (id, reason)).collect();
    let foreign: Vec<_> = lock.package.iter().filter(|package| package.source.is_some()).collect();
    let (mut holes, mut read_count) = (0, 0);
    for package in &foreign {
        let folder = arguments.db.join("crates").join(&package.name);
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let head = head(&text).with_context(|| path.display().to_string())?;
            read_count += 1;
            if !concerns(&head, package).with_context(|| path.display().to_string())? {
                continue;
            }
            let Head { advisory, versions } = head;
            let said = match (accepted.remove(&advisory.id), advisory.informational) {
                (Some(reason), _) => format!("accepted: {reason}"),
                (None, Some(kind)) => kind,
                (None, None) => {
                    holes += 1;
                    format!("patched in {}", versions.patched.join(" or "))
                }
            };
            println!("{} {}: {}: {said}", package.name, package.version, advisory.id);
        }
    }
    println!("{} packages, {read_count} advisories of them, {holes} known holes", foreign.len());
    if read_count == 0 {
        bail!("{} holds no advisory of any of our packages: is it the database?", arguments.db.display());
    }
    if let Some((id, _)) = accepted.first_key_value() {
        bail!("deny.toml: {id} concerns no package any more: leave it out");
    }
    if holes > 0 { bail!("{holes} known holes: update the packages") } else { Ok(()) }
}

/// The head of an advisory stands in its first block of code.
fn head(text: &str) -> anyhow::Result<Head> {
    let (_, rest) = text.split_once("```toml\n").context("no block of TOML")?;
    let (block, _) = rest.split_once("```").context("the block of TOML has no end")?;
    Ok(toml::from_str(block)?)
}

fn concerns(head: &Head, package: &Package) -> anyhow::Result<bool> {
    if head.advisory.withdrawn.is_some() || head.advisory.package != package.name {
        return Ok(false);
    }
    let unread = |error: semver::Error| anyhow::anyhow!("{error}");
    let version: Version = package.version.parse().map_err(unread)?;
    for requirement in head.versions.patched.iter().chain(&head.versions.unaffected) {
        if requirement.parse::<VersionReq>().map_err(unread)?.matches(&version) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_concerned_until_it_is_patched_or_if_it_never_was() {
        let text = "```toml\n[advisory]\nid = \"RUSTSEC-1\"\npackage = \"p\"\n[versions]\npatched = [\"^1.2.3\", \">= 2.0.1\"]\n\
                    unaffected = [\"< 0.5.0\"]\n```\n# Title\n";
        let head = head(text).unwrap();
        let package = |name: &str, version: &str| Package { name: name.into(), version: version.into(), source: None };
        let cases =
            [("0.4.9", false), ("0.5.0", true), ("1.2.2", true), ("1.2.3", false), ("2.0.0", true), ("2.0.1", false)];
        for (version, expected) in cases {
            assert_eq!(concerns(&head, &package("p", version)).unwrap(), expected, "{version}");
        }
        assert!(!concerns(&head, &package("q", "1.0.0")).unwrap());
        assert!(super::head("no block").is_err());
    }
}
