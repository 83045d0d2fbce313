// SPDX-License-Identifier: Apache-2.0
//! The calls of the admin API, one function each.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::{Shared, failure};
use crate::control::{Answer, Change};
use crate::library::Refused;

/// Largest body of a call that is not an upload, in bytes.
const BODY_BYTES_MAX: usize = 8 << 20;
/// A whole body comes within this time.
const BODY_WAIT: Duration = Duration::from_secs(60);

type Outcome = Result<axum::Json<Answer>, Failed>;

/// A refusal as an answer.
pub(super) struct Failed(StatusCode, Refused);

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        let status = match refused.code {
            "no-such-plugin" | "no-such-version" | "no-such-generation" | "not-uploaded" => StatusCode::NOT_FOUND,
            "in-use" => StatusCode::CONFLICT,
            "too-large" => StatusCode::PAYLOAD_TOO_LARGE,
            "busy" | "stopped" => StatusCode::SERVICE_UNAVAILABLE,
            "state-dir" | "internal" => StatusCode::INTERNAL_SERVER_ERROR,
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

pub(super) async fn healthy() -> impl IntoResponse {
    axum::Json(json!({ "healthy": true }))
}

pub(super) async fn ready(State(admin): State<Shared>) -> Response {
    let status = if admin.is_draining() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, axum::Json(json!({ "ready": status == StatusCode::OK }))).into_response()
}

pub(super) async fn metrics(State(admin): State<Shared>) -> Result<impl IntoResponse, Failed> {
    let text = admin.metrics.exposition();
    let text = text.map_err(|error| Refused::new("internal", error.to_string(), "report this"))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}

pub(super) async fn plugins(State(admin): State<Shared>) -> impl IntoResponse {
    let status = admin.control.status();
    axum::Json(json!({ "generation": status.generation, "plugins": status.plugins, "refused": status.refused }))
}

pub(super) async fn upload(State(admin): State<Shared>, uri: Uri, request: Request) -> Outcome {
    let activate = match uri.query().unwrap_or_default() {
        "" | "activate=true" => true,
        "activate=false" => false,
        _ => return Err(bad_request("unknown query", "only `activate=true` and `activate=false` are known")),
    };
    let bytes = read(request, admin.component_bytes_max).await?;
    ask(&admin, Change::Upload { bytes: bytes.into(), activate }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Activation {
    digest: String,
}

pub(super) async fn activate(State(admin): State<Shared>, name: Name, request: Request) -> Outcome {
    let name = name_of(name)?;
    let Activation { digest } = parse(&read(request, BODY_BYTES_MAX).await?, r#"send {"digest": "…"}"#)?;
    ask(&admin, Change::Activate { name, digest }).await
}

pub(super) async fn roll_back(State(admin): State<Shared>, name: Name) -> Outcome {
    ask(&admin, Change::RollBack { name: name_of(name)? }).await
}

pub(super) async fn remove(State(admin): State<Shared>, name: Name) -> Outcome {
    ask(&admin, Change::Remove { name: name_of(name)? }).await
}

pub(super) async fn generations(State(admin): State<Shared>) -> impl IntoResponse {
    let status = admin.control.status();
    axum::Json(json!({
        "generation": status.generation,
        "generations": status.generations,
        "policy_refused": status.policy_refused,
    }))
}

pub(super) async fn roll_back_generation(
    State(admin): State<Shared>,
    number: Result<Path<u64>, PathRejection>,
) -> Outcome {
    let Ok(Path(number)) = number else {
        return Err(bad_request("the generation must be a number", "GET /v1/generations lists them"));
    };
    ask(&admin, Change::RollBackGeneration { number }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    files: BTreeMap<String, String>,
}

pub(super) async fn validate(State(admin): State<Shared>, headers: HeaderMap, request: Request) -> Outcome {
    let bytes = read(request, BODY_BYTES_MAX).await?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let files = if kind.starts_with("application/json") {
        let files: Files = parse(&bytes, r#"send {"files": {"name.toml": "…"}}, or TOML as text/plain"#)?;
        files.files.into_iter().collect()
    } else {
        let text = String::from_utf8(bytes.into()).map_err(|_| bad_request("the policy is not UTF-8", "send TOML"))?;
        vec![("policy.toml".to_owned(), text)]
    };
    ask(&admin, Change::Validate { files }).await
}

pub(super) async fn reload(State(admin): State<Shared>) -> Outcome {
    ask(&admin, Change::Reload).await
}

pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json"))
}

pub(super) async fn not_found() -> Response {
    failure(StatusCode::NOT_FOUND, &Refused::new("no-such-path", "there is nothing here", "see /v1/openapi.json"))
}

pub(super) async fn not_allowed() -> Response {
    let refused = Refused::new("bad-method", "this path has no such method", "see /v1/openapi.json");
    failure(StatusCode::METHOD_NOT_ALLOWED, &refused)
}

type Name = Result<Path<String>, PathRejection>;

fn name_of(name: Name) -> Result<String, Failed> {
    name.map(|Path(name)| name).map_err(|_| bad_request("the name is not UTF-8", "GET /v1/plugins lists the names"))
}

async fn ask(admin: &Shared, change: Change) -> Outcome {
    Ok(axum::Json(admin.control.ask(change).await?))
}

/// A body is not read beyond its limit, and not at all if it is said to be longer.
async fn read(request: Request<Body>, bytes_max: usize) -> Result<Bytes, Failed> {
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
            let refused = Refused::new(
                "timeout",
                format!("the body took longer than {} s", BODY_WAIT.as_secs()),
                "send it again",
            );
            Err(Failed(StatusCode::REQUEST_TIMEOUT, refused))
        }
    }
}

fn is_hang_up(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<hyper::Error>());
    source.is_some_and(|error| error.is_incomplete_message() || error.is_body_write_aborted() || error.is_canceled())
}

fn parse<'b, T: Deserialize<'b>>(bytes: &'b [u8], help: &'static str) -> Result<T, Failed> {
    serde_json::from_slice(bytes)
        .map_err(|error| bad_request(&format!("the body is not what is expected: {error}"), help))
}

fn bad_request(message: &str, help: &str) -> Failed {
    Failed(StatusCode::BAD_REQUEST, Refused::new("bad-request", message, help))
}
