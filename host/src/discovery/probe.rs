// SPDX-License-Identifier: Apache-2.0
//! Asks the endpoints of a service now and then whether they are well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Limited};
use tokio::task::JoinSet;

use super::jittered;
use crate::config::Probe;
use crate::upstream::{Client, Endpoint, Fleet, OutBody};

/// Most that is read of an answer; it keeps the connection when that is all.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Asks for as long as somebody wants to know.
pub(super) async fn run(service: Arc<str>, fleet: Arc<Fleet>, rules: Probe, client: Client) {
    loop {
        let mut asking = JoinSet::new();
        for member in fleet.now().iter() {
            let (member, rules, client) = (member.clone(), rules.clone(), client.clone());
            let service = Arc::clone(&service);
            asking.spawn(async move {
                let is_well = is_well(&member.endpoint, &rules, &client).await;
                let (service, endpoint) = (&*service, member.endpoint.place());
                match member.standing.probed(is_well, &rules, Instant::now()) {
                    Some(true) => tracing::info!(service, endpoint, "an endpoint is well by its probes"),
                    Some(false) => tracing::warn!(service, endpoint, "an endpoint is ill by its probes"),
                    None => {}
                }
            });
        }
        while asking.join_next().await.is_some() {}
        jittered(Duration::from_millis(rules.every_ms)).await;
    }
}

async fn is_well(endpoint: &Endpoint, rules: &Probe, client: &Client) -> bool {
    let Ok(uri) = endpoint.uri(&rules.path) else { return false };
    let mut request = Request::new(OutBody::Empty);
    *request.uri_mut() = uri;
    let agent = HeaderValue::from_static(concat!("penstock/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(header::USER_AGENT, agent);
    let asked = async {
        let answer = client.send(endpoint, request).await.ok()?;
        let status = answer.status().as_u16();
        // What it says does not matter, nor whether it says too much.
        let _ = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Some(status)
    };
    let status = tokio::time::timeout(Duration::from_millis(rules.timeout_ms), asked).await.ok().flatten();
    status.is_some_and(|status| status < 400)
}
