// SPDX-License-Identifier: Apache-2.0
//! One try at one target: the adapter states the request, the upstream is asked, and the head of its answer with the first
//! bytes is at hand when [`Asking::target`] returns. Nothing here retries; the gateway does.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use penstock_dialects::codec::{Codec, Envelope, Operation};
use penstock_dialects::framing::{Kind as Frames, Parser};
use penstock_dialects::ir::{Fault, FaultClass, Usage};

use crate::canonical::Canonical;
use crate::clock;
use crate::directory::pool::Turn;
use crate::failure::{Failure, Kind};
use crate::inbound::{Content, Inbound, wanted};
use crate::outbound::redaction::Redaction;
use crate::outbound::{self, Payload};
use crate::plugin::Exchange;
use crate::plugin::types::{Body as Written, Call, Framing, Pair, Plan, UpstreamRequest};
use crate::relay::pump::{Pump, Relayer, Translator};
use crate::routes::{Target, Vendor};
use crate::stages::{Estimate, Principal};
use crate::traces::Outgoing;
use crate::underway::Underway;
use crate::upstream::{Answer as UpstreamAnswer, Client};

mod beside;
mod journal;
mod limits;
mod reading;
mod realtime;
mod traced;
mod tries;
mod wire;

pub use beside::StandIn;
pub use journal::{Journal, Recorded, Writing};
pub use tries::{Tries, Try};

use journal::{Begun, Heard};
use reading::looks_sound;
use wire::{class_of, event_stream, forwardable, frames, is_json, stream_framing};

/// Largest error body that is read from an upstream.
const ERROR_BYTES_MAX: usize = 1 << 20;
/// A round trip of a job that waits so long first is not counted.
const PATIENT_MS: u64 = 1000;

/// A request that looks for an answer: what all its attempts share.
pub struct Asking<'a> {
    /// Snapshot, route, id, deadline.
    pub underway: &'a Underway,
    client: &'a Client,
    head: &'a Parts,
    inbound: &'a Inbound<'a>,
    principal: &'a Principal,
    journal: Option<&'a dyn Journal>,
    turn: Turn,
    trace: Option<Outgoing>,
    /// Whether the head of a whole answer has come in the attempt that is under way.
    speaks: AtomicBool,
    canonical: OnceLock<Result<Canonical, Failure>>,
}

/// The answer of a target.
pub struct Answer {
    /// Status for the caller.
    pub status: StatusCode,
    /// Headers for the caller.
    pub headers: HeaderMap,
    /// Body for the caller.
    pub content: BodyOf,
    /// What the translation could not carry.
    pub dropped: Vec<String>,
}

/// The body of an answer.
pub enum BodyOf {
    /// All of it.
    Whole {
        /// The bytes.
        body: Bytes,
        /// Tokens, if the answer tells.
        usage: Option<Usage>,
    },
    /// The beginning of a stream.
    Stream {
        /// What turns chunks into the caller's bytes.
        pump: Pump,
        /// What can go out now.
        ready: VecDeque<Bytes>,
        /// Where the rest comes from; none if there is no more.
        rest: Option<UpstreamAnswer>,
    },
}

/// A target that gave no answer.
pub struct Miss {
    /// Why.
    pub failure: Failure,
    /// The vendor's own error answer, in the caller's dialect already.
    pub original: Option<Box<Answer>>,
}

impl From<Failure> for Miss {
    fn from(failure: Failure) -> Self {
        Self { failure, original: None }
    }
}

impl<'a> Asking<'a> {
    /// A request that has passed every stage; `head` is as the filters left it.
    #[must_use]
    pub fn new(
        underway: &'a Underway,
        client: &'a Client,
        head: &'a Parts,
        inbound: &'a Inbound<'a>,
        principal: &'a Principal,
    ) -> Self {
        let (turn, journal, trace) = (Turn::of(&underway.id), None, None);
        let (speaks, canonical) = (AtomicBool::new(false), OnceLock::new());
        Self { underway, client, head, inbound, principal, journal, turn, trace, speaks, canonical }
    }

    /// The same, with a journal that outlives this process.
    #[must_use]
    pub fn with_journal(self, journal: &'a dyn Journal) -> Self {
        Self { journal: Some(journal), ..self }
    }

    /// Tries one target, the `attempt`th. When it is the `last`, even an answer that begins with an error goes to the
    /// caller as it is.
    ///
    /// # Errors
    /// Why there is no answer, with the vendor's own error where the caller can read it. Dropping the future cancels the
    /// upstream request.
    pub async fn target(&self, target: &Target, attempt: u32, last: bool) -> Result<Answer, Miss> {
        self.begins(attempt);
        let tried = self.tried(target, attempt, last).await;
        if let Err(miss) = &tried
            && miss.failure.fault.class == FaultClass::Authentication
        {
            // Some vendors say so inside an answer with status 200, where nobody has looked for it.
            target.vendor.adapter.credential().clear().await;
        }
        tried
    }

    async fn tried(&self, target: &Target, attempt: u32, last: bool) -> Result<Answer, Miss> {
        let adapter = &target.vendor.adapter;
        let asked = self.inbound.asked;
        if !adapter.serves(asked.operation.name()) {
            return Err(self.unsupported(target, "the vendor has no such operation").into());
        }
        let facts = self.facts(target);
        let call = self.call(target, attempt, &facts);
        let canonical = asked.operation.is_canonical();
        // What a vendor has as a job of its own has to be watched by its adapter.
        let relays = adapter.speaks(asked.dialect.name()) && !asked.operation.is_always_a_job();
        if relays || !canonical {
            match self.relayable(target, &call) {
                Err(failure) if failure.kind == Kind::Unsupported && canonical => {}
                relayable => return self.relay(target, relayable?, last).await,
            }
        }
        // On the heap: its round trips take more room than all the rest, and what is relayed has none of them.
        Box::pin(self.translate(target, &call, last)).await
    }

    /// The caller's dialect.
    #[must_use]
    pub fn dialect(&self) -> &'static dyn Codec {
        self.inbound.asked.dialect
    }

    /// Tokens of the request, estimated.
    #[must_use]
    pub fn input_estimate(&self) -> u64 {
        Estimate::input_of(self.inbound)
    }

    /// Whether nothing that has been sent may be sent a second time.
    #[must_use]
    pub fn sends_once(&self) -> bool {
        self.journal.is_some()
    }

    fn unsupported(&self, target: &Target, why: &str) -> Failure {
        let (operation, dialect) = (self.inbound.asked.operation.name(), self.inbound.asked.dialect.name());
        let message = format!("{operation} in {dialect} cannot be served by {}: {why}; name another model", target.id);
        Failure::new(Kind::Unsupported, message)
    }

    fn facts<'f>(&'f self, target: &'f Target) -> Vec<Pair<'f>> {
        let mut facts = vec![("route", &*self.underway.route.name), ("vendor", &*target.vendor.name)];
        if let Some(place) = &self.inbound.asked.place {
            facts.extend([("method", place.method.as_str()), ("path", &place.path), ("query", &place.query)]);
        }
        facts
    }

    fn call<'c>(&'c self, target: &'c Target, attempt: u32, facts: &'c [Pair<'c>]) -> Call<'c> {
        let left = self.underway.deadline.saturating_duration_since(Instant::now()).as_millis();
        Call {
            id: &self.underway.id,
            operation: self.inbound.asked.operation.name(),
            dialect: self.inbound.asked.dialect.name(),
            model: &target.model,
            streaming: self.inbound.streaming,
            attempt,
            deadline_ms: u32::try_from(left).unwrap_or(u32::MAX),
            subject: self.underway.route.auth.is_some().then_some(&*self.principal.subject),
            tenant: self.principal.tenant.as_deref(),
            facts,
        }
    }

    // -- same dialect

    /// What the adapter would send for a relay.
    fn relayable(&self, target: &Target, call: &Call<'_>) -> Result<Arc<UpstreamRequest>, Failure> {
        let adapter = &target.vendor.adapter;
        let headers = wanted(&adapter.wants().headers, &self.head.headers);
        let wants = adapter.wants().members.iter();
        let members = wants.filter_map(|name| Some((name.as_str(), self.inbound.content.member(name)?)));
        let request = adapter.relay(call, &headers, &members.collect::<Vec<_>>()).map_err(Failure::of_adapter)?;
        self.refuse_dropped(&request)?;
        Ok(request)
    }

    async fn relay(&self, target: &Target, request: Arc<UpstreamRequest>, last: bool) -> Result<Answer, Miss> {
        let payload = match &request.body {
            Written::None => Payload::default(),
            Written::Bytes(bytes) => Payload::json(Bytes::copy_from_slice(bytes)),
            Written::Splice(edits) => self.splice(edits),
        };
        let answer = self.ask(target, &request, 0, payload).await?;
        if !answer.status().is_success() {
            return Err(self.rejected(answer, &target.vendor, true).await);
        }
        let mut answer = self.relayed(answer, last).await?;
        answer.dropped.clone_from(&request.dropped);
        Ok(answer)
    }

    fn splice(&self, edits: &[(String, String)]) -> Payload {
        let edits: Vec<_> = edits.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let bytes = match &self.inbound.content {
            Content::Json(members) => {
                let unchanged = edits.iter().all(|(name, value)| members.get(name).unwrap_or_default() == *value);
                if unchanged { self.inbound.body.clone() } else { members.splice(&edits).into() }
            }
            Content::Form(form) => form.splice(&edits).into(),
            Content::Raw => self.inbound.body.clone(),
        };
        Payload { bytes, media_type: self.inbound.media_type.cloned() }
    }

    async fn relayed(&self, answer: Response<UpstreamAnswer>, last: bool) -> Result<Answer, Miss> {
        let (head, mut body) = answer.into_parts();
        let asked = self.inbound.asked;
        let framing = stream_framing(&head.headers, asked.array && self.inbound.streaming);
        let is_text = is_json(&head.headers);
        let headers = forwardable(head.headers);
        let (status, dropped) = (head.status, Vec::new());
        if !asked.operation.is_canonical() && (framing.is_some() || !is_text) {
            // Sound, a file, a vendor's own stream: nobody but the caller reads it.
            let content = BodyOf::Stream { pump: Pump::Bytes, ready: VecDeque::new(), rest: Some(body) };
            return Ok(Answer { status, headers, content, dropped });
        }
        let canonical = asked.operation.is_canonical();
        let Some(framing) = framing else {
            let body = self.collect_whole(body).await?;
            if canonical && !looks_sound(&body) {
                return Err(self.no_answer("is not JSON, or not all of it").into());
            }
            if self.inbound.streaming && asked.operation == Operation::Chat {
                return Err(self.no_answer("is no stream, which the caller asked for").into());
            }
            let usage = asked.dialect.whole_usage(&body);
            return Ok(Answer { status, headers, content: BodyOf::Whole { body, usage }, dropped });
        };
        let parser = self.parser(framing);
        let is_json = canonical && framing != Frames::AwsEventStream;
        let mut pump = Pump::Relay(Relayer::new(asked.dialect, parser, is_json, &self.plain_envelope()));
        let mut ready = VecDeque::new();
        let more = self.first_bytes(&mut body, &mut pump, &mut ready, !last).await?;
        let rest = more.then_some(body);
        Ok(Answer { status, headers, content: BodyOf::Stream { pump, ready, rest }, dropped })
    }

    // -- another dialect

    async fn translate(&self, target: &Target, call: &Call<'_>, last: bool) -> Result<Answer, Miss> {
        let adapter = &target.vendor.adapter;
        let canonical = self.canonical()?;
        let headers = wanted(&adapter.wants().headers, &self.head.headers);
        let json = canonical.json(&target.model);
        let (exchange, plan) = adapter.open(call, &headers, &json, &canonical.blobs()).map_err(Failure::of_adapter)?;
        match plan {
            Plan::Answer(events) => {
                let mut translator = self.translator(exchange, None);
                let mut ready = VecDeque::new();
                translator.answer(&events, &mut ready);
                self.closed(translator, ready, Vec::new())
            }
            Plan::Ask(request) => {
                let mut answer = self.rounds(target, exchange, &request, last).await?;
                answer.dropped.clone_from(&request.dropped);
                Ok(answer)
            }
        }
    }

    /// The round trips of one exchange: mostly one.
    async fn rounds(
        &self,
        target: &Target,
        exchange: Exchange,
        request: &UpstreamRequest,
        last: bool,
    ) -> Result<Answer, Miss> {
        let mut ready = VecDeque::new();
        let mut request = Cow::Borrowed(request);
        let mut translator = self.translator(exchange, None);
        let mut begun = Begun::new(self.client, &target.vendor, self.journal, &self.turn);
        let (mut step, mut rounds, mut misses) = (0, 0, 0);
        while rounds < self.underway.snapshot.limits.round_trips_max {
            self.refuse_dropped(&request)?;
            let journal = self.journal.filter(|_| request.method != Method::GET);
            let recorded = journal.and_then(|journal| journal.recorded(&target.id, step));
            let known = recorded.is_some();
            let answer = match recorded {
                Some(recorded) => recorded,
                None => match self.round(target, &request, step, &mut translator).await {
                    Ok(Heard::Whole(heard)) => heard,
                    Ok(Heard::Stream(body)) => {
                        begun.done();
                        return self.streamed(translator, body, last).await;
                    }
                    Err(miss) => {
                        let again = begun.asks_again(&miss.failure, misses);
                        let Some(pause) = again.filter(|_| step > 0 && request.method == Method::GET) else {
                            return Err(miss);
                        };
                        tracing::warn!(request = %self.underway.id, target = %target.id, failure = %miss.failure, "asking again how the work is doing");
                        misses += 1;
                        tokio::time::sleep(pause).await;
                        continue;
                    }
                },
            };
            misses = 0;
            let headers: Vec<_> = answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let round = translator.finish(answer.status, &headers, &answer.body, &mut ready);
            let round = round.inspect_err(|failure| begun.judged(failure))?;
            let Some(next) = round.next else {
                begun.done();
                return self.closed(translator, ready, Vec::new());
            };
            begun.cancel_by(round.cancel);
            if let Some(journal) = journal.filter(|_| !known) {
                journal.record(&target.id, step, &answer).await;
            }
            step += u32::from(request.method != Method::GET);
            // A job may wait longer than a caller; what bounds it is its deadline.
            rounds += u32::from(self.journal.is_none() || u64::from(next.after_ms) < PATIENT_MS);
            request = Cow::Owned(next);
        }
        let message = format!("{} was not done after limits.round_trips_max round trips", target.id);
        Err(Failure::new(Kind::UpstreamTimeout, message).into())
    }

    /// One round trip.
    async fn round(
        &self,
        target: &Target,
        request: &UpstreamRequest,
        step: u32,
        translator: &mut Translator,
    ) -> Result<Heard, Miss> {
        let adapter = &target.vendor.adapter;
        let payload = match &request.body {
            Written::None => Payload::default(),
            Written::Bytes(bytes) => Payload::json(self.canonical()?.restore(bytes.clone())),
            Written::Splice(edits) => self.splice(edits),
        };
        let answer = self.ask(target, request, step, payload).await?;
        if !answer.status().is_success() {
            return Err(self.rejected(answer, &target.vendor, false).await);
        }
        let (head, body) = answer.into_parts();
        // A vendor may answer whole where a stream was asked for: an error, or a feature that it cannot stream.
        let whole = is_json(&head.headers) && request.framing != Framing::JsonArray;
        if let Some(framing) = frames(request.framing).filter(|_| !whole) {
            translator.cut_into(self.parser(framing));
            return Ok(Heard::Stream(body));
        }
        let body = self.collect_whole(body).await?;
        let headers = wanted(&adapter.wants().response_headers, &head.headers).into_iter();
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Heard::Whole(Recorded { status: head.status.as_u16(), headers, body }))
    }

    async fn streamed(&self, translator: Translator, mut body: UpstreamAnswer, last: bool) -> Result<Answer, Miss> {
        let mut ready = VecDeque::new();
        if !self.inbound.streaming {
            // The vendor streams although the caller did not ask: fold it.
            self.speaks.store(true, Ordering::Relaxed);
            let mut translator = translator;
            while let Some(chunk) = self.next(&mut body).await? {
                translator.chunk(&chunk, &mut ready)?;
            }
            translator.end(&mut ready)?;
            return self.whole(translator, Vec::new());
        }
        let mut pump = Pump::Translate(Box::new(translator));
        let more = self.first_bytes(&mut body, &mut pump, &mut ready, !last).await?;
        let rest = more.then_some(body);
        let content = BodyOf::Stream { pump, ready, rest };
        Ok(Answer { status: StatusCode::OK, headers: self.stream_head(), content, dropped: Vec::new() })
    }

    /// The answer is complete within the translator.
    fn closed(
        &self,
        mut translator: Translator,
        mut ready: VecDeque<Bytes>,
        dropped: Vec<String>,
    ) -> Result<Answer, Miss> {
        if let Some(fault) = translator.fault() {
            return Err(Failure::refused(fault.clone()).into());
        }
        if !self.inbound.streaming || self.inbound.asked.operation != Operation::Chat {
            return self.whole(translator, dropped);
        }
        translator.close(&mut ready)?;
        let pump = Pump::Translate(Box::new(translator));
        let content = BodyOf::Stream { pump, ready, rest: None };
        Ok(Answer { status: StatusCode::OK, headers: self.stream_head(), content, dropped })
    }

    fn whole(&self, translator: Translator, dropped: Vec<String>) -> Result<Answer, Miss> {
        if let Some(fault) = translator.fault() {
            return Err(Failure::refused(fault.clone()).into());
        }
        let usage = translator.usage().cloned();
        let dialect = self.inbound.asked.dialect;
        let mut response = translator.into_response();
        let body = match self.inbound.asked.operation {
            Operation::Chat => dialect.encode_response(&response, &self.envelope()),
            Operation::CountTokens => dialect.encode_count(&usage.clone().unwrap_or_default()),
            operation => {
                self.canonical()?.settle(&mut response);
                if let Some(fault) = response.fault {
                    return Err(Failure::refused(fault).into());
                }
                dialect.encode_result(operation, &response, &self.envelope())
            }
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Answer { status: StatusCode::OK, headers, content: BodyOf::Whole { body: body.into(), usage }, dropped })
    }

    fn translator(&self, exchange: Exchange, parser: Option<Parser>) -> Translator {
        let asked = self.inbound.asked;
        if self.inbound.streaming && asked.operation == Operation::Chat {
            Translator::streaming(exchange, parser, asked.dialect.stream_encoder(&self.envelope()))
        } else {
            Translator::whole(exchange, parser)
        }
    }

    fn envelope(&self) -> Envelope {
        let stream_usage = self.canonical().is_ok_and(Canonical::stream_usage);
        Envelope { stream_usage, ..self.plain_envelope() }
    }

    /// The envelope of a caller whose body has not been read.
    fn plain_envelope(&self) -> Envelope {
        Envelope {
            request_id: self.underway.id.to_string(),
            model: self.inbound.model.clone(),
            created: clock::unix_s(),
            stream_usage: false,
            array: self.inbound.asked.array,
            begun: false,
        }
    }

    fn stream_head(&self) -> HeaderMap {
        event_stream(self.inbound.asked.dialect.stream_type(&self.plain_envelope()))
    }

    fn parser(&self, framing: Frames) -> Parser {
        Parser::new(framing, self.underway.snapshot.limits.frame_bytes_max)
    }

    fn canonical(&self) -> Result<&Canonical, Failure> {
        let read = || {
            let blob_bytes_min = self.underway.snapshot.limits.blob_bytes_min;
            Canonical::read(self.inbound, blob_bytes_min)
        };
        self.canonical.get_or_init(read).as_ref().map_err(Clone::clone)
    }

    // -- both

    fn refuse_dropped(&self, request: &UpstreamRequest) -> Result<(), Failure> {
        if !self.underway.route.strict || request.dropped.is_empty() {
            return Ok(());
        }
        let message = format!("this route is strict, and the vendor has no place for: {}", request.dropped.join(", "));
        Err(Failure::new(Kind::NotCarried, message))
    }

    /// Sends a request and waits for the head of the answer.
    async fn ask(
        &self,
        target: &Target,
        request: &UpstreamRequest,
        step: u32,
        payload: Payload,
    ) -> Result<Response<UpstreamAnswer>, Failure> {
        if request.after_ms > 0 {
            tokio::time::sleep(Duration::from_millis(request.after_ms.into())).await;
        }
        if let Some(journal) = self.journal.filter(|_| request.method != Method::GET) {
            journal.sending(&target.id, step).await?;
        }
        outbound::send(self.client, &target.vendor, request, payload, &self.turn, self.trace.as_ref()).await
    }

    /// An answer that is not 2xx.
    async fn rejected(&self, answer: Response<UpstreamAnswer>, vendor: &Vendor, same_dialect: bool) -> Miss {
        let (adapter, (mut head, mut body)) = (&vendor.adapter, answer.into_parts());
        let body = match self.collect(&mut body, ERROR_BYTES_MAX).await {
            Ok(body) => body,
            Err(failure) => return failure.into(),
        };
        let token = adapter.credential().held().await;
        let redaction = Redaction::of(vendor, token.as_deref());
        let body = redaction.body(body);
        redaction.headers(&mut head.headers);
        let headers = wanted(&adapter.wants().response_headers, &head.headers);
        let fault = adapter.reject(head.status.as_u16(), &headers, &body).unwrap_or_else(|error| {
            tracing::warn!(adapter = adapter.name(), %error, "adapter failed to classify an error");
            Fault::new(class_of(head.status), format!("the upstream answered {}", head.status))
        });
        let original = same_dialect.then(|| {
            let content = BodyOf::Whole { body, usage: None };
            Box::new(Answer { status: head.status, headers: forwardable(head.headers), content, dropped: Vec::new() })
        });
        Miss { failure: Failure::refused(fault), original }
    }
}
