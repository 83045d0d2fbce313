// SPDX-License-Identifier: Apache-2.0
//! Asks upstreams: one pooled client for the process, over HTTP/1.1 and HTTP/2, clear text and TLS.
//!
//! It sends one request to one [`Endpoint`] and hands the answer back as it comes. It does not retry (only a pooled connection that
//! turns out to be closed before anything was written is replaced), follow redirects, or look into bodies.
//!
//! Connections are pooled by host in lanes (see [`health::Busy::lane`]): an HTTP/2 connection carries at most about a hundred
//! exchanges before another one is opened. An endpoint with its own roots of trust, or its own way (a proxy, a Unix socket), has its own
//! connections, so that a connection is never used on the trust of another endpoint; they live as long as an endpoint with the same.

mod addresses;
pub mod balance;
pub mod body;
mod breaker;
mod budget;
mod connector;
mod decoded;
pub mod dns;
pub mod endpoint;
mod fault;
pub mod fleet;
pub mod health;
mod socks;
mod through;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use crate::config::{Limits, Timeouts};

pub use addresses::{ADDRESSES_HELP, Addresses};
pub use body::{Answer, BodyError, InBody, Loan, OutBody};
pub use breaker::{Breaker, Verdict};
pub use budget::Hedge;
pub use endpoint::Endpoint;
pub use fault::SendError;
pub use fleet::{Fleet, Member};
pub use health::Health;
pub use through::Proxy;

use body::{Sent, Upload};
use connector::Connector;
use endpoint::{Own, Way};
use health::{LANE_EXCHANGES, LANES, Outcome};

/// An idle pooled connection is closed after this time; vendors close theirs after a minute or more.
const POOL_IDLE: Duration = Duration::from_secs(55);
/// Between pings on an HTTP/2 connection to an upstream, so that a dead one is noticed.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long the answer to such a ping may take.
const PING_LIMIT: Duration = Duration::from_secs(10);
/// Lanes of an endpoint that shares its connections with no other one.
const LANES_AT: usize = 8;
/// Flow-control window of one answer over HTTP/2: what may be in memory of an answer that its caller does not read.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Flow-control window of all answers on one HTTP/2 connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Largest head of an answer over HTTP/2.
const HEAD_BYTES_MAX: u32 = 64 << 10;

/// The pooled client. One per process; a clone shares the connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    lanes: Lanes,
    own: Mutex<OwnLanes>,
    tls: Arc<ClientConfig>,
    idle_upstream_max: usize,
    allowed: Addresses,
    connect: Duration,
    first_byte: Duration,
    idle: Duration,
}

/// Connections and configurations of endpoints with their own way or roots, by fingerprints; gone with the last one that has them.
#[derive(Default)]
struct OwnLanes {
    lanes: HashMap<[u8; 32], Weak<Lanes>>,
    tls: HashMap<[u8; 32], Weak<ClientConfig>>,
}

/// Pooled connections that trust the same roots and go the same way.
pub(crate) struct Lanes {
    negotiated: Vec<legacy::Client<Connector, Sent>>,
    prior_knowledge: Vec<legacy::Client<Connector, Sent>>,
}

impl Client {
    /// A client with nothing connected yet. Fails if TLS cannot be set up.
    pub fn new(limits: &Limits, timeouts: &Timeouts) -> anyhow::Result<Self> {
        let connect = Duration::from_millis(timeouts.connect_ms);
        let allowed = Addresses::parse(&limits.upstream_addresses)
            .map_err(|why| anyhow::anyhow!("limits.upstream_addresses: {why}; {ADDRESSES_HELP}"))?;
        let tls = connector::client_config(connector::roots(&[])).map(Arc::new).context("TLS towards upstreams")?;
        let lanes = Lanes::new(limits.idle_upstream_max, connect, &allowed, Way::Network, Arc::clone(&tls));
        Ok(Self {
            shared: Arc::new(Shared {
                lanes,
                own: Mutex::default(),
                tls,
                idle_upstream_max: limits.idle_upstream_max,
                allowed,
                connect,
                first_byte: Duration::from_millis(timeouts.first_byte_ms),
                idle: Duration::from_millis(timeouts.idle_ms),
            }),
        })
    }

    /// Sends a request and waits for the head of the answer. The URI comes from [`Endpoint::uri`]; `host` is set from it.
    /// The outcome is recorded in the endpoint's health. Dropping the future, or the answer before its end, cancels the
    /// exchange at the upstream.
    ///
    /// The time-out for the first byte includes connecting, and starts again with each piece that a streamed request body
    /// moves on.
    pub async fn send(&self, endpoint: &Endpoint, request: Request<OutBody>) -> Result<Response<Answer>, SendError> {
        let begun = Instant::now();
        let busy = endpoint.health.begin(begun);
        let method = request.method().clone();
        let answer = self.head_of_answer(endpoint, request, busy.lane()).await;
        match answer.and_then(unambiguous) {
            Ok(response) => {
                let now = Instant::now();
                busy.health().record(outcome(response.status(), now - begun), now);
                let close_delimited = is_close_delimited(&method, &response);
                Ok(response.map(|body| Answer::new(body, self.shared.idle, busy, close_delimited)))
            }
            Err(error) => {
                let outcome = match error {
                    SendError::RequestBody(_) | SendError::Exhausted(_) => Outcome::Neutral,
                    SendError::Reset(_) | SendError::Unsent(_) => Outcome::Lost(begun),
                    _ => Outcome::Failed,
                };
                busy.health().record(outcome, Instant::now());
                Err(error)
            }
        }
    }

    /// How long the head of an answer may take.
    #[must_use]
    pub fn first_byte(&self) -> Duration {
        self.shared.first_byte
    }

    /// How long an answer may be silent.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.shared.idle
    }

    async fn head_of_answer(
        &self,
        endpoint: &Endpoint,
        mut request: Request<OutBody>,
        lane: usize,
    ) -> Result<Response<Incoming>, SendError> {
        if !endpoint.owns(request.uri()) {
            return Err(SendError::Protocol(String::from("the request is for another authority than its endpoint")));
        }
        request.headers_mut().remove(HOST);
        *request.version_mut() = Version::HTTP_11;
        let (parts, body) = request.into_parts();
        let (body, upload) = Sent::new(body);
        let client = self.lane(endpoint, lane)?;
        let answer = std::pin::pin!(client.request(Request::from_parts(parts, body)));
        let answer = first_byte(answer, self.shared.first_byte, upload.as_deref()).await?;
        answer.map_err(|error| match upload.as_deref().and_then(Upload::failed) {
            Some(error) => SendError::RequestBody(error.clone()),
            None => SendError::classify(&error),
        })
    }

    fn lane(&self, endpoint: &Endpoint, lane: usize) -> Result<legacy::Client<Connector, Sent>, SendError> {
        let lanes = match endpoint.own() {
            None => &self.shared.lanes,
            Some(own) => match endpoint.own_lanes.get() {
                Some(lanes) => lanes,
                None => {
                    let lanes = self.shared.own_lanes(own)?;
                    endpoint.own_lanes.get_or_init(|| lanes)
                }
            },
        };
        let lanes = if endpoint.prior_knowledge() { &lanes.prior_knowledge } else { &lanes.negotiated };
        Ok(lanes[lane % lanes.len()].clone())
    }
}

impl Shared {
    /// The connections of an endpoint with its own roots or way. The lock is taken once in an endpoint's life.
    fn own_lanes(&self, own: &Own) -> Result<Arc<Lanes>, SendError> {
        let fingerprint = own.fingerprint();
        let mut all = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lanes) = all.lanes.get(&fingerprint).and_then(Weak::upgrade) {
            return Ok(lanes);
        }
        all.lanes.retain(|_, lanes| lanes.strong_count() > 0);
        all.tls.retain(|_, tls| tls.strong_count() > 0);
        let tls = if own.roots.is_empty() { Arc::clone(&self.tls) } else { all.trusting(own)? };
        let lanes = Arc::new(Lanes::new(self.idle_upstream_max, self.connect, &self.allowed, own.way.clone(), tls));
        all.lanes.insert(fingerprint, Arc::downgrade(&lanes));
        Ok(lanes)
    }
}

impl OwnLanes {
    /// TLS with further roots; making it reads all that the system has.
    fn trusting(&mut self, own: &Own) -> Result<Arc<ClientConfig>, SendError> {
        let fingerprint = own.roots_fingerprint();
        if let Some(tls) = self.tls.get(&fingerprint).and_then(Weak::upgrade) {
            return Ok(tls);
        }
        let tls = connector::client_config(connector::roots(&own.roots));
        let tls = Arc::new(tls.map_err(|error| SendError::Tls(error.to_string()))?);
        self.tls.insert(fingerprint, Arc::downgrade(&tls));
        Ok(tls)
    }
}

impl Lanes {
    fn new(idle_max: usize, connect: Duration, allowed: &Addresses, way: Way, tls: Arc<ClientConfig>) -> Self {
        let count = if matches!(way, Way::At(_)) { LANES_AT } else { LANES };
        let connector = Connector::new(tls, way, connect, allowed.clone());
        let lane = |index: usize, prior_knowledge: bool| {
            // The lanes share what may be idle, low lanes first; one is the least that keeps HTTP/2 connections shared.
            let lane_max = LANE_EXCHANGES as usize;
            let idle_max = idle_max.saturating_sub(index * lane_max).clamp(1, lane_max);
            pooled(&connector, idle_max, prior_knowledge)
        };
        Self {
            negotiated: (0..count).map(|index| lane(index, false)).collect(),
            prior_knowledge: (0..count).map(|index| lane(index, true)).collect(),
        }
    }
}

fn pooled(connector: &Connector, idle_max: usize, prior_knowledge: bool) -> legacy::Client<Connector, Sent> {
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(idle_max)
        .retry_canceled_requests(true)
        .http2_only(prior_knowledge)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEAD_BYTES_MAX)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_LIMIT)
        .http2_keep_alive_while_idle(true)
        .build(connector.clone())
}

/// Waits for the head of the answer, at most `limit` after the last piece of the upload.
async fn first_byte<F: Future>(
    mut answer: std::pin::Pin<&mut F>,
    limit: Duration,
    upload: Option<&Upload>,
) -> Result<F::Output, SendError> {
    let frames = || upload.map_or(0, Upload::frames);
    let mut seen = frames();
    loop {
        if let Ok(answer) = tokio::time::timeout(limit, answer.as_mut()).await {
            return Ok(answer);
        }
        let now = frames();
        if now == seen {
            return Err(SendError::FirstByteTimeout(limit));
        }
        seen = now;
    }
}

/// What a status says about an endpoint's health. An error of its own doing (500, a 4xx) does not make it unreachable.
fn outcome(status: StatusCode, first_byte: Duration) -> Outcome {
    /// Not registered; said by some vendors when they are overloaded.
    const OVERLOADED: u16 = 529;
    match status.as_u16() {
        502..=504 | OVERLOADED => Outcome::Failed,
        429 | 500.. => Outcome::Neutral,
        _ => Outcome::Answered(first_byte),
    }
}

/// Refuses what another reader of the same bytes could frame in another way (RFC 9112 section 6.3): a length beside
/// chunks, and codings other than a single `chunked`. hyper goes by the chunks, or reads to the end of the connection.
fn unambiguous(response: Response<Incoming>) -> Result<Response<Incoming>, SendError> {
    let headers = response.headers();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(response) };
    let single = codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if single && !headers.contains_key(CONTENT_LENGTH) {
        return Ok(response);
    }
    Err(SendError::Protocol(String::from("the framing of the answer is ambiguous")))
}

/// RFC 9112 section 6.3: no length, no chunks, and a body.
fn is_close_delimited(method: &Method, response: &Response<Incoming>) -> bool {
    response.version() <= Version::HTTP_11
        && method != Method::HEAD
        && response.status() != StatusCode::SWITCHING_PROTOCOLS
        && !response.body().is_end_stream()
        && !response.headers().contains_key(CONTENT_LENGTH)
        && !response.headers().contains_key(TRANSFER_ENCODING)
}
