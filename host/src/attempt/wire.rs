// SPDX-License-Identifier: Apache-2.0
//! How an adapter's words become an upstream request, and what of an upstream's head reaches the caller.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use penstock_dialects::ir::FaultClass;

use crate::failure::{Failure, Kind};
use crate::inbound::text;
use crate::plugin::Adapter;
use crate::plugin::types::{Placed, UpstreamRequest, Value};
use crate::upstream::{Endpoint, OutBody};

/// Writes the upstream request. This is the one place where a vendor's key meets a request.
pub(super) fn build<'r>(
    request: &'r UpstreamRequest,
    endpoint: &Endpoint,
    adapter: &Adapter,
    body: Bytes,
) -> Result<http::Request<OutBody>, Failure> {
    let wrong = |what: &str| Failure::new(Kind::Misconfigured, format!("the adapter {} {what}", adapter.name()));
    let value = |placed: &'r Placed| match &placed.value {
        Value::Text(text) => Ok(Cow::Borrowed(text.as_bytes())),
        Value::Secret { prefix, name } => match adapter.secrets().secret(name) {
            Some(secret) => Ok(Cow::Owned([prefix.as_bytes(), secret.expose()].concat())),
            None => Err(wrong(&format!("wants the secret {name:?}, which the policy does not grant"))),
        },
    };
    let mut path = Cow::Borrowed(request.path.as_str());
    for (index, placed) in request.query.iter().enumerate() {
        let path = path.to_mut();
        path.push(if index == 0 { '?' } else { '&' });
        encode(path, placed.name.as_bytes());
        path.push('=');
        encode(path, &value(placed)?);
    }
    let uri = endpoint.uri(&path).map_err(|_| wrong("gave a path that is no path"))?;
    let has_body = !body.is_empty();
    let mut message = http::Request::new(if has_body { OutBody::Full(body) } else { OutBody::Empty });
    *message.method_mut() = request.method.clone();
    *message.uri_mut() = uri;
    let headers = message.headers_mut();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("penstock/", env!("CARGO_PKG_VERSION"))));
    if has_body {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for placed in &request.headers {
        let name = HeaderName::from_bytes(placed.name.as_bytes()).map_err(|_| wrong("gave a bad header name"))?;
        let mut bytes = HeaderValue::from_bytes(&value(placed)?).map_err(|_| wrong("gave a bad header value"))?;
        bytes.set_sensitive(matches!(placed.value, Value::Secret { .. }));
        headers.insert(name, bytes);
    }
    Ok(message)
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

/// The headers of an upstream's answer that a caller may read: all but those of the connection, and cookies, which would
/// be the vendor's with us.
pub(super) fn forwardable(mut headers: HeaderMap) -> HeaderMap {
    crate::head::strip_hop_by_hop(&mut headers);
    for name in [header::CONTENT_LENGTH, header::SET_COOKIE, header::STRICT_TRANSPORT_SECURITY, header::ALT_SVC] {
        headers.remove(name);
    }
    headers
}

/// The head of a stream that the gateway writes itself.
pub(super) fn event_stream() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Asks reverse proxies between us and the caller not to gather the stream.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    headers
}

/// Whether an answer is a stream of server-sent events.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    text(headers, "content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
}

/// Whether an answer is one JSON value.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    text(headers, "content-type").is_some_and(|kind| kind.starts_with("application/json"))
}

/// The class of a status, where the adapter cannot say.
pub(super) fn class_of(status: StatusCode) -> FaultClass {
    match status.as_u16() {
        401 => FaultClass::Authentication,
        402 => FaultClass::Billing,
        403 => FaultClass::Permission,
        404 => FaultClass::ModelNotFound,
        408 | 504 => FaultClass::Timeout,
        429 => FaultClass::RateLimit,
        400..=499 => FaultClass::InvalidRequest,
        503 | 529 => FaultClass::Overloaded,
        _ => FaultClass::VendorBug,
    }
}
