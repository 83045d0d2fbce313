// SPDX-License-Identifier: Apache-2.0
//! What is counted of a request when it has ended. Everything that has the same route, vendor, model and operation is found
//! together, by one look.

use std::sync::OnceLock;
use std::time::Duration;

use penstock_dialects::ir::Usage;
use penstock_prices::money::Usd;
use penstock_prices::price::{Rate, Unit};
use prometheus::{Counter, Histogram, IntCounter};

use super::Metrics;

/// What the ledger knows of a request in its end.
#[derive(Debug)]
pub struct Ended<'e> {
    /// Route.
    pub route: &'e str,
    /// Vendor or service that answered; empty for none.
    pub vendor: &'e str,
    /// The vendor's name of the model.
    pub model: &'e str,
    /// Operation; empty on a plain HTTP route.
    pub operation: &'e str,
    /// Status that the caller read.
    pub status: u16,
    /// Whether it failed, on our side or the vendor's.
    pub failed: bool,
    /// Time from head to end.
    pub took: Duration,
    /// Time to the first byte of the answer's body.
    pub first_byte: Option<Duration>,
    /// Pieces of a streamed answer.
    pub pieces: Option<Pieces>,
    /// Id of the virtual key; empty for none.
    pub key: &'e str,
    /// Team; empty for none.
    pub team: &'e str,
    /// What the vendor counted.
    pub usage: Option<&'e Usage>,
    /// What it cost, where that is known.
    pub cost: Option<Usd>,
}

/// When the pieces of a streamed answer came.
#[derive(Debug, Clone, Copy)]
pub struct Pieces {
    /// From the head of the request to the first one.
    pub first: Duration,
    /// From the first to the last.
    pub spread: Duration,
}

/// What is counted of requests of one route, vendor, model and operation.
pub(super) struct Line {
    ok: IntCounter,
    duration: Histogram,
    first_byte: Histogram,
    first_token: OnceLock<Option<Histogram>>,
    output_token: OnceLock<Option<Histogram>>,
    tokens: [OnceLock<Option<IntCounter>>; CORE.len()],
    cost: OnceLock<Option<Counter>>,
}

/// What is counted of the requests of one virtual key.
pub(super) struct KeyLine {
    ok: IntCounter,
    failed: IntCounter,
    input: IntCounter,
    output: IntCounter,
    cost: Counter,
}

/// What is counted of tries at one vendor with one outcome.
pub(super) struct TryLine {
    pub(super) count: IntCounter,
    pub(super) time: Histogram,
}

/// Labels of a [`TryLine`].
pub(super) const TRY_LINE: &[&str] = &["vendor", "outcome"];
/// Labels of a [`Line`].
pub(super) const LINE: &[&str] = &["route", "vendor", "model", "operation"];
/// Labels of a [`KeyLine`].
pub(super) const KEY_LINE: &[&str] = &["key", "team"];
/// Status of nearly every request.
const OK: u16 = 200;
/// Kinds of tokens that every usage has.
const CORE: [Rate; 5] = [Rate::Input, Rate::CacheRead, Rate::CacheWrite, Rate::Output, Rate::Reasoning];

impl Metrics {
    /// A request has ended.
    pub fn ended(&self, ended: &Ended<'_>) {
        let Ended { route, vendor, operation, .. } = *ended;
        // Only a vendor that has answered for a model makes its name a label, so that no caller can invent one.
        let is_served = ended.usage.is_some() || ended.pieces.is_some() || ended.cost.is_some();
        let model = if is_served { ended.model } else { "" };
        let make = |values: &[&str]| self.line(values);
        self.lines.with(&[route, vendor, model, operation], make, |line| self.count(line, model, ended));
        if !ended.key.is_empty() || !ended.team.is_empty() {
            let make = |values: &[&str]| self.key_line(values);
            self.key_lines.with(&[ended.key, ended.team], make, |line| line.count(ended));
        }
    }

    fn count(&self, line: &Line, model: &str, ended: &Ended<'_>) {
        let Ended { route, vendor, operation, .. } = *ended;
        if ended.status == OK {
            line.ok.inc();
        } else {
            let status = http::StatusCode::from_u16(ended.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
            self.requests.with(&[route, vendor, operation, status.as_str()], IntCounter::inc);
        }
        line.duration.observe(ended.took.as_secs_f64());
        if let Some(first_byte) = ended.first_byte {
            line.first_byte.observe(first_byte.as_secs_f64());
        }
        if let Some(pieces) = ended.pieces {
            if let Some(time) = line.first_token.get_or_init(|| self.first_token.of(&[vendor, model])) {
                time.observe(pieces.first.as_secs_f64());
            }
            let output = ended.usage.map_or(0, Usage::output_total);
            if let (Ok(further @ 1..), false) = (u32::try_from(output.saturating_sub(1)), pieces.spread.is_zero())
                && let Some(time) = line.output_token.get_or_init(|| self.output_token.of(&[vendor, model]))
            {
                time.observe(pieces.spread.as_secs_f64() / f64::from(further));
            }
        }
        if let Some(usage) = ended.usage {
            self.used(line, [route, vendor, model], usage);
        }
        match ended.cost {
            Some(cost) => {
                if let Some(sum) = line.cost.get_or_init(|| self.cost.of(&[route, vendor, model])) {
                    sum.inc_by(cost.to_f64());
                }
            }
            None if ended.usage.is_some() => self.unpriced.with(&[vendor, model], IntCounter::inc),
            None => {}
        }
    }

    /// The kinds are those of rates, so that no adapter can invent one.
    fn used(&self, line: &Line, [route, vendor, model]: [&str; 3], usage: &Usage) {
        let core = [usage.input, usage.cache_read, usage.cache_write, usage.output, usage.reasoning];
        for ((rate, count), handle) in CORE.iter().zip(core).zip(&line.tokens) {
            if count > 0
                && let Some(tokens) = handle.get_or_init(|| self.tokens.of(&[route, vendor, model, rate.key()]))
            {
                tokens.inc_by(count);
            }
        }
        for (name, count) in &usage.more {
            if let Some(rate) = Rate::of_bucket(name).filter(|rate| *count > 0 && rate.unit() == Unit::MillionTokens) {
                self.tokens.with(&[route, vendor, model, rate.key()], |tokens| tokens.inc_by(*count));
            }
        }
    }

    fn line(&self, values: &[&str]) -> Option<Line> {
        let [route, vendor, _, operation] = *values else { return None };
        Some(Line {
            ok: self.requests.of(&[route, vendor, operation, "200"])?,
            duration: self.duration.of(&[route, vendor, operation])?,
            first_byte: self.first_byte.of(&[route, vendor, operation])?,
            first_token: OnceLock::new(),
            output_token: OnceLock::new(),
            tokens: Default::default(),
            cost: OnceLock::new(),
        })
    }

    fn key_line(&self, values: &[&str]) -> Option<KeyLine> {
        let [key, team] = *values else { return None };
        Some(KeyLine {
            ok: self.key_requests.of(&[key, team, "ok"])?,
            failed: self.key_requests.of(&[key, team, "failed"])?,
            input: self.key_tokens.of(&[key, team, "input"])?,
            output: self.key_tokens.of(&[key, team, "output"])?,
            cost: self.key_cost.of(&[key, team])?,
        })
    }
}

impl KeyLine {
    fn count(&self, ended: &Ended<'_>) {
        if ended.failed {
            self.failed.inc();
        } else {
            self.ok.inc();
        }
        if let Some(usage) = ended.usage {
            self.input.inc_by(usage.input_total());
            self.output.inc_by(usage.output_total());
        }
        if let Some(cost) = ended.cost {
            self.cost.inc_by(cost.to_f64());
        }
    }
}
