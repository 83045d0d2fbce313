// SPDX-License-Identifier: Apache-2.0
//! Plain HTTP routes: the request goes to an endpoint of a service as it came, bodies stream both ways, trailers pass
//! (gRPC), and an upgrade (WebSocket) becomes a tunnel once the upstream has agreed.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;

use crate::clock;
use crate::config::Balance;
use crate::failure::{Failure, Kind};
use crate::head;
use crate::ledger::{Ending, Entry};
use crate::listener::Peer;
use crate::plugin::types::{Call, Candidate};
use crate::random;
use crate::routes::Service;
use crate::tunnel::{self, Meter};
use crate::underway::Underway;
use crate::upstream::balance::{self, Rules};
use crate::upstream::{Answer as UpstreamAnswer, Client, Endpoint, InBody, Loan, Member, OutBody, SendError, Verdict};

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

/// Asks a service. A request is tried at the next endpoint when one certainly has not taken it, and nothing of its body has gone.
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
    let wait = Duration::from_millis(underway.snapshot.timeouts.connect_ms);
    let members = service.fleet.known(wait).await;
    let mut order = Order::of(service, &members, underway, call, request.headers())?;
    let trace = entry.outgoing();
    let (parts, body) = request.into_parts();
    let path = underway.service_path(&parts.uri);
    let mut headers = outgoing(&parts, underway, upgrade.as_deref())?;
    let mut body = (!body.is_end_stream()).then_some(body);
    let has_body = body.is_some();
    let mut failure = Failure::new(Kind::NoTarget, format!("service {} has no endpoint to ask", service.name));
    let tries_max = members.len().min(underway.snapshot.limits.attempts_max.max(1) as usize);
    for tried in 1..=tries_max {
        let Some(member) = order.next() else { break };
        let (endpoint, is_last) = (&*member.endpoint, tried == tries_max);
        entry.trying(&service.name, &Arc::default(), endpoint.place());
        let (sent, loan) = given(body.take(), is_last);
        let mut message = Request::new(sent);
        *message.method_mut() = parts.method.clone();
        *message.uri_mut() = uri(endpoint, &path)?;
        *message.headers_mut() = if is_last { std::mem::take(&mut headers) } else { headers.clone() };
        if let Some(trace) = &trace {
            trace.attempt(entry.attempts - 1);
            trace.put(message.headers_mut());
        }
        let begun = Instant::now();
        member.begins(&service.breaker, begun);
        let answer = client.send(endpoint, message).await;
        note(service, member, &answer, begun);
        match answer {
            Ok(answer) => {
                entry.answered();
                return Ok(answered(answer, caller, underway));
            }
            Err(error) => {
                failure = Failure::unanswered(&error, &service.name);
                entry.missed(&failure);
                body = loan.and_then(Loan::back);
                if !error.before_sent() || has_body && body.is_none() {
                    break;
                }
            }
        }
    }
    Err(failure)
}

/// A body to send, which comes back if the endpoint takes nothing of it and another one is left.
fn given(body: Option<InBody>, is_last: bool) -> (OutBody, Option<Loan>) {
    match body {
        None => (OutBody::Empty, None),
        Some(body) if is_last => (OutBody::Streaming(body), None),
        Some(body) => {
            let (lent, loan) = OutBody::lent(body);
            (lent, Some(loan))
        }
    }
}

/// Takes note of how an endpoint has done.
fn note(service: &Service, member: &Member, answer: &Result<Response<UpstreamAnswer>, SendError>, begun: Instant) {
    let now = Instant::now();
    let verdict = match answer {
        Ok(answer) => match answer.status().as_u16() {
            501 | 505 => Verdict::Neutral, // what the caller asks for
            500.. => Verdict::Ill,
            _ => Verdict::Well,
        },
        Err(error) if error.is_upstreams() => Verdict::Ill,
        Err(_) => Verdict::Neutral,
    };
    if let Some(lasts) = member.records(verdict, now - begun, &service.breaker, now) {
        let (service, endpoint) = (&*service.name, member.endpoint.place());
        tracing::warn!(service, endpoint, ms = clock::millis(lasts), "an endpoint is ejected for a while");
    }
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

/// The order in which the endpoints of a service are tried.
struct Order<'m> {
    members: &'m [Member],
    how: How<'m>,
}

enum How<'m> {
    /// As the routing plugin says.
    Planned(std::vec::IntoIter<usize>),
    /// As the service says, one after the other.
    Balanced { rules: Rules<'m>, turn: &'m AtomicUsize, last: Option<usize>, tried: Vec<usize> },
}

impl<'m> Order<'m> {
    fn of(
        service: &'m Service,
        members: &'m [Member],
        underway: &Underway,
        call: &Call<'_>,
        headers: &HeaderMap,
    ) -> Result<Self, Failure> {
        let Some(routing) = underway.route.routing.as_ref() else {
            let is_hashed = service.balance == Balance::Hash;
            let key = if is_hashed { service.hash.key(headers, underway.peer.addr.ip()) } else { None };
            let rules = Rules { balance: service.balance, breaker: &service.breaker, key };
            let how = How::Balanced { rules, turn: &service.fleet.turn, last: None, tried: Vec::new() };
            return Ok(Self { members, how });
        };
        let now = Instant::now();
        let candidates: Vec<_> = members.iter().map(|member| candidate(member, service, now)).collect();
        let order = routing.rank(call, &[], &candidates, random::u64());
        let order = order.map_err(|error| Failure::of_policy(error, Kind::NoTarget))?.drawn(random::below);
        Ok(Self { members, how: How::Planned(order.into_iter()) })
    }

    fn next(&mut self) -> Option<&'m Member> {
        let at = match &mut self.how {
            How::Planned(order) => order.next()?,
            How::Balanced { rules, turn, last, tried } => {
                tried.extend(last.take()); // the first choice, mostly the only one, takes no memory
                let at = balance::choose(self.members, tried, rules, turn, Instant::now())?;
                *last = Some(at);
                at
            }
        };
        self.members.get(at)
    }
}

fn candidate<'a>(member: &'a Member, service: &'a Service, now: Instant) -> Candidate<'a> {
    let health = &member.endpoint.health;
    let (id, vendor, weight, priority) = (member.endpoint.place(), &*service.name, member.weight, member.priority);
    let latency_ms = u32::try_from(health.first_byte().as_millis()).unwrap_or(u32::MAX);
    let (healthy, inflight) = (member.is_well(&service.breaker, now), health.in_flight());
    Candidate { id, vendor, model: "", weight, priority, healthy, latency_ms, inflight, facts: &[] }
}
