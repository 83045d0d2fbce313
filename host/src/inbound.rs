// SPDX-License-Identifier: Apache-2.0
//! What a caller asks for: dialect and operation by the head, then the bounded body with its model and streaming flag.
//!
//! The head is judged before the body is read, so that nobody who may not ask can make the gateway hold a body.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;
use penstock_dialects::codec::{Codec, Operation};
use penstock_dialects::splice::Members;

use crate::failure::{Failure, Kind};
use crate::upstream::{BodyError, InBody};

/// What the head of an AI request says.
#[derive(Clone, Copy)]
pub struct Asked {
    /// The caller's dialect.
    pub dialect: &'static dyn Codec,
    /// What is asked for.
    pub operation: Operation,
}

impl Asked {
    /// Recognises a request below a route's prefix; none if no dialect has such a request.
    pub fn recognise(head: &Parts, prefix: &str) -> Option<Self> {
        let path = head.uri.path().strip_prefix(prefix).unwrap_or_default();
        let header = |name: &str| text(&head.headers, name);
        let (dialect, operation) = penstock_dialects::recognise(head.method.as_str(), path, &header)?;
        Some(Self { dialect, operation })
    }
}

/// An AI request with its body.
pub struct Inbound<'b> {
    /// Dialect and operation.
    pub asked: Asked,
    /// The model that the caller named.
    pub model: String,
    /// Whether the caller wants a stream.
    pub streaming: bool,
    /// The body's top-level members, and the bytes they lie in.
    pub members: Members<'b>,
    /// The body.
    pub body: &'b Bytes,
}

impl<'b> Inbound<'b> {
    /// Reads model and streaming flag from a body.
    ///
    /// # Errors
    /// `bad-body` if it is not a JSON object, names a member twice, or names no model.
    pub fn parse(asked: Asked, body: &'b Bytes) -> Result<Self, Failure> {
        let bad = |message: String| Failure::new(Kind::BadBody, message);
        let members = Members::index(body).map_err(|fault| bad(fault.message))?;
        let model = members.string("model").map(std::borrow::Cow::into_owned).unwrap_or_default();
        if model.is_empty() {
            return Err(bad("model: name the model as a string; GET the models to see what there is".into()));
        }
        let streaming = members.boolean("stream").unwrap_or(false);
        Ok(Self { asked, model, streaming, members, body })
    }
}

/// Reads a body, not more than `body_bytes_max` of it.
///
/// # Errors
/// `body-too-large`, `body-timeout`, `body-unsupported`, or `bad-body` if the caller hangs up.
pub async fn read_body(headers: &HeaderMap, mut body: InBody, body_bytes_max: usize) -> Result<Bytes, Failure> {
    if let Some(coding) = text(headers, "content-encoding").filter(|coding| !coding.eq_ignore_ascii_case("identity")) {
        let message = format!("content-encoding {coding} is not accepted here; send the body uncompressed");
        return Err(Failure::new(Kind::BodyUnsupported, message));
    }
    let too_large = || {
        let message = format!("the body is over the limit of {body_bytes_max} bytes (limits.body_bytes_max)");
        Failure::new(Kind::BodyTooLarge, message)
    };
    if body.size_hint().lower() > body_bytes_max as u64 {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        if first.len() + rest.len() + data.len() > body_bytes_max {
            return Err(too_large());
        }
        // Most bodies come in one piece, which is then used as it is.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

fn broken(error: &BodyError) -> Failure {
    match error {
        BodyError::Idle(limit) => {
            let message = format!("no more of the body came within {} ms", limit.as_millis());
            Failure::new(Kind::BodyTimeout, message)
        }
        BodyError::Cut(_) => Failure::new(Kind::BadBody, "the body ended before it was complete").because(error),
    }
}

/// A header as text; none if it is absent or not UTF-8.
#[must_use]
pub fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
}

/// The wanted headers that a request or answer has, as pairs for a plugin.
#[must_use]
pub fn wanted<'h>(wants: &'h [String], headers: &'h HeaderMap) -> Vec<(&'h str, &'h str)> {
    let mut pairs = Vec::with_capacity(wants.len());
    for name in wants {
        for value in headers.get_all(name.as_str()) {
            if let Ok(value) = std::str::from_utf8(value.as_bytes()) {
                pairs.push((name.as_str(), value));
            }
        }
    }
    pairs
}
