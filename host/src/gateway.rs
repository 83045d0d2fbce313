// SPDX-License-Identifier: Apache-2.0
//! The life of one request. [`Gateway::stages`] is the whole story; each stage takes what an earlier one made, so that a
//! wrong order does not compile. [`first_answer`] is the only retry loop of the program, and it ends before the first byte
//! goes to the caller.

mod accept;
mod hedge;
mod me;
mod perform;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response, Version, header};
use penstock_dialects::codec::Operation;

use crate::answer::{self, Outcome};
use crate::attempt::{Answer, Asking, Miss, Tries, Try};
use crate::config::place::push_hex;
use crate::directory::Directory;
use crate::failure::{Failure, Kind};
use crate::head::{self, HeadError};
use crate::inbound::{Asked, Inbound, read_body, text};
use crate::jobs::{self, Jobs};
use crate::ledger::{self, Entry};
use crate::listener::Peer;
use crate::metrics::Metrics;
use crate::plugin::types::{Call, Pair, Reply};
use crate::probes::Probes;
use crate::proxy::{self, Proxied};
use crate::random;
use crate::realtime;
use crate::relay::{Body, coded};
use crate::routes::{Alias, Serves, Target};
use crate::shed::{Reason, Shed};
use crate::snapshot::Snapshot;
use crate::stages::{self, Estimate, Gate, Principal, Reception, ResponseEdits, Sight, Whose};
use crate::traces::Tracer;
use crate::underway::Underway;
use crate::upstream::{Client, Hedge, InBody, Verdict};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PENSTOCK_REQUEST_ID: HeaderName = HeaderName::from_static("penstock-request-id");

/// Serves callers with whatever snapshot is in force.
pub struct Gateway {
    /// What is in force; only the control plane writes it.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Connections to upstreams.
    pub client: Client,
    /// Admits calls within their limits.
    pub gate: Gate,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Requests that go on when their callers have gone.
    pub jobs: Jobs,
    /// Keys, teams, and what was used.
    pub directory: Directory,
    /// What machines are told.
    pub probes: Arc<Probes>,
    /// Traces of requests.
    pub traces: Tracer,
    /// Refuses requests when there are too many.
    pub shed: Arc<Shed>,
}

impl Gateway {
    /// Answers a request; every failure is an answer, too. Dropping the future abandons the request and cancels whatever
    /// was asked of an upstream.
    pub async fn handle(&self, request: Request<InBody>, peer: Peer) -> Response<Body> {
        let id = new_id();
        let (head, body) = request.into_parts();
        let version = head.version;
        let mut response = match self.find(&head, &id, peer) {
            Ok(underway) => match self.shed.admit(self.metrics.under_way()) {
                // On the heap, and gone with the answer's head: a connection between requests, and a stream whose caller does
                // not take its answer, hold nothing of what has made it. Boxed here, it is copied once.
                Ok(()) => Box::pin(self.exchange(&underway, Request::from_parts(head, body))).await,
                Err(reason) => self.turn_away(&underway, reason),
            },
            Err(failure) => {
                if let Some(probed) = self.probe(&failure, &head) {
                    return probed;
                }
                let mut response = answer::refusal(&failure, None, &id, None);
                ledger::refused(&id, response.status().as_u16(), failure.kind.code());
                if failure.kind == Kind::BadHead && version < Version::HTTP_2 {
                    // Where the head is in doubt, so is where the next request begins.
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                response
            }
        };
        if let Ok(id) = HeaderValue::from_str(&id) {
            // The vendor's own id, where there is one, is what the vendor's support asks for.
            response.headers_mut().entry(X_REQUEST_ID).or_insert_with(|| id.clone());
            response.headers_mut().insert(PENSTOCK_REQUEST_ID, id);
        }
        response
    }

    /// What no route serves may be a health check.
    fn probe(&self, failure: &Failure, head: &Parts) -> Option<Response<Body>> {
        if failure.kind != Kind::NoRoute {
            return None;
        }
        let asked = (&head.method, head.uri.path(), &head.headers);
        let answer = self.probes.answer(asked, &self.metrics, &self.directory)?;
        Some(answer.map(|text| Body::whole(text, None)))
    }

    fn find(&self, head: &Parts, id: &Arc<str>, peer: Peer) -> Result<Underway, Failure> {
        let bad = |error: HeadError| Failure::new(Kind::BadHead, error.to_string());
        let place = head::check(head).map_err(bad)?;
        let snapshot = self.snapshot.load_full();
        let route = snapshot.routes.find(&place.host, place.path).cloned().ok_or_else(|| {
            Failure::new(Kind::NoRoute, format!("no route serves {} on host {}", place.path, place.host))
        })?;
        let asked = match route.serves {
            Serves::Models => {
                place.check_unambiguous().map_err(bad)?;
                Asked::recognise(head, &route.prefix, &route.dialects)
            }
            Serves::Service { .. } => {
                let find = |path: &String| snapshot.routes.find(&place.host, path);
                let is_foreign = |path: &String| !find(path).is_some_and(|other| Arc::ptr_eq(other, &route));
                if place.other_readings().iter().any(is_foreign) {
                    return Err(bad(HeadError::ForeignPath));
                }
                None
            }
        };
        let deadline = Instant::now() + Duration::from_millis(snapshot.timeouts.total_ms);
        let client_ip = Arc::clone(&peer.ip);
        Ok(Underway { snapshot, route, asked, id: Arc::clone(id), peer, client_ip, deadline })
    }

    /// Refuses a request that is one too many. Of those there are many, so this is cheap: no trace, and not a line for each.
    fn turn_away(&self, underway: &Underway, reason: Reason) -> Response<Body> {
        let (id, route) = (Arc::clone(&underway.id), Arc::clone(&underway.route.name));
        let (metrics, directory) = (Arc::clone(&self.metrics), self.directory.clone());
        let mut entry = Entry::open(id, route, underway.operation(), metrics, directory, None);
        match self.shed.line() {
            Some(0) => {}
            Some(cut) => tracing::warn!(lines = cut, "lines of requests that were refused as too many were cut"),
            None => entry.is_told = false,
        }
        answer::refusal(&overloaded(reason), underway.asked.as_ref(), &underway.id, Some(entry))
    }

    async fn exchange(&self, underway: &Underway, request: Request<InBody>) -> Response<Body> {
        let (id, route) = (Arc::clone(&underway.id), Arc::clone(&underway.route.name));
        // What stands in the paths of other people's services, nobody knows.
        let path = underway.asked.as_ref().map_or("", |_| request.uri().path());
        let trace = self.traces.begin(request.method(), path, request.headers());
        let (metrics, directory) = (Arc::clone(&self.metrics), self.directory.clone());
        let mut entry = Entry::open(id, route, underway.operation(), metrics, directory, trace);
        let mut edits = ResponseEdits::default();
        let (codings, events) = &underway.route.compress;
        let coding = if codings.is_empty() { None } else { coded::chosen(codings, request.headers()) };
        let mut response = match self.stages(underway, request, &mut entry, &mut edits).await {
            Ok(outcome) => answer::respond(outcome, underway, entry),
            Err(failure) => answer::refusal(&failure, underway.asked.as_ref(), &underway.id, Some(entry)),
        };
        let facts = underway.facts();
        edits.apply(&underway.call(&Principal::default(), None, &facts), &mut response);
        if codings.is_empty() { response } else { coded::compressed(response, coding, *events) }
    }

    async fn stages(
        &self,
        underway: &Underway,
        request: Request<InBody>,
        entry: &mut Entry,
        edits: &mut ResponseEdits,
    ) -> Result<Outcome, Failure> {
        let route = &*underway.route;
        let (mut head, body) = request.into_parts();
        let facts = underway.facts();
        let nobody = Principal::default();

        let call = underway.call(&nobody, None, &facts);
        if let Some(reply) = entry.stage("filters", || stages::filter(route, &call, &mut head, edits))? {
            return Ok(Outcome::Local(reply));
        }
        let principal = self.reception().authenticate(route, &call, &head.headers, &underway.peer).await?;
        entry.passed("auth");
        entry.asked_by(&principal);
        let facts = principal.facts(&facts);

        if let Serves::Service { service, .. } = &route.serves {
            let call = underway.call(&principal, None, &facts);
            let permit = self.gate.admit(&route.limits, Whose::Callers, &principal, &call, &Estimate::default).await;
            entry.admitted(permit)?;
            let request = Request::from_parts(head, body);
            let proxied = proxy::ask(&self.client, underway, service, &call, request, entry).await?;
            return Ok(Outcome::Proxied(proxied));
        }
        if let Some(reply) = self.told(underway, &head, &principal, &facts)? {
            return Ok(Outcome::Local(reply));
        }
        let asked = underway.asked.as_ref().ok_or_else(|| unknown_operation(&head))?;
        if let Some(ask) = jobs::recognise(asked) {
            // On the heap, as other rare ways: the future of every request is as large as its largest part.
            return Box::pin(self.jobs.answer(ask, underway, asked, &principal)).await.map(Outcome::Local);
        }
        if asked.operation == Operation::Realtime
            || (asked.operation == Operation::Passthrough && realtime::is_wanted(&head))
        {
            return Box::pin(self.converse(underway, &head, asked, &principal, entry)).await.map(Outcome::Proxied);
        }
        principal.may_ask_for(asked.operation.name())?;
        let body = whole(&head, body, underway, entry).await?;
        let inbound = Inbound::parse(asked, &head, &body)?;
        principal.may_use(&inbound.model)?;
        let call = underway.call(&principal, Some(&inbound), &facts);
        let alias = underway.snapshot.models.resolve(&inbound.model);
        let estimate = || estimate(underway, &inbound, alias.as_deref());
        let permit = self.gate.admit(&route.limits, Whose::Callers, &principal, &call, &estimate).await;
        entry.admitted(permit)?;
        entry.made = inbound.made();

        let targets = entry.stage("routing", || the_targets(underway, &inbound, alias.as_deref(), &call, &head))?;
        if let Some(wish) = accept::Wish::of(&head, &inbound) {
            let request = accept::Request { underway, head: &head, inbound: &inbound, principal: &principal };
            return Box::pin(self.accept(&wish, &request, &targets, entry)).await.map(Outcome::Local);
        }
        let asking = Asking::new(underway, &self.client, &head, &inbound, &principal).traced(entry.outgoing());
        let hedge = alias.as_ref().and_then(|alias| alias.hedge.as_deref()).or(route.hedge.as_deref());
        let answer = first_answer(&self.gate, &asking, &targets, hedge, entry).await?;
        Ok(Outcome::Answer(Box::new(answer)))
    }
}

impl Gateway {
    /// Opens a conversation over a WebSocket.
    async fn converse(
        &self,
        underway: &Underway,
        head: &Parts,
        asked: &Asked,
        principal: &Principal,
        entry: &mut Entry,
    ) -> Result<Proxied, Failure> {
        let caller = realtime::caller(head)?;
        let nothing = Bytes::new();
        let inbound = Inbound::conversation(asked, &nothing);
        principal.may_ask_for(asked.operation.name())?;
        principal.may_use(&inbound.model)?;
        let facts = underway.facts();
        let facts = principal.facts(&facts);
        let call = underway.call(principal, Some(&inbound), &facts);
        let limits = &underway.route.limits;
        let permit = self.gate.admit(limits, Whose::Callers, principal, &call, &Estimate::default).await;
        entry.admitted(permit)?;
        let alias = underway.snapshot.models.resolve(&inbound.model);
        let targets = the_targets(underway, &inbound, alias.as_deref(), &call, head)?;
        let asking = Asking::new(underway, &self.client, head, &inbound, principal).traced(entry.outgoing());
        realtime::open(&self.gate, &asking, &targets, caller, entry).await
    }

    /// Who finds out who asks.
    fn reception(&self) -> Reception<'_> {
        Reception { client: &self.client, metrics: &self.metrics, directory: &self.directory }
    }

    /// What a caller asks about itself, models and vendors; none if it asks for anything else.
    fn told(
        &self,
        underway: &Underway,
        head: &Parts,
        principal: &Principal,
        facts: &[Pair<'_>],
    ) -> Result<Option<Reply>, Failure> {
        if me::is_wanted(head, &underway.route) {
            let call = underway.call(principal, None, facts);
            return me::answer(&self.gate, &underway.route, principal, &call, &self.directory).map(Some);
        }
        match &underway.asked {
            Some(asked) if matches!(asked.operation, Operation::Models | Operation::Capabilities) => {
                answer::about(&underway.snapshot, asked, principal).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// The whole body of a request.
async fn whole(head: &Parts, body: InBody, underway: &Underway, entry: &mut Entry) -> Result<Bytes, Failure> {
    let body = read_body(&head.headers, body, underway.snapshot.limits.body_bytes_max).await;
    entry.passed("body");
    body
}

/// Tries the targets in their order until one answers. Nothing has gone to the caller by then.
async fn first_answer(
    gate: &Gate,
    asking: &Asking<'_>,
    targets: &[Target],
    hedge: Option<&Hedge>,
    entry: &mut Entry,
) -> Result<Answer, Failure> {
    let mut tries = Tries::of(targets);
    let hedge = hedge.filter(|_| targets.len() > 1 && asking.may_be_hedged()).inspect(|hedge| hedge.begins());
    loop {
        let turn = match tries.next(gate, asking, entry).await {
            Ok(turn) => turn,
            Err(miss) => return in_its_words(miss, entry),
        };
        let Try { target, attempt, is_last } = turn;
        target.begins();
        if let Some(hedge) = hedge.filter(|_| !is_last && entry.hedge.is_none()) {
            // On the heap: what is asked of two takes twice the room.
            let raced = Box::pin(hedge::raced(hedge, gate, asking, &turn, &mut tries, entry));
            match tokio::time::timeout_at(asking.underway.deadline.into(), raced).await {
                Ok(Ok(Some(answer))) => return Ok(answer),
                Ok(Ok(None)) => continue,
                Ok(Err(miss)) => return in_its_words(miss, entry),
                Err(_) => return Err(out_of_time()),
            }
        }
        // Pinned where it is made: the future is large, and moving it would copy it.
        let tried = std::pin::pin!(asking.target(target, attempt, is_last));
        let miss = match tokio::time::timeout_at(asking.underway.deadline.into(), tried).await {
            Ok(Ok(answer)) => return Ok(answered(answer, target, asking, entry)),
            Ok(Err(miss)) => miss,
            Err(_) => return Err(out_of_time()),
        };
        missed(&miss, target, entry);
        if let Err(miss) = tries.missed(miss, asking) {
            return in_its_words(miss, entry);
        }
    }
}

/// Notes that a target has answered.
fn answered(answer: Answer, target: &Target, asking: &Asking<'_>, entry: &mut Entry) -> Answer {
    entry.answered();
    entry.input_estimate = asking.input_estimate();
    target.records(Verdict::Well);
    answer
}

/// Notes that a target gave no answer.
fn missed(miss: &Miss, target: &Target, entry: &mut Entry) {
    entry.missed(&miss.failure);
    target.records(miss.failure.verdict());
}

fn out_of_time() -> Failure {
    Failure::new(Kind::TotalTimeout, "no answer came within timeouts.total_ms")
}

/// The vendor's own error, where the caller can read it and nobody else is left to ask.
fn in_its_words(miss: Miss, entry: &mut Entry) -> Result<Answer, Failure> {
    let Some(mut original) = miss.original else { return Err(miss.failure) };
    entry.failure = Some(miss.failure.kind.code());
    if let Some(ms) = miss.failure.fault.retry_after_ms {
        original.headers.entry(header::RETRY_AFTER).or_insert_with(|| HeaderValue::from(ms.div_ceil(1000).max(1)));
    }
    Ok(*original)
}

/// What a request may come to at the dearest of the targets that it may go to.
fn estimate(underway: &Underway, inbound: &Inbound<'_>, alias: Option<&Alias>) -> Estimate {
    let targets = alias.map_or(&[][..], |alias| &alias.targets);
    Estimate::of(inbound, targets, underway.snapshot.limits.output_tokens)
}

#[cold]
fn overloaded(reason: Reason) -> Failure {
    let message = match reason {
        Reason::Full => "the gateway has as many requests under way as it may; try again after retry-after",
        Reason::Late => "the gateway has more to do than it can; try again after retry-after",
    };
    Failure::new(Kind::Overloaded, message).retry_after(Some(Shed::wait_ms()))
}

fn new_id() -> Arc<str> {
    let mut id = String::with_capacity(28);
    id.push_str("req_");
    push_hex(&mut id, &random::bytes());
    id.into()
}

fn unknown_operation(head: &Parts) -> Failure {
    let message = format!("{} {} is no operation of a dialect that is spoken here", head.method, head.uri.path());
    Failure::new(Kind::UnknownOperation, message)
}

/// The targets of a request, in the order in which to try them. One without a model goes to the vendor that the path or the
/// header `penstock-vendor` names, or to the only one that serves the operation.
fn the_targets(
    underway: &Underway,
    inbound: &Inbound<'_>,
    alias: Option<&Alias>,
    call: &Call<'_>,
    head: &Parts,
) -> Result<Vec<Target>, Failure> {
    let (models, asked) = (&underway.snapshot.models, inbound.asked);
    if !inbound.model.is_empty() {
        let alias = alias.ok_or_else(|| Failure::unknown_model(&inbound.model))?;
        let sight = Sight { headers: &head.headers, content: &inbound.content };
        let routing = alias.routing.as_ref().or(underway.route.routing.as_ref());
        return stages::rank(routing, call, &alias.targets, &sight);
    }
    let path = asked.place.as_ref().map_or("", |place| place.path.as_str());
    let in_path = path.strip_prefix("/vendors/").and_then(|rest| rest.split('/').next());
    let in_header = || text(&head.headers, "penstock-vendor");
    let named = in_path.or_else(in_header);
    let target = models.vendor(named, asked.operation.name());
    target.map(|target| vec![target]).map_err(|message| Failure::new(Kind::UnknownModel, message))
}
