// SPDX-License-Identifier: Apache-2.0
//! Endpoints of a service in Consul, by blocking queries: the answer comes when something has changed
//! (developer.hashicorp.com/consul/api-docs/features/blocking).

use std::time::Duration;

use http::HeaderName;
use serde::Deserialize;

use super::{Seeker, segment, whole};
use crate::config::Consul;
use crate::upstream::fleet::Found;

/// How long a query waits at Consul for news, if answers may take that long.
const WAIT: Duration = Duration::from_secs(55);
const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    node: Node,
    service: Offered,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Offered {
    /// Empty for that of the node.
    #[serde(default)]
    address: String,
    port: u16,
    #[serde(default)]
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
}

/// Asks for as long as somebody wants to know.
pub(super) async fn follow(seeker: &mut Seeker, consul: &Consul) {
    let mut index = 0;
    loop {
        match look(seeker, consul, index).await {
            Ok((found, next)) => {
                // An index that goes back, or is none, begins anew.
                index = if next < index { 0 } else { next };
                seeker.put(found);
                seeker.breathe().await;
            }
            Err(why) => {
                index = 0;
                seeker.failed(&why).await;
            }
        }
    }
}

fn path(consul: &Consul, index: u64, wait: Duration) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("passing", "1");
    if index > 0 {
        query.append_pair("index", &index.to_string()).append_pair("wait", &format!("{}s", wait.as_secs().max(1)));
    }
    for (name, value) in [("tag", &consul.tag), ("dc", &consul.datacenter)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    format!("/v1/health/service/{}?{}", segment(&consul.service), query.finish())
}

async fn look(seeker: &Seeker, consul: &Consul, index: u64) -> Result<(Vec<Found>, u64), String> {
    let path = path(consul, index, WAIT.min(seeker.means.client.first_byte() / 2));
    let answer = seeker.ask(&path, (TOKEN, ""), None).await?;
    let next = answer.headers().get(INDEX).and_then(|index| index.to_str().ok()?.parse().ok()).unwrap_or(0);
    let instances: Vec<Instance> =
        serde_json::from_slice(&whole(answer).await?).map_err(|error| format!("no list of instances came: {error}"))?;
    let mut found: Vec<_> = instances
        .into_iter()
        .map(|instance| {
            let Instance { node, service } = instance;
            let host = if service.address.is_empty() { &node.address } else { &service.address };
            seeker.found(host, service.port, service.weights.map_or(1, |weights| weights.passing))
        })
        .collect();
    found.sort_by(|a, b| (&a.url, a.at).cmp(&(&b.url, b.at)));
    Ok((found, next))
}
