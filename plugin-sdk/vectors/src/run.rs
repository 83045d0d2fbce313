// SPDX-License-Identifier: Apache-2.0
//! Runs a case with a subject.

use std::collections::BTreeMap;

use penstock_dialects::collect::Collector;
use penstock_dialects::framing::{Frame, Kind};
use penstock_dialects::ir::{Event, Fault};
use serde_json::{Map, Value, json};

use crate::case::{Answer, Ask, Blob, Call, Case, Exchange, Pairs};
use crate::compare::differences;
use crate::cut;

/// What a case came to: its parts by name, as the case's `expect` has them.
pub type Outcome = Map<String, Value>;

/// A plugin, natively or as a component.
pub trait Subject {
    /// Configures the plugin anew: what it wants (`{"headers": [], "response_headers": [], "members": []}`).
    ///
    /// # Errors
    /// Its issues (`[{"path", "message"}]`), or how it broke.
    fn configure(&mut self, config: &Value, secrets: &BTreeMap<String, String>) -> Result<Value, Unfit>;

    /// Asks what is not an exchange (`Relay`, `Reject`, `Authenticate`, `Plan`, `Rank`, `RequestHead`, `ResponseHead`): the
    /// part of the outcome, without its name.
    ///
    /// # Errors
    /// The plugin's fault, or how it broke. The answer to `Reject` is a fault.
    fn ask(&mut self, call: &Call, ask: &Ask) -> Result<Value, Failed>;

    /// Opens an exchange; it takes the place of the one before.
    ///
    /// # Errors
    /// The plugin's fault, or how it broke.
    fn open(&mut self, call: &Call, headers: &Pairs, body: &[u8], blobs: &[Blob]) -> Result<Plan, Failed>;

    /// Gives frames to the open exchange.
    ///
    /// # Errors
    /// The plugin's fault, or how it broke.
    fn frames(&mut self, frames: &[Frame<'_>]) -> Result<Vec<Event>, Failed>;

    /// Ends an answer of the open exchange: the last events, and perhaps another request.
    ///
    /// # Errors
    /// The plugin's fault, or how it broke.
    fn finish(&mut self, status: u16, headers: &Pairs, body: &[u8]) -> Result<(Vec<Event>, Option<Upstream>), Failed>;
}

/// Why a plugin could not be configured.
#[derive(Debug)]
pub enum Unfit {
    /// Its issues as JSON.
    Issues(Value),
    /// The host has refused the configuration by the plugin's schema, before the plugin saw it: how. A case that expects
    /// issues passes, since the plugin's own words are not heard then.
    Schema(String),
    /// It broke.
    Broken(String),
}

/// Why a plugin gave no answer.
#[derive(Debug)]
pub enum Failed {
    /// It refused.
    Fault(Fault),
    /// It broke: a trap, a deadline.
    Broken(String),
}

/// How an adapter goes about a call.
#[derive(Debug)]
pub enum Plan {
    /// Ask the vendor.
    Ask(Upstream),
    /// Answer at once.
    Answer(Vec<Event>),
}

/// A request to the vendor.
#[derive(Debug)]
pub struct Upstream {
    /// As JSON: `method`, `path`, `query` and `headers` (each `["name", "text"]` or `["name", {"prefix", "secret"}]`), `body`
    /// (JSON, text, `{"splice": {name: raw JSON}}` or null), `framing`, `after_ms`, `dropped`; a list that is empty and a
    /// wait of 0 are left out.
    pub json: Value,
    /// How a streamed answer is cut; none if it comes whole.
    pub framing: Option<Kind>,
}

/// The part of an outcome that says how the schema refused the configuration.
const SCHEMA: &str = "schema";

/// Runs a case: its outcome.
///
/// # Errors
/// What differs from the expectation, a line each, or how the plugin broke.
pub fn run(case: &Case, subject: &mut impl Subject) -> Result<Outcome, Vec<String>> {
    let outcome = outcome(case, subject).map_err(|broken| vec![broken])?;
    if outcome.contains_key(SCHEMA) && case.expect.contains_key("issues") {
        return Ok(outcome);
    }
    let differences = differences(&case.expect, &outcome);
    if differences.is_empty() { Ok(outcome) } else { Err(differences) }
}

/// The outcome of a case, whatever is expected.
///
/// # Errors
/// How the plugin broke, or how its events depend on where the stream is cut.
pub fn outcome(case: &Case, subject: &mut impl Subject) -> Result<Outcome, String> {
    let mut outcome = Outcome::new();
    match subject.configure(&case.config, &case.secrets) {
        Ok(wants) if matches!(case.ask, Ask::Configure {}) => part(&mut outcome, "wants", wants),
        Ok(_) => answer(case, subject, &mut outcome)?,
        Err(Unfit::Issues(issues)) => part(&mut outcome, "issues", issues),
        Err(Unfit::Schema(how)) => part(&mut outcome, SCHEMA, Value::String(how)),
        Err(Unfit::Broken(how)) => return Err(format!("configure: {how}")),
    }
    Ok(outcome)
}

fn answer(case: &Case, subject: &mut impl Subject, outcome: &mut Outcome) -> Result<(), String> {
    let name = match &case.ask {
        Ask::Exchange(exchange) => return whole_exchange(case, exchange, subject, outcome),
        Ask::Configure {} => return Ok(()),
        Ask::Relay { .. } => "upstream",
        Ask::Reject(_) => "fault",
        Ask::Authenticate { .. } => "grant",
        Ask::Plan { .. } => "checks",
        Ask::Rank { .. } => "order",
        Ask::RequestHead { .. } => "verdict",
        Ask::ResponseHead { .. } => "edits",
    };
    match subject.ask(&case.call, &case.ask) {
        Ok(value) => part(outcome, name, value),
        Err(failed) => part(outcome, "fault", fault(failed)?),
    }
    Ok(())
}

/// An exchange, with every grouping of the frames that a cut of the stream can lead to.
fn whole_exchange(
    case: &Case,
    exchange: &Exchange,
    subject: &mut impl Subject,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let mut cuts = Cuts::default();
    *outcome = one_exchange(case, exchange, subject, Batches::All, &mut cuts)?;
    let most = cuts.values().map(Vec::len).max().unwrap_or(0);
    let two = (1..most).map(|before| Batches::Two { before });
    for batches in std::iter::once(Batches::Single).chain(two).filter(|_| most > 1) {
        if one_exchange(case, exchange, subject, batches, &mut cuts)? != *outcome {
            return Err(format!("the events depend on where the stream is cut: they change with {batches:?}"));
        }
    }
    Ok(())
}

/// The frames of the answers that came as streams, by the position of the answer.
type Cuts = BTreeMap<usize, Vec<cut::Kept>>;

/// How the frames of a stream are grouped.
#[derive(Debug, Clone, Copy)]
enum Batches {
    /// All at once.
    All,
    /// One by one.
    Single,
    /// So many, then the rest.
    Two { before: usize },
}

fn one_exchange(
    case: &Case,
    exchange: &Exchange,
    subject: &mut impl Subject,
    batches: Batches,
    cuts: &mut Cuts,
) -> Result<Outcome, String> {
    let mut outcome = Outcome::new();
    let mut events = Vec::new();
    let body = if exchange.body.is_null() { Vec::new() } else { exchange.body.to_string().into_bytes() };
    let mut asked = match subject.open(&case.call, &exchange.headers, &body, &exchange.blobs) {
        Ok(Plan::Ask(upstream)) => Some(upstream),
        Ok(Plan::Answer(answer)) => {
            events = answer;
            None
        }
        Err(failed) => {
            part(&mut outcome, "fault", fault(failed)?);
            return Ok(outcome);
        }
    };
    let mut answers = exchange.answers.iter().enumerate();
    let mut next = Vec::new();
    while let Some(Upstream { json, framing }) = asked.take() {
        if outcome.contains_key("upstream") {
            next.push(json);
        } else {
            part(&mut outcome, "upstream", json);
        }
        let Some((index, answer)) = answers.next() else { break };
        if !(200..300).contains(&answer.status) {
            let rejected = match subject.ask(&case.call, &Ask::Reject(answer.clone())) {
                Ok(rejected) => rejected,
                Err(failed) => fault(failed)?,
            };
            part(&mut outcome, "fault", rejected);
            break;
        }
        let frames = match framing {
            Some(kind) if !cuts.contains_key(&index) => {
                Some(&*cuts.entry(index).or_insert(cut::frames(kind, &answer.bytes())?))
            }
            framing => framing.and_then(|_| cuts.get(&index)),
        };
        match round(subject, answer, frames, batches, &mut events) {
            Ok(further) => asked = further,
            Err(failed) => part(&mut outcome, "fault", fault(failed)?),
        }
    }
    if answers.next().is_some() && !outcome.contains_key("fault") {
        return Err("the case has more answers than the plugin asks for".to_owned());
    }
    if !next.is_empty() {
        part(&mut outcome, "next", Value::Array(next));
    }
    if !events.is_empty() {
        add_events(&mut outcome, &events);
    }
    Ok(outcome)
}

/// One round trip of an exchange.
fn round(
    subject: &mut impl Subject,
    answer: &Answer,
    frames: Option<&Vec<cut::Kept>>,
    batches: Batches,
    events: &mut Vec<Event>,
) -> Result<Option<Upstream>, Failed> {
    let (last, next) = match frames {
        None => subject.finish(answer.status, &answer.headers, &answer.bytes())?,
        Some(kept) => {
            let frames: Vec<_> = kept.iter().map(cut::Kept::frame).collect();
            let (first, second) = match batches {
                Batches::All => frames.split_at(frames.len()),
                Batches::Single => frames.split_at(0),
                Batches::Two { before } => frames.split_at(before.min(frames.len())),
            };
            if !first.is_empty() {
                events.extend(subject.frames(first)?);
            }
            let size = if matches!(batches, Batches::Single) { 1 } else { second.len().max(1) };
            for batch in second.chunks(size) {
                events.extend(subject.frames(batch)?);
            }
            subject.finish(answer.status, &answer.headers, &[])?
        }
    };
    events.extend(last);
    Ok(next)
}

/// The events as they came, and what they fold into.
fn add_events(outcome: &mut Outcome, events: &[Event]) {
    let mut collector = Collector::default();
    for event in events {
        collector.event(event);
    }
    part(outcome, "events", json!(events));
    part(outcome, "response", json!(collector.finish()));
}

fn part(outcome: &mut Outcome, name: &str, value: Value) {
    outcome.insert(name.to_owned(), value);
}

fn fault(failed: Failed) -> Result<Value, String> {
    match failed {
        Failed::Fault(fault) => Ok(json!(fault)),
        Failed::Broken(how) => Err(how),
    }
}
