// SPDX-License-Identifier: Apache-2.0
//! The admin API, on a listener of its own: plugins, generations, policies, health, metrics.
//!
//! Every call needs the bearer token of the state directory, except those for health checks (and `/metrics`, if the policy
//! says so). Nothing here changes anything by itself: all of it asks [`Control`]. `openapi.json` beside this file says
//! what can be asked and answered.

mod calls;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::control::Control;
use crate::directory::token::Token;
use crate::library::Refused;
use crate::metrics::Metrics;

/// A caller sends the head of a request within this time.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// The system has no free file descriptor, or the like: wait before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin API works with.
pub struct Admin {
    /// Who makes changes.
    pub control: Control,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What a caller must know.
    pub token: Token,
    /// `/metrics` needs no token.
    pub metrics_open: bool,
    /// Largest component that can be uploaded, in bytes.
    pub component_bytes_max: usize,
    /// The gateway takes no new connections: `/readyz` says so.
    pub draining: AtomicBool,
}

/// Answers on this listener until the future is dropped.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, connections_max: usize) -> Infallible {
    let router = router(admin);
    let permits = Arc::new(Semaphore::new(connections_max.clamp(1, Semaphore::MAX_PERMITS)));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("the admin API cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!("a connection of the admin API broke: {error}");
            }
            drop(permit);
        });
    }
}

type Shared = Arc<Admin>;

/// A row: path, what answers there, who may ask.
struct Row(&'static str, MethodRouter<Shared>, Access);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Needs the token.
    Token,
    /// Needs none.
    Open,
    /// Needs the token unless `admin.metrics_open`.
    Metrics,
}

fn rows() -> Vec<Row> {
    use axum::routing::{delete, get, post};
    vec![
        Row("/healthz", get(calls::healthy), Access::Open),
        Row("/readyz", get(calls::ready), Access::Open),
        Row("/metrics", get(calls::metrics), Access::Metrics),
        Row("/v1/plugins", get(calls::plugins).post(calls::upload), Access::Token),
        Row("/v1/plugins/{name}", delete(calls::remove), Access::Token),
        Row("/v1/plugins/{name}/activate", post(calls::activate), Access::Token),
        Row("/v1/plugins/{name}/rollback", post(calls::roll_back), Access::Token),
        Row("/v1/generations", get(calls::generations), Access::Token),
        Row("/v1/generations/{number}/rollback", post(calls::roll_back_generation), Access::Token),
        Row("/v1/policies/validate", post(calls::validate), Access::Token),
        Row("/v1/reload", post(calls::reload), Access::Token),
        Row("/v1/openapi.json", get(calls::openapi), Access::Token),
    ]
}

fn router(admin: Shared) -> Router {
    let mut router = Router::new();
    for Row(path, handler, access) in rows() {
        let open = access == Access::Open || (access == Access::Metrics && admin.metrics_open);
        let guard = from_fn_with_state(Arc::clone(&admin), require_token);
        router = router.route(path, if open { handler } else { handler.route_layer(guard) });
    }
    // the latter applies to the routes that there are when it is called
    router.fallback(calls::not_found).method_not_allowed_fallback(calls::not_allowed).with_state(admin)
}

async fn require_token(State(admin): State<Shared>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let is_bearer = |value: &&[u8]| value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
    if given.filter(is_bearer).is_some_and(|value| admin.token.is(value[7..].trim_ascii())) {
        return next.run(request).await;
    }
    let help = "send `Authorization: Bearer …` with the content of the file admin-token in the state directory";
    let refused = Refused::new("unauthorized", "the admin token is missing or wrong", help);
    let mut response = failure(StatusCode::UNAUTHORIZED, &refused);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// The JSON of every refusal.
fn failure(status: StatusCode, refused: &Refused) -> Response {
    (status, axum::Json(serde_json::json!({ "error": refused }))).into_response()
}

impl Admin {
    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
