// SPDX-License-Identifier: Apache-2.0
//! What of the head of an upstream's answer reaches the caller, and what it says of the body.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use penstock_dialects::framing::Kind as Frames;
use penstock_dialects::ir::FaultClass;

use crate::inbound::text;
use crate::plugin::types::Framing;

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
pub(super) fn event_stream(media_type: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Asks reverse proxies between us and the caller not to gather the stream.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    headers
}

/// How a relayed answer is cut into frames; none if it is no stream. `array` says that the caller asked for a stream which
/// is a JSON array.
pub(super) fn stream_framing(headers: &HeaderMap, array: bool) -> Option<Frames> {
    let kind = text(headers, "content-type").unwrap_or_default();
    let is = |name: &str| kind.starts_with(name);
    if is("text/event-stream") {
        Some(Frames::Sse)
    } else if is("application/vnd.amazon.eventstream") {
        Some(Frames::AwsEventStream)
    } else if is("application/x-ndjson") {
        Some(Frames::JsonLines)
    } else {
        (array && is("application/json")).then_some(Frames::JsonArray)
    }
}

/// How an answer is cut that an adapter has announced; none for a whole one.
pub(super) fn frames(framing: Framing) -> Option<Frames> {
    match framing {
        Framing::Whole => None,
        Framing::Sse => Some(Frames::Sse),
        Framing::JsonLines => Some(Frames::JsonLines),
        Framing::AwsEventStream => Some(Frames::AwsEventStream),
        Framing::JsonArray => Some(Frames::JsonArray),
    }
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
