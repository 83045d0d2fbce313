// SPDX-License-Identifier: Apache-2.0
//! Finds the endpoints of plain HTTP services, and probes them. Each source has a task that puts what it says into the service's
//! [`Fleet`]; the request path only ever reads that. A task ends when no service in force wants it any more.
//!
//! A source that is away, or names no endpoint, changes nothing: the last ones stay, and the log and
//! `penstock_discoveries_total` say so.

mod consul;
mod kubernetes;
mod names;
mod probe;
mod registry;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use tokio::task::JoinHandle;

use crate::directory::Directory;
use crate::directory::beats::Beats;
use crate::metrics::Metrics;
use crate::random;
use crate::routes::{Service, Source};
use crate::snapshot::Snapshot;
use crate::upstream::fleet::Found;
use crate::upstream::{Answer, Client, Fleet, OutBody};

/// How often it is looked whether other services are in force; a request for a new one waits for its endpoints meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// Largest answer of a source.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How long a source may take to answer a question that is not a wait.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest pause after looks that failed.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What looks are made with.
#[derive(Clone)]
pub struct Means {
    /// Asks sources and probes endpoints.
    pub client: Client,
    /// Counts looks.
    pub metrics: Arc<Metrics>,
    /// Has the services that register themselves.
    pub directory: Directory,
    /// When they were heard of.
    pub beats: Arc<Beats>,
}

/// A name as a part of a path.
fn segment(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20")
}

/// Keeps the endpoints of all services in force as their sources say. Does not end by itself.
pub async fn run(snapshot: Arc<ArcSwap<Snapshot>>, means: Means) {
    let mut running: HashMap<Arc<str>, Running> = HashMap::new();
    let mut seen: Option<Arc<Snapshot>> = None;
    loop {
        let is_seen = seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &snapshot.load()));
        let has_ended = running.values().any(Running::has_ended);
        if !is_seen || has_ended {
            let now = snapshot.load_full();
            let mut before = std::mem::take(&mut running);
            for service in now.services.values() {
                let kept = before.remove(&service.name);
                running.insert(Arc::clone(&service.name), Running::of(service, kept, &means));
            }
            seen = Some(now);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The tasks of one service.
struct Running {
    service: Arc<Service>,
    seeking: Option<Task>,
    probing: Option<Task>,
}

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Running {
    fn of(service: &Arc<Service>, before: Option<Self>, means: &Means) -> Self {
        let (mut seeking, mut probing) = (None, None);
        if let Some(before) = before.filter(|before| Arc::ptr_eq(&before.service.fleet, &service.fleet)) {
            let has_same_probe = before.service.probe == service.probe;
            seeking = before.seeking.filter(|task| !task.0.is_finished());
            probing = before.probing.filter(|task| has_same_probe && !task.0.is_finished());
        }
        if let (None, Some(source)) = (&seeking, &service.source) {
            let seeker = Seeker::new(service, source, means.clone());
            seeking = Some(Task(tokio::spawn(seeker.run())));
        }
        if let (None, Some(rules)) = (&probing, &service.probe) {
            let (fleet, client) = (Arc::clone(&service.fleet), means.client.clone());
            let probes = probe::run(Arc::clone(&service.name), fleet, rules.clone(), client);
            probing = Some(Task(tokio::spawn(probes)));
        }
        Self { service: Arc::clone(service), seeking, probing }
    }

    fn has_ended(&self) -> bool {
        [&self.seeking, &self.probing].into_iter().flatten().any(|task| task.0.is_finished())
    }
}

/// Looks for the endpoints of one service.
struct Seeker {
    service: Arc<str>,
    fleet: Arc<Fleet>,
    source: Arc<Source>,
    means: Means,
    /// What was found last.
    last: Vec<Found>,
    /// Looks that failed, or found nothing, in a row.
    failed: u32,
}

impl Seeker {
    fn new(service: &Service, source: &Arc<Source>, means: Means) -> Self {
        let (name, fleet) = (Arc::clone(&service.name), Arc::clone(&service.fleet));
        Self { service: name, fleet, source: Arc::clone(source), means, last: Vec::new(), failed: 0 }
    }

    async fn run(mut self) {
        let source = Arc::clone(&self.source);
        let written = &source.written;
        if let Some(consul) = &written.consul {
            consul::follow(&mut self, consul).await;
        } else if let Some(kubernetes) = &written.kubernetes {
            kubernetes::follow(&mut self, kubernetes).await;
        } else if let Some(name) = &written.registry {
            registry::follow(&mut self, name).await;
        } else {
            names::follow(&mut self, written).await;
        }
    }

    /// Puts what was found in force. With nothing found, the last ones stay.
    fn put(&mut self, found: Vec<Found>) {
        let service = &*self.service;
        if found.is_empty() {
            self.means.metrics.discovered(service, "empty");
            if self.failed == 0 && !self.last.is_empty() {
                tracing::warn!(service, "the source names no endpoint; the last {} stay", self.last.len());
            }
            self.failed = self.failed.saturating_add(1);
            return;
        }
        self.means.metrics.discovered(service, "ok");
        if self.failed > 0 {
            tracing::info!(service, "the source names endpoints again");
        }
        self.failed = 0;
        if found == self.last {
            return;
        }
        let changed = self.fleet.put(&found, Instant::now());
        if changed.left_out > 0 {
            tracing::warn!(service, "{} endpoints are left out: too many, twice the same, or no URL", changed.left_out);
        }
        if changed.come + changed.gone > 0 {
            tracing::info!(service, come = changed.come, gone = changed.gone, "the endpoints have changed");
        }
        self.last = found;
    }

    /// Takes note that a look failed, and waits before the next one: longer each time, and never as long as others.
    async fn failed(&mut self, why: &str) {
        let service = &*self.service;
        self.means.metrics.discovered(service, "failed");
        if self.failed == 0 {
            tracing::warn!(service, "cannot find out endpoints, the last {} stay: {why}", self.last.len());
        } else {
            tracing::debug!(service, "cannot find out endpoints: {why}");
        }
        self.failed = self.failed.saturating_add(1);
        self.pause().await;
    }

    /// Waits before the next look: the shortest time, and longer while looks fail.
    async fn pause(&self) {
        let doublings = self.failed.saturating_sub(1).min(16);
        let ms = self.source.written.refresh_ms_min.saturating_mul(1 << doublings);
        let most = PAUSE_MAX.min(Duration::from_millis(self.source.written.refresh_ms_max));
        jittered(Duration::from_millis(ms).min(most)).await;
    }

    /// Waits the shortest time, after a look that was answered.
    async fn breathe(&self) {
        jittered(Duration::from_millis(self.source.written.refresh_ms_min)).await;
    }

    /// An endpoint at an address.
    fn found(&self, host: &str, port: u16, weight: u32) -> Found {
        let written = &self.source.written;
        let (scheme, path) = (written.scheme.name(), &written.path);
        let address: Option<IpAddr> = host.parse().ok();
        let (name, at) = match (&written.host, address) {
            (Some(name), Some(address)) => (name.clone(), Some(SocketAddr::new(address, port))),
            (None, Some(IpAddr::V6(address))) => (format!("[{address}]"), None),
            _ => (host.to_owned(), None),
        };
        Found { url: format!("{scheme}://{name}:{port}{path}"), at, weight, priority: 0 }
    }

    /// Asks the server of the source. A status other than 200 is an error, but for the one that is given.
    async fn ask(
        &self,
        path: &str,
        credential: (HeaderName, &str),
        but_for: Option<StatusCode>,
    ) -> Result<Response<Answer>, String> {
        let server = self.source.server.as_ref().ok_or("it has no server")?;
        let mut request = Request::new(OutBody::Empty);
        *request.uri_mut() = server.uri(path)?;
        let agent = HeaderValue::from_static(concat!("penstock/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if self.source.token.is_some() {
            let source = Arc::clone(&self.source);
            let read = tokio::task::spawn_blocking(move || source.token.as_ref().map(crate::keys::Source::read));
            if let Some(token) = read.await.map_err(|error| error.to_string())? {
                let value = [credential.1.as_bytes(), token?.expose()].concat();
                let value = HeaderValue::from_bytes(&value);
                let mut value = value.map_err(|_| "the token cannot stand in a header".to_owned())?;
                value.set_sensitive(true);
                request.headers_mut().insert(credential.0, value);
            }
        }
        let answer = self.means.client.send(server, request).await;
        let answer = answer.map_err(|error| format!("{}: {error}", server.place()))?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            status if Some(status) == but_for => Ok(answer),
            status => Err(format!("{} has answered {status}", server.place())),
        }
    }
}

/// The whole body of an answer.
async fn whole(answer: Response<Answer>) -> Result<Bytes, String> {
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect();
    let body = tokio::time::timeout(ANSWER, body).await.map_err(|_| "the answer takes too long".to_owned())?;
    Ok(body.map_err(|error| format!("the answer cannot be read: {error}"))?.to_bytes())
}

/// Waits about so long, so that gateways that began together do not go on together.
async fn jittered(time: Duration) {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 2);
    tokio::time::sleep(Duration::from_micros(micros - micros / 4 + random::below(micros / 4 + 1))).await;
}
