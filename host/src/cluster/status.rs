// SPDX-License-Identifier: Apache-2.0
//! How the cluster is, for operators.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Cluster, Node};

/// A node that has said nothing for so long is not there.
const SILENT_MS: u64 = 5000;

/// What a node says of itself.
#[derive(Serialize, Deserialize)]
struct Said {
    name: String,
    change: u64,
    generation: u64,
    refused: usize,
    last_error: Option<String>,
    version: String,
}

impl Node {
    /// What this node says of itself.
    pub(super) fn shown_to_others(&self) -> String {
        serde_json::to_string(&self.said()).unwrap_or_default()
    }

    fn said(&self) -> Said {
        let change = self.copy().number;
        let problems = self.problems();
        Said {
            name: self.name.clone(),
            change,
            generation: self.control.get().map_or(0, |(control, _)| control.status().generation),
            refused: problems.len(),
            last_error: problems.iter().next().map(|(name, why)| format!("{name}: {why}")),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl Cluster {
    /// The cluster as an operator sees it: its last change, who leads, every node.
    pub async fn status(&self) -> Value {
        let node = &self.0;
        let problems: Vec<_> =
            node.problems().iter().map(|(name, why)| json!({ "entry": name, "refused": why })).collect();
        let asked = if node.is_away() { Err("away".to_owned()) } else { node.wire.nodes().await };
        let Ok(found) = asked else {
            let own = shown(&node.id, &node.said(), 0, true, None);
            return json!({
                "clustered": true, "node": node.id, "redis": "away", "change": node.copy().number,
                "leader": null, "token": null, "nodes": [own], "problems": problems,
            });
        };
        let (leader, token) = found.lease.split_once(' ').unzip();
        let nodes = found.nodes.iter().filter_map(|(id, text)| {
            let (seen, said) = text.split_once(' ')?;
            let said = serde_json::from_str(said).ok()?;
            let silent_ms = found.now_ms.saturating_sub(seen.parse().ok()?);
            Some(shown(id, &said, silent_ms, silent_ms < SILENT_MS, leader))
        });
        json!({
            "clustered": true, "node": node.id, "redis": "there", "change": found.number, "leader": leader,
            "token": token.and_then(|token| token.parse::<u64>().ok()),
            "nodes": nodes.collect::<Vec<_>>(), "problems": problems,
        })
    }
}

/// The same of a gateway that is alone.
#[must_use]
pub fn alone() -> Value {
    json!({
        "clustered": false, "node": null, "redis": null, "change": 0, "leader": null, "token": null, "nodes": [],
        "problems": [],
    })
}

fn shown(id: &str, said: &Said, silent_ms: u64, there: bool, leader: Option<&str>) -> Value {
    json!({
        "id": id, "name": said.name, "change": said.change, "generation": said.generation, "leads": leader == Some(id),
        "there": there, "silent_ms": silent_ms, "refused": said.refused, "last_error": said.last_error,
        "version": said.version,
    })
}
