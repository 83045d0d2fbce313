// SPDX-License-Identifier: Apache-2.0
//! Accounting: one [`Entry`] for each request. It is a guard: an error, a hang-up and the end of a stream all drop it, and
//! dropping it settles the limits, counts, and writes the access log line.

mod beside;

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode};
use penstock_dialects::ir::Usage;
use penstock_prices::cost::{self, Cost, Made};
use penstock_prices::price::Price;
use prometheus::IntGauge;
use prometheus::local::LocalHistogram;

use crate::clock;
use crate::config;
use crate::directory::usage::{Used, Who};
use crate::directory::{Directory, VirtualKey};
use crate::failure::Failure;
use crate::metrics::{self, Metrics};
use crate::routes::Target;
use crate::stages::{Permit, Principal, Refused, Served, Spent, Standing};
use crate::traces::{Outcome, Outgoing, Trace, Try};
use crate::upstream::Breaker;

use beside::Beside;

/// How a request ended, for the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The answer went out whole.
    Complete,
    /// The caller hung up, or the answer was dropped before its end.
    Abandoned,
    /// The stream was cut or failed after it had begun.
    Broken,
}

impl Ending {
    fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Abandoned => "abandoned",
            Self::Broken => "broken",
        }
    }
}

/// The line of the access log of a request that has no route, and so no entry.
pub fn refused(id: &str, status: u16, failure: &'static str) {
    let (route, ending) = ("", Ending::Complete.name());
    tracing::info!(target: "access", request = %id, route, status, failure, ending, attempts = 0);
}

/// The pieces of a streamed answer, as they come.
struct Pieces {
    first: Instant,
    last: Instant,
    /// The times between them; counted here first, so that a piece costs no more than a look at the clock.
    between: Option<LocalHistogram>,
}

/// The account of one request.
pub struct Entry {
    /// Id of the request.
    pub id: Arc<str>,
    /// Name of the route.
    pub route: Arc<str>,
    /// Name of the operation; empty on a plain HTTP route.
    pub operation: &'static str,
    /// Who asked; empty on an open route.
    pub subject: String,
    /// The group of who asked.
    tenant: Option<String>,
    /// The virtual key that was used.
    key: Option<Arc<VirtualKey>>,
    /// Vendor (or service) that answers.
    pub vendor: Arc<str>,
    /// The vendor's name of the model.
    pub model: Arc<str>,
    /// Which target answers, for the headers of the answer.
    pub target: Option<HeaderValue>,
    /// Targets tried.
    pub attempts: u32,
    /// Status of the answer.
    pub status: StatusCode,
    /// Code of the failure, if there was one.
    pub failure: Option<&'static str>,
    /// How it ended.
    pub ending: Ending,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// What was asked for, where prices differ by it.
    pub made: Made,
    /// Tokens of the request, estimated, for an answer that breaks before its vendor has counted.
    pub input_estimate: u64,
    /// Whether the access log has a line for it; only those that are refused as too many may have none.
    pub is_told: bool,
    /// What is left of the caller's limits, for the headers of the answer.
    pub standing: Option<Standing>,
    /// What came of a second target that was asked beside a slow one, or why none was.
    pub hedge: Option<&'static str>,
    permit: Option<Permit>,
    /// What is reserved with the vendor that is being asked.
    vendor_permit: Option<Permit>,
    usage: Option<Usage>,
    partial: bool,
    price: Option<Arc<Price>>,
    /// What the usage costs, once somebody has asked.
    priced: OnceCell<Option<Cost>>,
    /// Who is told when the answer breaks off.
    judged: Option<(Arc<Breaker>, config::Breaker)>,
    begun: Instant,
    first_byte: Option<Instant>,
    /// When the try began that is under way.
    trying: Option<Instant>,
    /// The other one of two tries at a time.
    beside: Option<Box<Beside>>,
    pieces: Option<Pieces>,
    inflight: Option<IntGauge>,
    /// None if the request is not traced.
    trace: Option<Box<Trace>>,
    metrics: Arc<Metrics>,
    directory: Directory,
}

impl Entry {
    /// Opens the account of a request that has just come in.
    #[must_use]
    pub fn open(
        id: Arc<str>,
        route: Arc<str>,
        operation: &'static str,
        metrics: Arc<Metrics>,
        directory: Directory,
        trace: Option<Box<Trace>>,
    ) -> Self {
        let inflight = metrics.inflight(&route);
        if let Some(inflight) = &inflight {
            inflight.inc();
        }
        metrics.begins();
        Self {
            id,
            route,
            operation,
            subject: String::new(),
            tenant: None,
            key: None,
            vendor: Arc::default(),
            model: Arc::default(),
            target: None,
            attempts: 0,
            status: StatusCode::OK,
            failure: None,
            ending: Ending::Abandoned,
            bytes: 0,
            made: Made::default(),
            input_estimate: 0,
            is_told: true,
            standing: None,
            hedge: None,
            permit: None,
            vendor_permit: None,
            usage: None,
            partial: false,
            price: None,
            priced: OnceCell::new(),
            judged: None,
            begun: Instant::now(),
            first_byte: None,
            trying: None,
            beside: None,
            pieces: None,
            inflight,
            trace,
            metrics,
            directory,
        }
    }

    /// Notes who asks.
    pub fn asked_by(&mut self, principal: &Principal) {
        self.subject.clone_from(&principal.subject);
        self.tenant.clone_from(&principal.tenant);
        self.key.clone_from(&principal.key);
    }

    /// Takes the budget that was reserved for this request, to settle it in the end.
    pub fn hold(&mut self, permit: Option<Permit>) {
        self.standing = permit.as_ref().and_then(Permit::standing);
        self.permit = permit;
    }

    /// Whether a budget is reserved for this request.
    #[must_use]
    pub fn holds_permit(&self) -> bool {
        self.permit.is_some()
    }

    /// Notes that a target is tried now, with what was reserved for that with its vendor.
    pub fn tries(&mut self, target: &Target, reserved: Option<Permit>) {
        self.trying(&target.vendor.name, &target.model, target.vendor.server());
        self.target.clone_from(&target.shown);
        self.price.clone_from(&target.price);
        self.priced = OnceCell::new();
        self.judged = Some((Arc::clone(&target.breaker), target.vendor.breaker));
        self.vendor_permit = reserved;
    }

    /// Takes what was decided about this request.
    ///
    /// # Errors
    /// The refusal.
    pub fn admitted(&mut self, decided: Result<Option<Permit>, Refused>) -> Result<(), Failure> {
        self.passed("limits");
        match decided {
            Ok(permit) => self.hold(permit),
            Err(refused) => {
                self.standing = refused.standing;
                return Err(refused.failure);
            }
        }
        Ok(())
    }

    /// Hands the budget on: a job that has come of this request is charged instead.
    pub fn release(&mut self) -> Option<Permit> {
        self.permit.take()
    }

    /// Notes for the trace that a stage has ended.
    pub fn passed(&mut self, stage: &'static str) {
        if let Some(trace) = &mut self.trace {
            trace.passed(stage);
        }
    }

    /// A stage that does not wait, noted for the trace.
    pub fn stage<T>(&mut self, stage: &'static str, run: impl FnOnce() -> T) -> T {
        let value = run();
        self.passed(stage);
        value
    }

    /// What the tries of this request send on of its trace.
    #[must_use]
    pub fn outgoing(&self) -> Option<Outgoing> {
        self.trace.as_ref().map(|trace| trace.outgoing())
    }

    /// Shows the trace what goes to the caller: a whole answer, or a piece of a stream.
    pub fn shows(&mut self, bytes: &[u8], is_piece: bool) {
        match &mut self.trace {
            Some(trace) if is_piece => trace.piece(bytes),
            Some(trace) => trace.answer(bytes),
            None => {}
        }
    }

    /// Begins the next try, at this vendor or service; `server` is its host and port.
    pub fn trying(&mut self, vendor: &Arc<str>, model: &Arc<str>, server: &str) {
        if let Some(trace) = &mut self.trace {
            trace.trying(self.attempts, &Try { operation: self.operation, vendor, model, server });
        }
        self.attempts += 1;
        self.vendor = Arc::clone(vendor);
        self.model = Arc::clone(model);
        self.trying = Some(Instant::now());
    }

    /// Notes a target that answered.
    pub fn answered(&mut self) {
        self.tried("ok");
    }

    /// Notes a target that gave no answer.
    pub fn missed(&mut self, failure: &Failure) {
        if let Some(permit) = self.vendor_permit.take() {
            permit.settle(&Spent { served: Served::Tried, usage: None, partial: false, cost: None });
        }
        self.tried(failure.kind.code());
        if let Some(trace) = &mut self.trace {
            trace.missed(failure.kind.code());
        }
        tracing::warn!(request = %self.id, route = %self.route, vendor = %self.vendor, model = %self.model, %failure, "attempt failed");
    }

    fn tried(&mut self, outcome: &'static str) {
        if let Some(began) = self.trying.take() {
            self.metrics.attempted(&self.vendor, outcome, began.elapsed());
        }
    }

    /// Notes that a piece of a streamed answer has come.
    pub fn piece(&mut self) {
        let now = Instant::now();
        let Some(pieces) = &mut self.pieces else {
            self.pieces = Some(Pieces { first: now, last: now, between: None });
            return;
        };
        if pieces.between.is_none() {
            pieces.between = self.metrics.inter_token(&self.vendor, &self.model);
        }
        if let Some(between) = &pieces.between {
            between.observe(now.duration_since(pieces.last).as_secs_f64());
        }
        pieces.last = now;
    }

    /// Notes the usage; a later note replaces an earlier one.
    pub fn used(&mut self, usage: Usage) {
        self.usage = Some(usage);
        self.priced = OnceCell::new();
    }

    /// Notes that the answer has broken off after it had begun.
    pub fn broken(&mut self, failure: &Failure) {
        self.failure = Some(failure.kind.code());
        self.ending = Ending::Broken;
        if let Some((breaker, rules)) = &self.judged
            && let Some(lasts) = breaker.record(failure.verdict(), rules, Instant::now())
        {
            tracing::warn!(target_id = %format_args!("{}/{}", self.vendor, self.model), ms = clock::millis(lasts), "a target is ejected for a while");
        }
    }

    /// Notes that more may have been used than the vendor has told.
    pub fn used_more(&mut self) {
        self.partial = true;
    }

    /// Puts the truth in the place of what was reserved. Done before the end of the answer is told, so that a caller who has
    /// read it whole has paid for it, whatever becomes of the gateway.
    pub fn settle(&mut self) {
        let permits = [self.permit.take(), self.vendor_permit.take()];
        if permits.iter().all(Option::is_none) {
            return;
        }
        let served = match self.attempts {
            0 => Served::Never,
            _ if self.status.is_success() || self.status == StatusCode::SWITCHING_PROTOCOLS => Served::Answered,
            _ => Served::Tried,
        };
        let cost = self.cost().map(|cost| cost.usd.nano());
        for permit in permits.into_iter().flatten() {
            permit.settle(&Spent { served, usage: self.usage.as_ref(), partial: self.partial, cost });
        }
    }

    /// What the call costs, as far as its usage is known; none if the vendor does not say, and the model has no price.
    #[must_use]
    pub fn cost(&self) -> Option<Cost> {
        let found = || cost::of(self.price.as_deref(), self.usage.as_ref(), &self.made);
        if self.usage.is_some() {
            return *self.priced.get_or_init(found);
        }
        let is_served = self.bytes > 0 && self.status.is_success() && self.failure.is_none();
        is_served.then(found).flatten()
    }

    /// Notes how the request ended.
    pub fn ended(&mut self, ending: Ending) {
        self.ending = ending;
    }

    /// Counts bytes that go to the caller; the first call fixes the time to the first byte.
    pub fn sent(&mut self, bytes: usize) {
        self.first_byte.get_or_insert_with(Instant::now);
        self.bytes += bytes as u64;
    }
}

impl Entry {
    fn has_failed(&self) -> bool {
        self.failure.is_some() || !(self.status.is_success() || self.status == StatusCode::SWITCHING_PROTOCOLS)
    }

    fn key_id(&self) -> &str {
        self.key.as_ref().map_or("", |key| &key.id)
    }

    fn tell_trace(&mut self, cost: Option<&Cost>) {
        let Some(trace) = self.trace.take() else { return };
        trace.finish(&Outcome {
            request: &self.id,
            route: &self.route,
            key: self.key_id(),
            team: self.tenant.as_deref().unwrap_or_default(),
            status: self.status.as_u16(),
            failure: self.failure,
            ending: self.ending.name(),
            usage: self.usage.as_ref(),
            cost: cost.map(|cost| cost.usd.to_f64()),
            first_piece: self.pieces.as_ref().map(|pieces| pieces.first),
        });
    }

    /// Adds the request to the sums of its key and team, and tells whoever listens.
    fn report(&self, took: Duration, cost: Option<&Cost>) {
        let usage = self.usage.as_ref();
        let (input_tokens, output_tokens) = (usage.map_or(0, Usage::input_total), usage.map_or(0, Usage::output_total));
        let team = self.tenant.as_deref().unwrap_or_default();
        let who = Who { key: self.key_id(), team, subject: &self.subject, vendor: &self.vendor, model: &self.model };
        let failed = self.has_failed();
        let nano_usd = cost.map_or(0, |cost| nano_of(cost.usd.to_f64()));
        self.directory.usage().count(who, Used { failed, input_tokens, output_tokens, nano_usd }, clock::unix_s());
        self.directory.feed().request(|| {
            serde_json::json!({
                "request": &*self.id, "route": &*self.route, "operation": self.operation, "subject": &self.subject,
                "key": self.key_id(), "team": team, "vendor": &*self.vendor, "model": &*self.model,
                "status": self.status.as_u16(), "failure": self.failure, "ending": self.ending.name(),
                "ms": clock::millis(took), "bytes": self.bytes,
                "input_tokens": input_tokens, "output_tokens": output_tokens,
                "cost_usd": cost.map(|cost| cost.usd.to_f64()),
            })
        });
    }
}

/// Dollars as nano-dollars.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an amount is not below zero; `as` saturates"
)]
fn nano_of(usd: f64) -> u64 {
    (usd * 1e9).round() as u64
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.settle();
        let outcome = self.failure.unwrap_or("abandoned");
        self.tried(outcome);
        self.drops_beside(outcome);
        if let Some(hedge) = self.hedge {
            self.metrics.hedged(&self.route, hedge);
        }
        if let Some(inflight) = &self.inflight {
            inflight.dec();
        }
        let took = self.begun.elapsed();
        self.metrics.ends(took);
        if let Some(code) = self.failure {
            self.metrics.failed(&self.route, code);
        }
        let cost = self.cost();
        self.metrics.ended(&metrics::Ended {
            route: &self.route,
            vendor: &self.vendor,
            model: &self.model,
            operation: self.operation,
            status: self.status.as_u16(),
            failed: self.has_failed(),
            took,
            first_byte: self.first_byte.map(|at| at.duration_since(self.begun)),
            pieces: self.pieces.as_ref().map(|pieces| metrics::Pieces {
                first: pieces.first.duration_since(self.begun),
                spread: pieces.last.duration_since(pieces.first),
            }),
            key: self.key_id(),
            team: self.tenant.as_deref().unwrap_or_default(),
            usage: self.usage.as_ref(),
            cost: cost.map(|cost| cost.usd),
        });
        if let Some(between) = self.pieces.as_ref().and_then(|pieces| pieces.between.as_ref()) {
            between.flush();
        }
        self.report(took, cost.as_ref());
        let trace = self.trace.as_ref().map(|trace| trace.id());
        self.tell_trace(cost.as_ref());
        if !self.is_told {
            return;
        }
        let usage = self.usage.as_ref();
        tracing::info!(
            target: "access",
            request = %self.id,
            trace = trace.as_deref(),
            route = %self.route,
            operation = self.operation,
            subject = self.subject,
            key = self.key_id(),
            vendor = %self.vendor,
            model = %self.model,
            status = self.status.as_u16(),
            failure = self.failure.unwrap_or_default(),
            ending = self.ending.name(),
            attempts = self.attempts,
            hedge = self.hedge,
            bytes = self.bytes,
            ms = clock::millis(took),
            input_tokens = usage.map_or(0, Usage::input_total),
            output_tokens = usage.map_or(0, Usage::output_total),
            tokens_estimated = self.partial.then_some(true),
            cost_usd = cost.map(|cost| cost.usd.to_f64()),
            cost_stated = cost.map(|cost| cost.stated),
        );
    }
}
