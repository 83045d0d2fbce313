// SPDX-License-Identifier: Apache-2.0
//! Asks others what an auth plugin must know, where the operator says that they are. A question goes out once for all that
//! wait for its answer; nothing here retries, the next request does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;

use super::{Payload, Secrets, Sender, build};
use crate::documents::asked_once;
use crate::failure::{Failure, Kind};
use crate::metrics::Metrics;
use crate::plugin::types::{Body, Wish};
use crate::routes::Authority;
use crate::upstream::Client;

/// How much longer than the answer may take somebody waits for it.
const GRACE: Duration = Duration::from_millis(100);

/// Has a question asked, and waits for the answer if the plugin needs it, at most `patience`. The answer is found in its entry.
pub async fn ask(client: &Client, metrics: &Arc<Metrics>, authority: &Arc<Authority>, wish: &Wish, patience: Duration) {
    let documents = authority.plugin.documents();
    let limit = Duration::from_millis(documents.limits().fetch_ms);
    let wait = if wish.is_needed { patience.min(limit + GRACE) } else { Duration::ZERO };
    let asking = || {
        let (client, metrics, authority, wish) =
            (client.clone(), Arc::clone(metrics), Arc::clone(authority), wish.clone());
        async move {
            let begun = Instant::now();
            let asked = tokio::time::timeout(limit, fetch(&client, &authority, &wish)).await;
            let late = |_| Err(away(&authority, "it did not answer within auth.fetch_ms"));
            land(&metrics, &authority, &wish, asked.unwrap_or_else(late), begun);
        }
    };
    asked_once(documents, &wish.entry, wait, asking).await;
}

/// Puts an answer where the plugin finds it.
fn land(
    metrics: &Metrics,
    authority: &Authority,
    wish: &Wish,
    answer: Result<(StatusCode, Bytes), Failure>,
    begun: Instant,
) {
    let (documents, plugin) = (authority.plugin.documents(), authority.plugin.name());
    let outcome = match answer {
        Ok((status, body)) => {
            documents.keep(&wish.entry.value, status.as_u16(), body, begun);
            if status.is_success() { "ok" } else { "refused" }
        }
        Err(failure) => {
            documents.failed(&wish.entry.value, Instant::now());
            let endpoint = wish.request.endpoint.as_str();
            tracing::warn!(plugin, endpoint, %failure, "no answer for an auth plugin");
            "failed"
        }
    };
    metrics.asked_for_auth(plugin, outcome);
}

async fn fetch(client: &Client, authority: &Authority, wish: &Wish) -> Result<(StatusCode, Bytes), Failure> {
    let (plugin, request) = (&authority.plugin, &wish.request);
    let endpoint = authority.endpoints.get(&request.endpoint).ok_or_else(|| {
        let (name, endpoint) = (plugin.name(), &request.endpoint);
        let message = format!("[plugins.{name}] has no endpoints.{endpoint}, and the plugin wants to ask there");
        Failure::new(Kind::Misconfigured, message)
    })?;
    let payload = match &request.body {
        Body::Bytes(bytes) => Payload::json(Bytes::copy_from_slice(bytes)),
        _ => Payload::default(),
    };
    let sender = Sender { name: plugin.name(), grants: plugin.secrets() };
    let message = build(sender, endpoint, request, payload, Secrets::default())?;
    let answer = client.send(endpoint, message).await;
    let answer = answer.map_err(|error| Failure::unanswered(&error, endpoint.place()))?;
    let status = answer.status();
    let is_for_now = matches!(status.as_u16(), 408 | 425 | 429 | 500..);
    if is_for_now {
        return Err(away(authority, &format!("the answer was {status}")));
    }
    let bytes_max = plugin.documents().limits().document_bytes_max;
    let body = http_body_util::Limited::new(answer.into_body(), bytes_max).collect().await;
    let body = body.map_err(|error| away(authority, "its answer cannot be read").because(error))?;
    Ok((status, body.to_bytes()))
}

fn away(authority: &Authority, why: &str) -> Failure {
    Failure::new(Kind::AuthAway, format!("what {} must know cannot be had: {why}", authority.plugin.name()))
}
