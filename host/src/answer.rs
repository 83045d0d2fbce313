// SPDX-License-Identifier: Apache-2.0
//! What the caller gets: the outcome of the stages as an HTTP response.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use penstock_dialects::codec::{ModelEntry, Operation};

use crate::attempt::{Answer, BodyOf};
use crate::failure::{Failure, Kind};
use crate::inbound::Asked;
use crate::ledger::Entry;
use crate::plugin::types::Reply;
use crate::proxy::Proxied;
use crate::relay::{Body, Piped, Stream};
use crate::snapshot::Snapshot;
use crate::stages::{Principal, Standing};
use crate::underway::Underway;

/// How a request came out.
pub enum Outcome {
    /// A filter or the gateway itself has answered.
    Local(Reply),
    /// A target has answered.
    Answer(Box<Answer>),
    /// A plain HTTP service has answered.
    Proxied(Proxied),
}

/// The response of an outcome. The ledger's entry goes with its body.
#[must_use]
pub fn respond(outcome: Outcome, underway: &Underway, mut entry: Entry) -> Response<Body> {
    let standing = entry.standing;
    let mut response = match outcome {
        Outcome::Local(reply) => {
            entry.status = reply.status;
            let headers = reply.headers.into_iter().collect();
            response(reply.status, headers, Body::whole(reply.body, Some(entry)))
        }
        Outcome::Answer(answer) => of_target(*answer, underway, entry),
        Outcome::Proxied(Proxied::Piped(piped)) => {
            entry.status = piped.status();
            let (mut head, body) = piped.into_parts();
            crate::head::strip_hop_by_hop(&mut head.headers);
            response(head.status, head.headers, Body::Piped(Box::new(Piped::new(body, entry))))
        }
        Outcome::Proxied(Proxied::Upgraded(headers, tunnel)) => {
            entry.status = StatusCode::SWITCHING_PROTOCOLS;
            tunnel.spawn(entry);
            response(StatusCode::SWITCHING_PROTOCOLS, headers, Body::whole("", None))
        }
    };
    if let Some(standing) = standing {
        tell_limit(response.headers_mut(), standing);
    }
    response
}

/// What is left of the caller's limit, in the words that most gateways and libraries know
/// (draft-ietf-httpapi-ratelimit-headers-03; later drafts say it in structured fields).
fn tell_limit(headers: &mut HeaderMap, standing: Standing) {
    const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
    const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
    const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
    headers.insert(LIMIT, HeaderValue::from(standing.limit));
    headers.insert(REMAINING, HeaderValue::from(standing.remaining));
    headers.insert(RESET, HeaderValue::from(standing.reset_s));
}

fn of_target(answer: Answer, underway: &Underway, mut entry: Entry) -> Response<Body> {
    let Answer { status, mut headers, content, dropped } = answer;
    entry.status = status;
    if !dropped.is_empty()
        && let Ok(value) = HeaderValue::from_str(&dropped.join(", "))
    {
        headers.insert(HeaderName::from_static("penstock-dropped"), value);
    }
    if let Some(value) = entry.target.take() {
        headers.insert(HeaderName::from_static("penstock-target"), value);
    }
    if entry.attempts > 1 && !status.is_success() {
        no_retry(&mut headers);
    }
    if let Some(code) = entry.failure {
        // In the vendor's own words, but whose they are must be plain: a 401 may be about our key, not the caller's.
        headers.insert(HeaderName::from_static("penstock-failure"), HeaderValue::from_static(code));
    }
    let body = match content {
        BodyOf::Stream { pump, ready, rest } => {
            Body::Stream(Box::new(Stream::new(pump, ready, rest, entry, underway.deadline)))
        }
        BodyOf::Whole { body, usage } => {
            usage.into_iter().for_each(|usage| entry.used(usage));
            if let Some(cost) = entry.cost()
                && let Ok(value) = HeaderValue::from_str(&cost.usd.to_string())
            {
                headers.insert(HeaderName::from_static("penstock-cost"), value);
            }
            Body::whole(body, Some(entry))
        }
    };
    response(status, headers, body)
}

/// The response of a failure, in the caller's dialect where that is known.
#[must_use]
pub fn refusal(failure: &Failure, asked: Option<&Asked>, id: &str, entry: Option<Entry>) -> Response<Body> {
    let status = failure.status();
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static("penstock-failure"), HeaderValue::from_static(failure.kind.code()));
    if let Some(ms) = failure.fault.retry_after_ms {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
        headers.insert(HeaderName::from_static("retry-after-ms"), HeaderValue::from(ms));
    }
    if failure.kind == Kind::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if entry.as_ref().is_some_and(|entry| entry.attempts > 1) {
        no_retry(&mut headers);
    }
    let body = match asked {
        Some(asked) => {
            for (name, value) in asked.dialect.fault_headers(&failure.fault) {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    headers.insert(HeaderName::from_static(name), value);
                }
            }
            asked.dialect.encode_fault(&failure.fault, id)
        }
        None => {
            let error = serde_json::json!({ "code": failure.kind.code(), "message": failure.fault.message });
            serde_json::json!({ "error": error, "request_id": id }).to_string().into_bytes()
        }
    };
    if let Some(standing) = entry.as_ref().and_then(|entry| entry.standing) {
        tell_limit(&mut headers, standing);
    }
    let entry = entry.map(|mut entry| {
        entry.status = status;
        entry.failure = Some(failure.kind.code());
        entry
    });
    response(status, headers, Body::whole(body, entry))
}

/// What there is for the caller: models, or what vendors can do.
///
/// # Errors
/// `unknown-model`
pub fn about(snapshot: &Snapshot, asked: &Asked, principal: &Principal) -> Result<Reply, Failure> {
    match asked.operation {
        Operation::Capabilities => Ok(capabilities(snapshot, principal)),
        _ => models(snapshot, asked, principal),
    }
}

/// The list of models that the caller may use, or the one that the path names, in the caller's dialect.
///
/// # Errors
/// `unknown-model`
fn models(snapshot: &Snapshot, asked: &Asked, principal: &Principal) -> Result<Reply, Failure> {
    let body = match &asked.model {
        None => {
            let names = snapshot.models.names().into_iter().filter(|(name, _)| principal.may_use(name).is_ok());
            let entries: Vec<_> = names.map(|(id, owner)| ModelEntry { id, owner }).collect();
            asked.dialect.encode_models(&entries)
        }
        Some(model) => {
            let found = snapshot.models.resolve(model).filter(|_| principal.may_use(model).is_ok());
            let owner = found.and_then(|alias| alias.targets.first().map(|target| target.vendor.name.to_string()));
            let owner = owner.ok_or_else(|| Failure::unknown_model(model))?;
            asked.dialect.encode_model(&ModelEntry { id: model.clone(), owner })
        }
    };
    Ok(json(body))
}

/// What each vendor in force can do: the dialects in which it is relayed, its operations, models and features, as its adapter
/// says and its policy restricts.
fn capabilities(snapshot: &Snapshot, principal: &Principal) -> Reply {
    let mut vendors: Vec<_> = snapshot.models.vendors.values().collect();
    vendors.sort_by(|one, other| one.name.cmp(&other.name));
    let vendors = vendors.into_iter().map(|vendor| {
        let features = vendor.adapter.features().iter().filter(|feature| !vendor.without.contains(feature));
        serde_json::json!({
            "name": &*vendor.name,
            "adapter": vendor.adapter.component(),
            "dialects": vendor.adapter.dialects(),
            "operations": vendor.adapter.operations().iter().filter(|name| principal.may_ask_for(name).is_ok()).collect::<Vec<_>>(),
            "models": vendor.models.iter().filter(|name| principal.may_use(name).is_ok()).collect::<Vec<_>>(),
            "features": features.collect::<Vec<_>>(),
        })
    });
    let vendors: Vec<_> = vendors.collect();
    json(serde_json::json!({ "object": "capabilities", "vendors": vendors }).to_string().into_bytes())
}

fn json(body: Vec<u8>) -> Reply {
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Reply { status: StatusCode::OK, headers: vec![json], body }
}

/// The gateway has tried again already; a caller's library that does so as well would multiply the load.
fn no_retry(headers: &mut HeaderMap) {
    headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
}

fn response(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
