// SPDX-License-Identifier: Apache-2.0
//! Traces: what a request did and when, told to a collector over OTLP.
//!
//! A request that is traced carries a [`Trace`] in its ledger's entry: one span for the request, one for each stage, and one
//! for each try at a target, with the attributes of OpenTelemetry's conventions for generative AI (1.41). Ids, counts and
//! times are told, never a prompt, an answer, a header or a key. When the request has ended, the trace goes into a bounded
//! queue; [`export`] takes it from there. A request that is not traced costs one comparison.
//!
//! The caller's `traceparent` is taken up, and a vendor is sent one (W3C Trace Context). `baggage` is sent to nobody.

pub mod export;
pub mod otlp;
mod parent;
mod told;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use penstock_dialects::ir::Usage;
use tokio::sync::mpsc;

use crate::clock;
use crate::metrics::Metrics;
use crate::random;

pub use parent::Outgoing;

use parent::Parent;
use told::Told;

/// Spans of one request; further ones are left out.
const SPANS_MAX: usize = 64;
/// Longest text of an attribute, in bytes; the rest is cut.
const TEXT_BYTES_MAX: usize = 256;

/// Decides which requests are traced, and takes their traces. A clone is the same one.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Sampler>>);

struct Sampler {
    queue: mpsc::Sender<Finished>,
    metrics: Arc<Metrics>,
    /// A trace is sampled if 63 bits of its id are below this.
    below: u64,
    follow_parent: bool,
}

/// The trace of one request under way.
pub struct Trace {
    sampler: Arc<Sampler>,
    id: u128,
    parent: Option<Parent>,
    root: Span,
    clock: Clock,
    /// When the stage began that is under way.
    mark: Instant,
    spans: Vec<Span>,
    /// The try that is under way, or has answered.
    attempt: Option<Span>,
    /// A try that runs beside it.
    beside: Option<Span>,
    told: Told,
}

/// A trace that is over.
#[derive(Debug)]
pub struct Finished {
    /// Its id.
    pub id: u128,
    /// What the caller's vendors of traces want to keep, as it came.
    pub state: String,
    /// The spans; the first one is the request.
    pub spans: Vec<Span>,
}

/// Something that took time.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its id.
    pub id: u64,
    /// The span that it is a part of; 0 for none.
    pub parent: u64,
    /// Name.
    pub name: String,
    /// Whose side it is.
    pub kind: Kind,
    /// Begin and end, in nanoseconds since 1970.
    pub time_ns: (u64, u64),
    /// Attributes.
    pub attributes: Vec<(&'static str, Value)>,
    /// Events with their times.
    pub events: Vec<(&'static str, u64)>,
    /// Whether it failed.
    pub failed: bool,
}

/// Whose side a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Within the gateway.
    Internal,
    /// A request that the gateway serves.
    Server,
    /// A request that the gateway sends.
    Client,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// A number.
    Number(u64),
    /// A number with a fraction.
    Float(f64),
    /// Yes or no.
    Is(bool),
}

/// A try at a target that begins.
#[derive(Debug, Clone, Copy)]
pub struct Try<'t> {
    /// Name of the operation; empty on a plain HTTP route.
    pub operation: &'static str,
    /// Vendor or service.
    pub vendor: &'t str,
    /// The vendor's name of the model.
    pub model: &'t str,
    /// Host and port; empty if nobody is asked.
    pub server: &'t str,
}

/// What the ledger knows of a request in its end.
#[derive(Debug)]
pub struct Outcome<'o> {
    /// Id of the request.
    pub request: &'o str,
    /// Route.
    pub route: &'o str,
    /// Id of the virtual key; empty for none.
    pub key: &'o str,
    /// Team; empty for none.
    pub team: &'o str,
    /// Status that the caller read.
    pub status: u16,
    /// Code of the failure.
    pub failure: Option<&'static str>,
    /// How it ended.
    pub ending: &'static str,
    /// What the vendor counted.
    pub usage: Option<&'o Usage>,
    /// US dollars.
    pub cost: Option<f64>,
    /// When the first piece of a streamed answer came.
    pub first_piece: Option<Instant>,
}

impl Tracer {
    /// A tracer, and what its traces come out of. `ratio` is the share of requests that are traced, from 0 to 1; a caller
    /// that has decided already is followed if `follow_parent`.
    #[must_use]
    pub fn new(
        ratio: f64,
        follow_parent: bool,
        queue_max: usize,
        metrics: Arc<Metrics>,
    ) -> (Self, mpsc::Receiver<Finished>) {
        let (queue, finished) = mpsc::channel(queue_max.max(1));
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of 63 bits; `as` saturates"
        )]
        let below = (ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64;
        (Self(Some(Arc::new(Sampler { queue, metrics, below, follow_parent }))), finished)
    }

    /// The trace of a request that has just come in; none if it is not traced. `path` is told as it is: it is empty where it may
    /// hold a secret.
    #[must_use]
    pub fn begin(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Box<Trace>> {
        let sampler = self.0.as_ref()?;
        let parent = Parent::of(headers);
        let id = match &parent {
            Some(parent) => parent.trace,
            None => u128::from(random::u64() | 1) << 64 | u128::from(random::u64()),
        };
        let decided = parent.as_ref().filter(|_| sampler.follow_parent).map(|parent| parent.is_sampled);
        #[allow(clippy::cast_possible_truncation, reason = "the half of the id that is random in every version")]
        let is_sampled = decided.unwrap_or_else(|| (id as u64) >> 1 < sampler.below);
        if !is_sampled {
            return None;
        }
        let clock = Clock::now();
        let mut root = Span::new(String::new(), Kind::Server, clock.begun_ns);
        root.parent = parent.as_ref().map_or(0, |parent| parent.span);
        root.text("http.request.method", method.as_str());
        root.text("url.path", path);
        let (spans, mark, told) = (Vec::new(), clock.begun, Told::default());
        let sampler = Arc::clone(sampler);
        Some(Box::new(Trace { sampler, id, parent, root, clock, mark, spans, attempt: None, beside: None, told }))
    }

    /// The trace of a job, which has no caller.
    #[must_use]
    pub fn begin_job(&self, method: &str, path: &str) -> Option<Box<Trace>> {
        self.0.as_ref()?;
        let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
        let mut trace = self.begin(&method, path, &HeaderMap::new())?;
        trace.root.kind = Kind::Internal;
        Some(trace)
    }
}

impl Trace {
    /// Its id, as it is written.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{:032x}", self.id)
    }

    /// What the tries of this request send on.
    #[must_use]
    pub fn outgoing(&self) -> Outgoing {
        let state = self.parent.as_ref().map(|parent| parent.state.clone());
        Outgoing::new(self.id, self.root.id, state.unwrap_or_default())
    }

    /// A stage has ended; it began where the one before it ended.
    pub fn passed(&mut self, stage: &'static str) {
        let now = Instant::now();
        let mut span = Span::new(stage.to_owned(), Kind::Internal, self.clock.at(self.mark));
        span.time_ns.1 = self.clock.at(now);
        self.mark = now;
        self.push(span);
    }

    /// A try at a target begins, the `number`th from 0.
    pub fn trying(&mut self, number: u32, tried: &Try<'_>) {
        self.close();
        let name = match (tried.operation, tried.model) {
            ("", _) => tried.vendor.to_owned(),
            (operation, "") => operation.to_owned(),
            (operation, model) => format!("{operation} {model}"),
        };
        let mut span = Span::new(cut(&name).to_owned(), Kind::Client, self.clock.at(Instant::now()));
        span.id = Outgoing::span(self.root.id, number);
        if tried.operation.is_empty() {
            span.text("peer.service", tried.vendor);
        } else {
            span.text("gen_ai.operation.name", tried.operation);
            span.text("gen_ai.provider.name", tried.vendor);
            span.text("gen_ai.request.model", tried.model);
        }
        let (host, port) = match tried.server.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
            _ => (tried.server, None),
        };
        span.text("server.address", host);
        span.attributes.extend(port.map(|port: u16| ("server.port", Value::Number(port.into()))));
        self.attempt = Some(span);
    }

    /// The try goes on beside the next one.
    pub fn stays(&mut self) {
        self.beside = self.attempt.take();
    }

    /// Of two tries, the other one is meant from now on.
    pub fn swap(&mut self) {
        std::mem::swap(&mut self.attempt, &mut self.beside);
    }

    /// The try beside is given up, since another has spoken first.
    pub fn outrun(&mut self) {
        if let Some(mut span) = self.beside.take() {
            span.attributes.push(("penstock.outrun", Value::Is(true)));
            self.ends(span);
        }
    }

    /// The try has failed, with the code of the failure.
    pub fn missed(&mut self, code: &'static str) {
        if let Some(attempt) = &mut self.attempt {
            attempt.fail(code);
        }
        self.close();
    }

    /// Reads ids and reasons out of a whole answer to the caller.
    pub fn answer(&mut self, bytes: &[u8]) {
        self.told.whole(bytes);
    }

    /// As [`Self::answer`], out of a piece of a stream.
    pub fn piece(&mut self, bytes: &[u8]) {
        self.told.piece(bytes);
    }

    /// The request has ended. If there is no room in the queue, the trace is dropped and counted.
    pub fn finish(mut self, outcome: &Outcome<'_>) {
        if let Some(attempt) = &mut self.attempt {
            attempt.answered(std::mem::take(&mut self.told), outcome, &self.clock);
        }
        self.close();
        self.outrun();
        let now = self.clock.at(Instant::now());
        let Self { sampler, id, parent, mut root, mut spans, .. } = self;
        root.name = format!("{} {}", method_of(&root), outcome.route);
        root.time_ns.1 = now;
        for (name, text) in [
            ("penstock.request", outcome.request),
            ("penstock.route", outcome.route),
            ("penstock.key", outcome.key),
            ("penstock.team", outcome.team),
            ("penstock.ending", outcome.ending),
        ] {
            root.text(name, text);
        }
        root.attributes.push(("http.response.status_code", Value::Number(outcome.status.into())));
        root.attributes.extend(outcome.cost.map(|cost| ("penstock.cost_usd", Value::Float(cost))));
        if let Some(code) = outcome.failure {
            root.text("error.type", code);
        }
        root.failed = outcome.status >= 500 || outcome.ending == "broken"; // a 4xx is no error of a server
        for span in &mut spans {
            span.parent = root.id;
        }
        spans.insert(0, root);
        let (count, state) = (spans.len() as u64, parent.map(|parent| parent.state).unwrap_or_default());
        if sampler.queue.try_send(Finished { id, state, spans }).is_err() {
            sampler.metrics.spans("dropped-queue", count);
        }
    }

    fn close(&mut self) {
        if let Some(span) = self.attempt.take() {
            self.ends(span);
        }
    }

    fn ends(&mut self, mut span: Span) {
        span.time_ns.1 = self.clock.at(Instant::now());
        self.push(span);
    }

    fn push(&mut self, span: Span) {
        if self.spans.len() < SPANS_MAX {
            self.spans.push(span);
        }
    }
}

impl Span {
    fn new(name: String, kind: Kind, begin_ns: u64) -> Self {
        let (attributes, events) = (Vec::new(), Vec::new());
        let id = random::u64() | 1; // 0 is none
        Self { id, parent: 0, name, kind, time_ns: (begin_ns, begin_ns), attributes, events, failed: false }
    }

    /// An attribute, unless it says nothing.
    fn text(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            self.attributes.push((name, Value::Text(cut(text).to_owned())));
        }
    }

    fn fail(&mut self, code: &'static str) {
        self.text("error.type", code);
        self.failed = true;
    }

    /// What the answer of a try says.
    fn answered(&mut self, told: Told, outcome: &Outcome<'_>, clock: &Clock) {
        if let Some(code) = outcome.failure {
            self.fail(code);
        }
        if let Some(at) = outcome.first_piece {
            let at_ns = clock.at(at);
            let seconds = Duration::from_nanos(at_ns.saturating_sub(self.time_ns.0)).as_secs_f64();
            self.attributes.push(("gen_ai.request.stream", Value::Is(true)));
            self.attributes.push(("gen_ai.response.time_to_first_chunk", Value::Float(seconds)));
            self.events.push(("gen_ai.first_chunk", at_ns));
        }
        self.text("gen_ai.response.id", &told.id);
        self.text("gen_ai.response.model", &told.model);
        if !told.finish.is_empty() {
            self.attributes.push(("gen_ai.response.finish_reasons", Value::Texts(told.finish)));
        }
        let Some(usage) = outcome.usage else { return };
        self.attributes.push(("gen_ai.usage.input_tokens", Value::Number(usage.input_total())));
        self.attributes.push(("gen_ai.usage.output_tokens", Value::Number(usage.output_total())));
        for (name, count) in [
            ("gen_ai.usage.cache_read.input_tokens", usage.cache_read),
            ("gen_ai.usage.cache_creation.input_tokens", usage.cache_write),
            ("gen_ai.usage.reasoning.output_tokens", usage.reasoning),
        ] {
            if count > 0 {
                self.attributes.push((name, Value::Number(count)));
            }
        }
    }
}

/// Times of day that do not jump within a trace.
struct Clock {
    begun: Instant,
    begun_ns: u64,
}

impl Clock {
    fn now() -> Self {
        Self { begun: Instant::now(), begun_ns: nanos(clock::since_1970()) }
    }

    fn at(&self, instant: Instant) -> u64 {
        self.begun_ns.saturating_add(nanos(instant.saturating_duration_since(self.begun)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn method_of(root: &Span) -> &str {
    match root.attributes.first() {
        Some((_, Value::Text(method))) => method,
        _ => "",
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}
