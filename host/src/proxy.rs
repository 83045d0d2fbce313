// SPDX-License-Identifier: Apache-2.0
//! Plain HTTP routes: the request goes to an endpoint of a service as it came, bodies stream both ways, trailers pass
//! (gRPC), and an upgrade (WebSocket) becomes a tunnel once the upstream has agreed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;

use crate::failure::{Failure, Kind};
use crate::head;
use crate::ledger::{Ending, Entry};
use crate::listener::Peer;
use crate::plugin::Routing;
use crate::plugin::types::{Call, Candidate};
use crate::random;
use crate::routes::Service;
use crate::tunnel::{self, Meter};
use crate::underway::Underway;
use crate::upstream::{Answer as UpstreamAnswer, Client, Endpoint, InBody, OutBody};

/// What a service has answered.
pub enum Proxied {
    /// An answer, to be passed on.
    Piped(Response<UpstreamAnswer>),
    /// The connection is about to become a tunnel; this is the 101 answer of the upstream.
    Upgraded(HeaderMap, Box<Tunnel>),
}

/// An upgraded connection that waits for the caller's side.
pub struct Tunnel {
    caller: OnUpgrade,
    upstream: OnUpgrade,
    idle: Duration,
    /// Keeps the connection counted, and knows when the gateway stops.
    peer: Peer,
    meter: Option<Meter>,
}

impl Tunnel {
    /// A tunnel in which the vendor's usage is read.
    #[must_use]
    pub fn metered(caller: OnUpgrade, upstream: OnUpgrade, idle: Duration, peer: Peer, meter: Meter) -> Self {
        Self { caller, upstream, idle, peer, meter: Some(meter) }
    }

    /// Carries the connection until it ends; the ledger's entry settles then.
    pub fn spawn(mut self, mut entry: Entry) {
        tokio::spawn(async move {
            let stop = self.peer.stopped();
            let (carried, end) = tunnel::relay(self.caller, self.upstream, self.idle, stop, self.meter.as_mut()).await;
            if let Some(usage) = self.meter.and_then(Meter::usage) {
                entry.used(usage);
            }
            entry.sent(usize::try_from(carried.down).unwrap_or(usize::MAX));
            entry.ended(if end == tunnel::End::Closed { Ending::Complete } else { Ending::Broken });
        });
    }
}

/// Asks a service. A request without a body is tried at the next endpoint when one certainly has not taken it.
///
/// # Errors
/// `upstream-unreachable`, `upstream-timeout`, or what routing says.
pub async fn ask(
    client: &Client,
    underway: &Underway,
    service: &Service,
    call: &Call<'_>,
    mut request: Request<InBody>,
    entry: &mut Entry,
) -> Result<Proxied, Failure> {
    let upgrade = head::upgrade_of(request.headers()).map(str::to_owned);
    let caller = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let endpoints = rank(underway.route.routing.as_ref(), call, service)?;
    let trace = entry.outgoing();
    let (parts, body) = request.into_parts();
    let path = underway.service_path(&parts.uri);
    let mut headers = outgoing(&parts, underway, upgrade.as_deref())?;
    let mut body = (!body.is_end_stream()).then_some(body);
    let repeatable = body.is_none();
    let mut failure = Failure::new(Kind::NoTarget, format!("service {} has no endpoint to ask", service.name));
    let mut endpoints = endpoints.into_iter().peekable();
    while let Some(endpoint) = endpoints.next() {
        entry.trying(&service.name, &Arc::default(), endpoint.place());
        let mut message = Request::new(body.take().map_or(OutBody::Empty, OutBody::Streaming));
        *message.method_mut() = parts.method.clone();
        *message.uri_mut() = uri(endpoint, &path)?;
        let is_last = endpoints.peek().is_none();
        *message.headers_mut() = if is_last { std::mem::take(&mut headers) } else { headers.clone() };
        if let Some(trace) = &trace {
            trace.attempt(entry.attempts - 1);
            trace.put(message.headers_mut());
        }
        match client.send(endpoint, message).await {
            Ok(answer) => {
                entry.answered();
                return Ok(answered(answer, caller, underway));
            }
            Err(error) => {
                failure = Failure::unanswered(&error, &service.name);
                entry.missed(&failure);
                if !(repeatable && error.before_sent()) {
                    break;
                }
            }
        }
    }
    Err(failure)
}

fn answered(mut answer: Response<UpstreamAnswer>, caller: Option<OnUpgrade>, underway: &Underway) -> Proxied {
    match caller {
        Some(caller) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let upstream = hyper::upgrade::on(&mut answer);
            let idle = Duration::from_millis(underway.snapshot.timeouts.idle_ms);
            let headers = std::mem::take(answer.headers_mut());
            Proxied::Upgraded(
                headers,
                Box::new(Tunnel { caller, upstream, idle, peer: underway.peer.clone(), meter: None }),
            )
        }
        _ => Proxied::Piped(answer),
    }
}

fn uri(endpoint: &Endpoint, path: &str) -> Result<Uri, Failure> {
    endpoint.uri(path).map_err(|error| Failure::new(Kind::BadHead, "the path cannot be sent on").because(error))
}

/// The caller's headers without those of its connection, with where it came from.
fn outgoing(parts: &Parts, underway: &Underway, upgrade: Option<&str>) -> Result<HeaderMap, Failure> {
    let address = head::check(parts).map_err(|error| Failure::new(Kind::BadHead, error.to_string()))?;
    let mut outgoing = parts.headers.clone();
    head::strip_hop_by_hop(&mut outgoing);
    head::forwarded(&mut outgoing, underway.peer.addr.ip(), underway.peer.tls, &address);
    if let Some(protocol) = upgrade.and_then(|protocol| HeaderValue::from_str(protocol).ok()) {
        outgoing.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        outgoing.insert(header::UPGRADE, protocol);
    }
    Ok(outgoing)
}

/// The endpoints of a service in the order in which to try them: as the routing plugin says, else from a random one on,
/// those that the breaker has closed at the end.
fn rank<'s>(
    routing: Option<&Arc<Routing>>,
    call: &Call<'_>,
    service: &'s Service,
) -> Result<Vec<&'s Endpoint>, Failure> {
    let now = Instant::now();
    let endpoints = &service.endpoints;
    let Some(routing) = routing else {
        let count = endpoints.len().max(1);
        let first = usize::try_from(random::below(count as u64)).unwrap_or_default();
        let mut order: Vec<&Endpoint> = (0..endpoints.len()).map(|at| &*endpoints[(first + at) % count]).collect();
        if order.len() > 1 {
            order.sort_by_key(|endpoint| !endpoint.health.healthy(now));
        }
        return Ok(order);
    };
    let candidates: Vec<_> = endpoints.iter().map(|endpoint| candidate(endpoint, service, now)).collect();
    let order = routing.rank(call, &[], &candidates, random::u64());
    let order = order.map_err(|error| Failure::of_policy(error, Kind::NoTarget))?.drawn(random::below);
    Ok(order.into_iter().filter_map(|at| endpoints.get(at).map(|endpoint| &**endpoint)).collect())
}

fn candidate<'a>(endpoint: &'a Endpoint, service: &'a Service, now: Instant) -> Candidate<'a> {
    let (id, vendor, health) = (endpoint.place(), &*service.name, &endpoint.health);
    let latency_ms = u32::try_from(health.first_byte().as_millis()).unwrap_or(u32::MAX);
    let (healthy, inflight) = (health.healthy(now), health.in_flight());
    Candidate { id, vendor, model: "", weight: 1, priority: 0, healthy, latency_ms, inflight, facts: &[] }
}
