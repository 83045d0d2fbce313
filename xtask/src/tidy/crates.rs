// SPDX-License-Identifier: Apache-2.0
//! Rules about which crate may depend on which.

use toml::{Table, Value};

use super::{File, Finding};

/// The gateway's own crate.
const HOST: &str = "penstock";

/// Plugins, and what plugins are made of, know the contract and not the host.
pub(super) fn no_plugin_depends_on_the_host(files: &[File]) -> Vec<Finding> {
    let guests = ["plugins", "plugin-sdk", "dialects"];
    let manifests = files.iter().filter(|file| {
        file.path.ends_with("Cargo.toml")
            && guests.iter().any(|folder| file.within(folder))
            && !file.path.contains("/template/")
    });
    manifests.filter_map(|file| depends_on_host(file).map(|text| Finding::at(file, 0, text))).collect()
}

fn depends_on_host(file: &File) -> Option<String> {
    let manifest: Table = match file.text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return Some(format!("cannot be parsed: {error}")),
    };
    let targets = manifest.get("target").and_then(Value::as_table);
    let tables =
        std::iter::once(&manifest).chain(targets.into_iter().flat_map(|it| it.values().filter_map(Value::as_table)));
    let named = tables.flat_map(dependencies).any(|(name, value)| {
        let package = value.get("package").and_then(Value::as_str);
        package.unwrap_or(name) == HOST
    });
    named.then(|| format!("depends on `{HOST}`, the host: a plugin knows only the contract (penstock-sdk)"))
}

fn dependencies(table: &Table) -> impl Iterator<Item = (&String, &Value)> {
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    kinds.into_iter().filter_map(|kind| table.get(kind)).filter_map(Value::as_table).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::tests::file;
    use super::*;

    #[test]
    fn a_plugin_that_depends_on_the_host_is_found() {
        let bad = [
            "[dependencies]\npenstock.workspace = true",
            "[dev-dependencies]\npenstock = { path = \"../../host\" }",
            "[build-dependencies]\nh = { path = \"../../host\", package = \"penstock\" }",
            "[target.'cfg(unix)'.dependencies]\npenstock = \"0.1\"",
            "not toml",
        ];
        for text in bad {
            assert_eq!(no_plugin_depends_on_the_host(&[file("plugins/auth/x/Cargo.toml", text)]).len(), 1, "{text}");
        }
        let fine = "[dependencies]\npenstock-sdk.workspace = true";
        assert_eq!(no_plugin_depends_on_the_host(&[file("plugins/auth/x/Cargo.toml", fine)]), []);
        assert_eq!(no_plugin_depends_on_the_host(&[file("host/fuzz/Cargo.toml", bad[0])]), []);
    }
}
