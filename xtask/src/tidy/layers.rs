// SPDX-License-Identifier: Apache-2.0
//! The rule that the host's modules import only downwards. The layers stand in ARCHITECTURE.md, in the table whose header
//! begins with `| layer |`; this is the only place that reads them.

use std::collections::BTreeMap;

use super::tokens;
use super::{File, Finding, find};

const PAGE: &str = "ARCHITECTURE.md";

/// The table: modules with their layer, and what one may name within its own layer.
struct Layers {
    of: BTreeMap<String, u32>,
    sideways: Vec<(String, String)>,
}

/// Every module is in the table, and none names one above it or beside it.
pub(super) fn downwards(files: &[File]) -> Vec<Finding> {
    let Some(page) = find(files, PAGE) else {
        return vec![Finding {
            path: PAGE.into(),
            line: 0,
            text: "is missing; the table of layers stands there".into(),
        }];
    };
    let (layers, mut findings) = read(page);
    let host: Vec<_> = files.iter().filter(|file| file.within("host/src") && file.is("rs")).collect();
    for file in &host {
        findings.extend(upward_paths(file, &layers));
    }
    let modules: Vec<_> = host.iter().map(|file| module(file)).collect();
    let stale = layers.of.keys().filter(|name| !modules.contains(name));
    findings
        .extend(stale.map(|name| Finding::at(page, 0, format!("the table of layers has `{name}`, host/src has not"))));
    findings
}

fn upward_paths(file: &File, layers: &Layers) -> Vec<Finding> {
    let from = module(file);
    let Some(own) = layers.of.get(&from) else {
        return vec![Finding::at(file, 0, format!("module `{from}` is not in the table of layers ({PAGE})"))];
    };
    let paths = tokens::crate_paths(&tokens::product(file), depth(file));
    let allowed = |to: &str| {
        let beside = || layers.sideways.iter().any(|(a, b)| *a == from && b == to);
        // What is not a module of the table is an item of lib.rs, which is above all of them.
        from == to || layers.of.get(to).is_some_and(|layer| layer < own) || beside()
    };
    let bad = paths.into_iter().filter(|(to, _)| !allowed(to));
    bad.map(|(to, line)| {
        Finding::at(file, line, format!("`{from}` (layer {own}) may not name `{to}`: only downwards ({PAGE})"))
    })
    .collect()
}

/// The top-level module that a file belongs to: `host/src/admin/api.rs` is part of `admin`.
fn module(file: &File) -> String {
    let below = file.path.trim_start_matches("host/src/");
    below.split('/').next().unwrap_or(below).trim_end_matches(".rs").to_owned()
}

/// How many `super::` lead from a file to the root of the crate.
fn depth(file: &File) -> usize {
    let below = file.path.trim_start_matches("host/src/").trim_end_matches(".rs");
    let segments = below.split('/').filter(|segment| !matches!(*segment, "mod" | "lib" | "main")).count();
    segments.max(1)
}

/// Reads rows such as `| 3 | attempt, relay, ledger | 2-0 (relay > ledger) |`.
fn read(page: &File) -> (Layers, Vec<Finding>) {
    let mut layers = Layers { of: BTreeMap::new(), sideways: Vec::new() };
    let mut findings = Vec::new();
    let table = page.text.lines().enumerate().skip_while(|(_, line)| !line.starts_with("| layer |"));
    for (number, line) in table.skip(2).take_while(|(_, line)| line.starts_with('|')) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let layer = cells[0].split_whitespace().next().and_then(|word| word.parse().ok());
        let (Some(layer), Some(modules), Some(may)) = (layer, cells.get(1), cells.get(2)) else {
            findings.push(Finding::at(
                page,
                number + 1,
                "a row of the layer table is `| number words | modules | may import |`",
            ));
            continue;
        };
        layers.of.extend(names(modules).map(|name| (name, layer)));
        let arrows = may.split(['(', ')', ',', ';']).filter_map(|part| part.split_once('>'));
        layers.sideways.extend(arrows.map(|(from, to)| (plain(from), plain(to))));
    }
    if layers.of.is_empty() {
        findings.push(Finding::at(page, 0, "has no table of layers (a row that begins with `| layer |`)"));
    }
    (layers, findings)
}

fn names(cell: &str) -> impl Iterator<Item = String> + '_ {
    cell.split(',').map(plain).filter(|name| !name.is_empty())
}

fn plain(name: &str) -> String {
    name.trim().trim_matches('`').trim_end_matches("/*").trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, shown};
    use super::*;

    const TABLE: &str = "| layer | modules | may import |\n|---|---|---|\n| 2 top | `gateway` | 1-0 |\n\
                         | 1 | `relay`, `plugin/`, ledger | 0 (relay > ledger) |\n| 0 | config | nothing |\n\nmore | text\n";

    fn check(path: &str, text: &str) -> Vec<String> {
        let mut files = vec![file(PAGE, TABLE), file(path, text)];
        for present in ["gateway", "relay", "plugin/mod", "ledger", "config"] {
            files.push(file(&format!("host/src/{present}.rs"), ""));
        }
        shown(&downwards(&files))
    }

    #[test]
    fn a_path_that_leads_upwards_or_sideways_is_found() {
        let bad = [
            ("host/src/relay.rs", "use crate::gateway::Gateway;", 1),
            ("host/src/config.rs", "\nfn f() { crate::relay::x() }", 2),
            ("host/src/ledger.rs", "use crate::{config, relay::X};", 1),
            ("host/src/plugin/pool.rs", "use crate::relay;", 1),
            ("host/src/plugin/pool.rs", "use super::super::relay;", 1),
            ("host/src/config.rs", "use super::ledger;", 1),
            ("host/src/gateway.rs", "use crate::Item;", 1),
        ];
        for (path, text, line) in bad {
            let found = check(path, text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with(&format!("{path}:{line}: ")), "{found:?}");
        }
    }

    #[test]
    fn what_the_table_allows_is_not_found() {
        let fine = [
            ("host/src/gateway.rs", "use crate::{config::A, relay, plugin};"),
            ("host/src/relay.rs", "use crate::ledger::Entry;"),
            ("host/src/plugin/pool.rs", "use crate::plugin::types; use super::types; use crate::config;"),
            ("host/src/config.rs", "#[cfg(test)] mod tests { use crate::gateway; }"),
        ];
        for (path, text) in fine {
            assert_eq!(check(path, text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn table_and_folder_have_the_same_modules() {
        assert_eq!(
            check("host/src/novel.rs", ""),
            ["host/src/novel.rs: module `novel` is not in the table of layers (ARCHITECTURE.md)"]
        );
        let missing = downwards(&[file(PAGE, TABLE)]);
        assert_eq!(missing.len(), 5);
        assert_eq!(downwards(&[]).len(), 1);
        assert_eq!(downwards(&[file(PAGE, "no table")]).len(), 1);
    }
}
