// SPDX-License-Identifier: Apache-2.0
//! The admin API, on a listener of its own: everything that operators see and change while the gateway runs.
//!
//! [`mod@rows`] is the table of all calls: what answers, who may ask, and what the OpenAPI document says of it. Nothing here
//! changes anything by itself: plugins and policies are asked of [`Control`], everything else of the [`Directory`], and each
//! change is written down in the audit log.

mod body;
mod calls;
mod documents;
mod events;
mod features;
mod openapi;
mod reports;
mod rows;
mod services;
mod vendor_keys;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::cluster::Cluster;
use crate::control::Control;
use crate::directory::Directory;
use crate::directory::beats::Beats;
use crate::directory::settings::Role;
use crate::jobs::Jobs;
use crate::library::Refused;
use crate::metrics::Metrics;
use crate::probes::{self, Probes};
use crate::snapshot::Snapshot;
use rows::{Access, Row, rows};

/// A caller sends the head of a request within this time.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// The system has no free file descriptor, or the like: wait before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Where the API is.
const BASE: &str = "/api/v1";
/// Where a part of it was before, and still is.
const BASE_BEFORE: &str = "/v1";

/// What the admin API works with.
pub struct Admin {
    /// Who makes changes of plugins and policies.
    pub control: Control,
    /// What is in force.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Keys, teams, and all else that is changed here.
    pub directory: Directory,
    /// Requests that go on without their callers.
    pub jobs: Jobs,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What machines are told.
    pub probes: Arc<Probes>,
    /// Largest component that can be uploaded, in bytes.
    pub component_bytes_max: usize,
    /// When services were heard of.
    pub beats: Arc<Beats>,
    /// The cluster that this gateway is a node of.
    pub cluster: Option<Cluster>,
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

fn router(admin: Shared) -> Router {
    let mut router = Router::new();
    for Row { path, handler, access, had_alias, .. } in rows() {
        let handler = match access {
            Access::Open => handler,
            Access::Role(role) => handler.route_layer(from_fn_with_state((Arc::clone(&admin), role), require_role)),
        };
        if had_alias && let Some(rest) = path.strip_prefix(BASE) {
            router = router.route(&format!("{BASE_BEFORE}{rest}"), handler.clone());
        }
        router = router.route(path, handler);
    }
    // the latter applies to the routes that there are when it is called
    router.fallback(calls::not_found).method_not_allowed_fallback(calls::not_allowed).with_state(admin)
}

/// Lets those in who have a token, and a role that is high enough; the call is told who it is.
async fn require_role(State((admin, role)): State<(Shared, Role)>, mut request: Request, next: Next) -> Response {
    let actor = probes::bearer(request.headers()).and_then(|token| admin.directory.actor(token));
    let Some(actor) = actor else { return unauthorized() };
    if actor.role < role {
        let message = format!("this call needs the role {}, the token has {}", role.name(), actor.role.name());
        let refused = Refused::new("forbidden", message, "ask with another token, or somebody who has one");
        return failure(StatusCode::FORBIDDEN, &refused);
    }
    request.extensions_mut().insert(actor);
    next.run(request).await
}

fn unauthorized() -> Response {
    let help = "send `Authorization: Bearer …` with the content of the file admin-token in the state directory, or another \
                admin token";
    let refused = Refused::new("unauthorized", "the admin token is missing or wrong", help);
    let mut response = failure(StatusCode::UNAUTHORIZED, &refused);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// The JSON of every refusal.
fn failure(status: StatusCode, refused: &Refused) -> Response {
    (status, axum::Json(serde_json::json!({ "error": refused }))).into_response()
}

#[cfg(test)]
mod tests;
