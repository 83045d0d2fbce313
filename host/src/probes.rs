// SPDX-License-Identifier: Apache-2.0
//! What machines ask of the gateway on either port: does it live, is it ready, what does it count. On the port of callers a
//! route that serves such a path comes first.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::directory::Directory;
use crate::metrics::Metrics;

/// What is told to whoever asks.
#[derive(Debug, Default)]
pub struct Probes {
    /// The gateway takes no new connections: it is not ready.
    pub draining: AtomicBool,
    /// The metrics need no token.
    pub metrics_open: bool,
}

impl Probes {
    /// The answer to a request for one of these paths; none for any other.
    #[must_use]
    pub fn answer(
        &self,
        (method, path, headers): (&Method, &str, &HeaderMap),
        metrics: &Metrics,
        directory: &Directory,
    ) -> Option<Response<String>> {
        if !matches!(path, "/health" | "/healthz" | "/readyz" | "/metrics") {
            return None;
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, "bad-method", "this path has GET only");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Some(response);
        }
        Some(match path {
            "/readyz" => self.ready(),
            "/metrics" if self.metrics_open || is_known(headers, directory) => exposition(metrics),
            "/metrics" => {
                let mut response = failure(StatusCode::UNAUTHORIZED, "unauthorized", "an admin token is needed");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                response
            }
            _ => json_of(StatusCode::OK, &json!({ "healthy": true, "status": "healthy" })),
        })
    }

    /// Whether the gateway takes requests.
    #[must_use]
    pub fn ready(&self) -> Response<String> {
        let draining = self.draining.load(Ordering::Relaxed);
        let status = if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        json_of(status, &json!({ "ready": !draining, "status": if draining { "draining" } else { "ready" } }))
    }
}

/// The token of a request: `Authorization: Bearer …`, in any case of letters.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let is_bearer = value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
    is_bearer.then(|| value[7..].trim_ascii())
}

/// The metrics, for Prometheus.
#[must_use]
pub fn exposition(metrics: &Metrics) -> Response<String> {
    match metrics.exposition() {
        Ok(text) => {
            let mut response = Response::new(text);
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => {
            tracing::error!("the metrics cannot be written: {error}");
            failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the metrics cannot be written")
        }
    }
}

fn is_known(headers: &HeaderMap, directory: &Directory) -> bool {
    bearer(headers).is_some_and(|token| directory.actor(token).is_some())
}

fn failure(status: StatusCode, code: &str, message: &str) -> Response<String> {
    let error = json!({ "code": code, "message": message, "help": "see docs/admin-api.md", "problems": [] });
    json_of(status, &json!({ "error": error }))
}

fn json_of(status: StatusCode, value: &Value) -> Response<String> {
    let mut response = Response::new(value.to_string());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
