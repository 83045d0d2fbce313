// SPDX-License-Identifier: Apache-2.0
//! What calls are sent, read within limits, and refusals as answers.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::failure;
use crate::directory::settings::{whole_numbers, without_values};
use crate::library::Refused;

/// Largest body of a call that is not an upload, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 8 << 20;
/// A whole body comes within this time.
const BODY_WAIT: Duration = Duration::from_secs(60);
/// Items of a list, if nothing else is asked for.
const LIMIT: usize = 100;
/// Items of a list at most.
const LIMIT_MAX: usize = 1000;

/// Longest value of a parameter, in characters.
const TEXT_MAX: usize = 256;

/// A refusal as an answer.
pub(super) struct Failed(StatusCode, Refused);

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        let status = match refused.code {
            "bad-request" => StatusCode::BAD_REQUEST,
            "no-such-plugin" | "no-such-version" | "no-such-generation" | "not-uploaded" | "not-found" => {
                StatusCode::NOT_FOUND
            }
            "in-use" | "exists" | "dangling" | "conflict" | "full" | "clustered" => StatusCode::CONFLICT,
            "version" => StatusCode::PRECONDITION_FAILED,
            "too-large" => StatusCode::PAYLOAD_TOO_LARGE,
            "timeout" => StatusCode::REQUEST_TIMEOUT,
            "too-many-readers" => StatusCode::TOO_MANY_REQUESTS,
            "busy" | "stopped" | "cluster-away" => StatusCode::SERVICE_UNAVAILABLE,
            "state-dir" | "internal" | "directory-broken" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self(status, refused)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        failure(self.0, &self.1)
    }
}

/// A part of a path.
pub(super) type Name = Result<Path<String>, PathRejection>;

pub(super) fn name_of(name: Name) -> Result<String, Failed> {
    name.map(|Path(name)| name).map_err(|_| bad_request("the name in the path is not UTF-8", "GET the list of names"))
}

/// The version that must be there, as `If-Match` says; none for any.
pub(super) fn expected(headers: &HeaderMap) -> Result<Option<u64>, Failed> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    if value == "*" {
        return Ok(None);
    }
    let version = value.to_str().ok().and_then(|value| value.strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    version.map(Some).ok_or_else(|| bad_request("If-Match is no version", "send the ETag of an answer, as it was"))
}

/// The parameters of a query; none may be there that is not known, and none twice.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(uri: &Uri, known: &[&str]) -> Result<Self, Failed> {
        let pairs: Vec<(String, String)> =
            form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        for (index, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let help =
                    if known.is_empty() { "it has none".to_owned() } else { format!("it has: {}", known.join(", ")) };
                return Err(bad_request("this call has no such query parameter", &help));
            }
            if pairs[index].1.chars().count() > TEXT_MAX {
                return Err(bad_request(&format!("{name}: expected at most {TEXT_MAX} characters"), "send less"));
            }
            if pairs[..index].iter().any(|(other, _)| other == name) {
                return Err(bad_request(&format!("{name} is there twice"), "send it once"));
            }
        }
        Ok(Self(pairs))
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Failed> {
        let wrong = || bad_request(&format!("{name} is no number"), "send decimal digits");
        let is_plain =
            |text: &String| !text.is_empty() && text.len() < 20 && text.bytes().all(|byte| byte.is_ascii_digit());
        self.text(name)
            .map(|text| Some(text).filter(is_plain).and_then(|text| text.parse().ok()).ok_or_else(wrong))
            .transpose()
    }

    /// How many items are asked for.
    pub(super) fn limit(&self) -> Result<usize, Failed> {
        match self.number("limit")?.map_or(Ok(LIMIT), usize::try_from) {
            Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
            _ => Err(bad_request(&format!("limit: expected from 1 to {LIMIT_MAX}"), "ask for further pages")),
        }
    }
}

/// A body is not read beyond its limit, and not at all if it is said to be longer.
pub(super) async fn read(request: Request<Body>, bytes_max: usize) -> Result<Bytes, Failed> {
    let too_large = || Refused::new("too-large", format!("the body has more than {bytes_max} bytes"), "send less");
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large().into());
    }
    match tokio::time::timeout(BODY_WAIT, axum::body::to_bytes(request.into_body(), bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if length.is_none() && !is_hang_up(&error) => Err(too_large().into()),
        Ok(Err(_)) => Err(bad_request("the body was cut", "send it again")),
        Err(_) => {
            let message = format!("the body took longer than {} s", BODY_WAIT.as_secs());
            Err(Refused::new("timeout", message, "send it again").into())
        }
    }
}

/// A body that is a JSON object.
pub(super) async fn object(request: Request<Body>) -> Result<Map<String, Value>, Failed> {
    let bytes = read(request, BODY_BYTES_MAX).await?;
    parse(&bytes, "send a JSON object; GET /api/v1/openapi.json says with which members")
}

/// A body that may be missing.
pub(super) async fn object_or_nothing(request: Request<Body>) -> Result<Map<String, Value>, Failed> {
    let bytes = read(request, BODY_BYTES_MAX).await?;
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    parse(&bytes, "send a JSON object, or nothing")
}

fn is_hang_up(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<hyper::Error>());
    source.is_some_and(|error| error.is_incomplete_message() || error.is_body_write_aborted() || error.is_canceled())
}

/// Reads JSON; an error does not repeat what was sent.
pub(super) fn parse<'b, T: Deserialize<'b>>(bytes: &'b [u8], help: &str) -> Result<T, Failed> {
    serde_json::from_slice(bytes).map_err(|error| wrong(&error, help))
}

/// As [`parse`], of members that are read already.
pub(super) fn members<T: for<'d> Deserialize<'d>>(members: Map<String, Value>, help: &str) -> Result<T, Failed> {
    let mut members = Value::Object(members);
    whole_numbers(&mut members);
    serde_json::from_value(members).map_err(|error| wrong(&error, help))
}

fn wrong(error: &serde_json::Error, help: &str) -> Failed {
    bad_request(&format!("the body is not what is expected: {}", without_values(&error.to_string())), help)
}

pub(super) fn bad_request(message: &str, help: &str) -> Failed {
    Refused::new("bad-request", message, help).into()
}
