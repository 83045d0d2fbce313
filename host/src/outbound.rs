// SPDX-License-Identifier: Apache-2.0
//! What goes to a vendor: an adapter's words become a request, with the vendor's key, the credential that was fetched for
//! it, and its signature. This is the one place where a secret meets a request; nothing here retries but a credential that
//! the vendor refuses.

pub mod questions;
pub mod redaction;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::clock;
use crate::config::place::hex;
use crate::directory::pool::{COOL_DOWN_LIMITED, COOL_DOWN_REFUSED, Member, Pool, Turn};
use crate::failure::{Failure, Kind};
use crate::keys::{Grants, Secret};
use crate::plugin::types::{Body, Placed, TOKEN, Unsigned, UpstreamRequest, Value};
use crate::routes::Vendor;
use crate::traces::Outgoing;
use crate::upstream::body::unpacked;
use crate::upstream::{Answer, Client, Endpoint, OutBody};
use redaction::Redaction;

/// Largest answer that is read when a credential is fetched.
const CREDENTIAL_BYTES_MAX: usize = 64 << 10;

/// Keys of a vendor that are tried for one request.
const KEYS_TRIED_MAX: u32 = 3;
/// The adapter's name for the vendor's key.
const KEY: &str = "key";

/// The body of a request, and what it is.
#[derive(Clone, Default)]
pub struct Payload {
    /// The bytes; none means no body.
    pub bytes: Bytes,
    /// Media type; none for JSON.
    pub media_type: Option<HeaderValue>,
}

impl Payload {
    /// A body of JSON.
    #[must_use]
    pub fn json(bytes: Bytes) -> Self {
        Self { bytes, media_type: None }
    }
}

/// Sends a request to a vendor and waits for the head of the answer.
///
/// # Errors
/// `misconfigured` if the policy lacks what the adapter names, or why there is no answer.
pub async fn send(
    client: &Client,
    vendor: &Vendor,
    request: &UpstreamRequest,
    payload: Payload,
    turn: &Turn,
    trace: Option<&Outgoing>,
) -> Result<Response<Answer>, Failure> {
    ask(client, vendor, request, payload, None, turn, trace).await
}

/// As [`send`], asking the vendor to turn the connection into this protocol (`websocket`); `headers` are the caller's part of
/// that.
///
/// # Errors
/// As [`send`].
pub async fn upgrade(
    client: &Client,
    vendor: &Vendor,
    request: &UpstreamRequest,
    headers: Vec<(HeaderName, HeaderValue)>,
    turn: &Turn,
    trace: Option<&Outgoing>,
) -> Result<Response<Answer>, Failure> {
    ask(client, vendor, request, Payload::default(), Some(headers), turn, trace).await
}

async fn ask(
    client: &Client,
    vendor: &Vendor,
    request: &UpstreamRequest,
    payload: Payload,
    upgrade: Option<Vec<(HeaderName, HeaderValue)>>,
    turn: &Turn,
    trace: Option<&Outgoing>,
) -> Result<Response<Answer>, Failure> {
    let endpoint = endpoint(vendor, &request.endpoint)?;
    let pool = vendor.pool.as_ref().filter(|_| names(request, KEY));
    let goes_on = request.method == Method::GET;
    let (mut refused, mut keys) = (false, 0);
    loop {
        let member = pool.and_then(|pool| pool.pick(turn, goes_on, Instant::now()));
        let key = member.map(Member::secret);
        let token = token(client, vendor, request).await?;
        let mut message =
            build(Sender::of(vendor), endpoint, request, payload.clone(), Secrets { token: token.as_deref(), key })?;
        for (name, value) in upgrade.iter().flatten() {
            message.headers_mut().insert(name, value.clone());
        }
        sign(vendor, endpoint, &mut message)?;
        if let Some(trace) = trace {
            trace.put(message.headers_mut());
        }
        let answer = client.send(endpoint, message).await;
        let answer = answer.map_err(|error| Failure::unanswered(&error, &vendor.name))?;
        if let (Some(pool), Some(member)) = (pool, member) {
            keys += 1;
            if cooled(pool, member, &answer, vendor)
                && keys < KEYS_TRIED_MAX
                && !(goes_on && turn.holds(member))
                && pool.has_ready(Instant::now())
            {
                continue; // the vendor has done nothing yet, and says so
            }
            turn.hold(member);
        }
        match token {
            Some(token) if answer.status() == StatusCode::UNAUTHORIZED && !refused => {
                vendor.adapter.credential().forget(&token).await;
                refused = true;
            }
            _ => {
                return unpacked(answer).map_err(|coding| {
                    let text = format!("{} has answered in a coding that nobody asked for", vendor.name);
                    Failure::new(Kind::BadAnswer, text).because(format!("content-encoding {coding:?}"))
                });
            }
        }
    }
}

/// Leaves a key alone that the vendor has refused, and answers whether it was so.
fn cooled(pool: &Pool, member: &Member, answer: &Response<Answer>, vendor: &Vendor) -> bool {
    let stated = answer.headers().get(header::RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
    let pause = match answer.status() {
        StatusCode::UNAUTHORIZED | StatusCode::PAYMENT_REQUIRED => COOL_DOWN_REFUSED,
        StatusCode::TOO_MANY_REQUESTS => stated.map_or(COOL_DOWN_LIMITED, Duration::from_secs),
        _ => return false,
    };
    let (key, status) = (&*member.key.id, answer.status().as_u16());
    tracing::warn!(vendor = %vendor.name, key, status, pause_s = pause.as_secs(), "a vendor key is left alone for a while");
    pool.cool(member, pause, Instant::now());
    true
}

/// Whether a request names a secret.
fn names(request: &UpstreamRequest, secret: &str) -> bool {
    let names_it = |placed: &Placed| matches!(&placed.value, Value::Secret { name, .. } if name == secret);
    request.headers.iter().chain(&request.query).any(names_it)
}

/// Whose words a request is made of.
#[derive(Clone, Copy)]
struct Sender<'s> {
    /// Name of the plugin.
    name: &'s str,
    /// Secrets that it may name.
    grants: &'s Grants,
}

impl<'s> Sender<'s> {
    fn of(vendor: &'s Vendor) -> Self {
        Self { name: vendor.adapter.name(), grants: vendor.adapter.secrets() }
    }
}

/// Secrets of one request, before those that the adapter was granted.
#[derive(Clone, Copy, Default)]
struct Secrets<'s> {
    /// The credential that was fetched.
    token: Option<&'s Secret>,
    /// The key that was chosen.
    key: Option<&'s Secret>,
}

fn endpoint<'v>(vendor: &'v Vendor, name: &str) -> Result<&'v Endpoint, Failure> {
    let endpoint = if name.is_empty() { vendor.endpoint.as_ref() } else { vendor.endpoints.get(name) };
    endpoint.map(|endpoint| &**endpoint).ok_or_else(|| {
        let lacks = if name.is_empty() { "base_url".to_owned() } else { format!("endpoints.{name}") };
        let message = format!("vendor {} has no {lacks}, and its adapter wants to ask there", vendor.name);
        Failure::new(Kind::Misconfigured, message)
    })
}

fn build<'r>(
    sender: Sender<'_>,
    endpoint: &Endpoint,
    request: &'r UpstreamRequest,
    payload: Payload,
    secrets: Secrets<'_>,
) -> Result<Request<OutBody>, Failure> {
    let wrong = |what: &str| Failure::new(Kind::Misconfigured, format!("the plugin {} {what}", sender.name));
    let value = |placed: &'r Placed| match &placed.value {
        Value::Text(text) => Ok(Cow::Borrowed(text.as_bytes())),
        Value::Secret { prefix, name } => {
            let own = match name.as_str() {
                TOKEN => secrets.token,
                KEY => secrets.key,
                _ => None,
            };
            let secret = own.or_else(|| sender.grants.secret(name));
            match secret {
                Some(secret) => Ok(Cow::Owned([prefix.as_bytes(), secret.expose()].concat())),
                None => Err(wrong(&format!("wants the secret {name:?}, which the policy does not grant"))),
            }
        }
    };
    let mut query = String::new();
    for placed in &request.query {
        if !query.is_empty() {
            query.push('&');
        }
        encode(&mut query, placed.name.as_bytes());
        query.push('=');
        encode(&mut query, &value(placed)?);
    }
    let mut payload = payload;
    let mut path = Cow::Borrowed(request.path.as_str());
    if is_form(request) && payload.bytes.is_empty() {
        // What a form asks for stands in its body, secrets included: a query ends in logs.
        payload.bytes = query.into();
    } else if !query.is_empty() {
        path = Cow::Owned(format!("{path}?{query}"));
    }
    let uri = if request.path.is_empty() { endpoint.itself(&path) } else { endpoint.uri(&path) };
    let uri = uri.map_err(|_| wrong("gave a path that is no path"))?;
    let has_body = !payload.bytes.is_empty();
    let mut message = Request::new(if has_body { OutBody::Full(payload.bytes) } else { OutBody::Empty });
    *message.method_mut() = request.method.clone();
    *message.uri_mut() = uri;
    let headers = message.headers_mut();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("penstock/", env!("CARGO_PKG_VERSION"))));
    if has_body {
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, payload.media_type.unwrap_or(json));
    }
    for placed in &request.headers {
        let name = HeaderName::from_bytes(placed.name.as_bytes()).map_err(|_| wrong("gave a bad header name"))?;
        let mut bytes = HeaderValue::from_bytes(&value(placed)?).map_err(|_| wrong("gave a bad header value"))?;
        bytes.set_sensitive(matches!(placed.value, Value::Secret { .. }));
        headers.insert(name, bytes);
    }
    Ok(message)
}

/// Whether a request states that its parameters are a form.
fn is_form(request: &UpstreamRequest) -> bool {
    request.method == Method::POST
        && request.headers.iter().any(|placed| {
            placed.name == "content-type"
                && matches!(&placed.value, Value::Text(kind) if kind == "application/x-www-form-urlencoded")
        })
}

fn sign(vendor: &Vendor, endpoint: &Endpoint, message: &mut Request<OutBody>) -> Result<(), Failure> {
    let adapter = &vendor.adapter;
    if !adapter.signs() {
        return Ok(());
    }
    let body: &[u8] = match message.body() {
        OutBody::Full(bytes) => bytes,
        _ => b"",
    };
    let body_sha256 = hex(&Sha256::digest(body));
    let headers = message.headers().iter();
    let headers: Vec<_> = headers
        .filter(|(_, value)| !value.is_sensitive())
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect();
    let unsigned = Unsigned {
        method: message.method().as_str(),
        host: endpoint.authority(),
        path: message.uri().path(),
        query: message.uri().query().unwrap_or_default(),
        headers: &headers,
        body_sha256: &body_sha256,
        time: clock::unix_s(),
    };
    let signature = adapter.sign(&unsigned).map_err(Failure::of_adapter)?;
    for (name, mut value) in signature {
        value.set_sensitive(name == header::AUTHORIZATION);
        message.headers_mut().insert(name, value);
    }
    Ok(())
}

/// The credential, if the request names it.
async fn token(client: &Client, vendor: &Vendor, request: &UpstreamRequest) -> Result<Option<Arc<Secret>>, Failure> {
    if !names(request, TOKEN) || vendor.adapter.secrets().secret(TOKEN).is_some() {
        return Ok(None);
    }
    // On the heap: it calls for an upstream itself, and hardly any request has it.
    vendor.adapter.credential().get(Box::pin(fetch(client, vendor))).await.map(Some)
}

async fn fetch(client: &Client, vendor: &Vendor) -> Result<(Secret, Duration), Failure> {
    let adapter = &vendor.adapter;
    let begun = clock::unix_s();
    let fetching = adapter.fetch(begun).map_err(Failure::of_adapter)?.ok_or_else(|| {
        let message = format!("the adapter {} names a credential and does not say how to get it", adapter.name());
        Failure::new(Kind::Misconfigured, message)
    })?;
    let payload = match &fetching.request.body {
        Body::Bytes(bytes) => Payload::json(Bytes::copy_from_slice(bytes)),
        _ => Payload::default(),
    };
    let endpoint = endpoint(vendor, &fetching.request.endpoint)?;
    let message = build(Sender::of(vendor), endpoint, &fetching.request, payload, Secrets::default())?;
    let answer = client.send(endpoint, message).await;
    let answer = answer.map_err(|error| Failure::unanswered(&error, &vendor.name))?;
    let status = answer.status();
    let body = http_body_util::Limited::new(answer.into_body(), CREDENTIAL_BYTES_MAX).collect().await;
    let body = body.map_err(|error| refused(vendor, "its answer cannot be read").because(error))?.to_bytes();
    if !status.is_success() {
        // The words of a token endpoint say what is wrong with the key; should they say what it is, that is taken out.
        let body = Redaction::of(vendor, None).body(body);
        let said = String::from_utf8_lossy(&body[..body.len().min(512)]).into_owned();
        return Err(refused(vendor, &format!("the answer was {status}")).because(said));
    }
    let json: Json = serde_json::from_slice(&body).map_err(|error| refused(vendor, "no JSON came").because(error))?;
    let token = json.pointer(&fetching.token).and_then(Json::as_str).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| refused(vendor, &format!("the answer has no {}", fetching.token)))?;
    let seconds = |pointer: &str| {
        let value = json.pointer(pointer).filter(|_| !pointer.is_empty())?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    };
    let until = seconds(&fetching.expires_at).map(|until| until.saturating_sub(begun));
    let lasts = seconds(&fetching.expires_in).or(until).unwrap_or(fetching.lasts);
    Ok((Secret::new(token.into()), Duration::from_secs(lasts)))
}

fn refused(vendor: &Vendor, why: &str) -> Failure {
    let message = format!("{} gave no credential for the gateway: {why}; tell the operator", vendor.name);
    Failure::new(Kind::NoCredential, message)
}

fn encode(out: &mut String, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push('%');
            out.push(HEX[usize::from(byte >> 4)].into());
            out.push(HEX[usize::from(byte & 15)].into());
        }
    }
}
