// SPDX-License-Identifier: Apache-2.0
//! Accounting: one [`Entry`] for each request. It is a guard: an error, a hang-up and the end of a stream all drop it, and
//! dropping it settles the limits, counts, and writes the access log line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use penstock_dialects::ir::Usage;
use penstock_prices::cost::{self, Cost, Made};
use penstock_prices::price::Price;

use crate::directory::usage::{Used, Who};
use crate::directory::{Directory, VirtualKey, now_unix_s};
use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::routes::Target;
use crate::stages::{Permit, Principal, Refused, Served, Spent, Standing};

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
    /// What is left of the caller's limits, for the headers of the answer.
    pub standing: Option<Standing>,
    permit: Option<Permit>,
    /// What is reserved with the vendor that is being asked.
    vendor_permit: Option<Permit>,
    usage: Option<Usage>,
    partial: bool,
    price: Option<Arc<Price>>,
    begun: Instant,
    first_byte: Option<Instant>,
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
    ) -> Self {
        metrics.begun(&route);
        Self {
            id,
            route,
            operation,
            subject: String::new(),
            tenant: None,
            key: None,
            vendor: Arc::default(),
            model: Arc::default(),
            attempts: 0,
            status: StatusCode::OK,
            failure: None,
            ending: Ending::Abandoned,
            bytes: 0,
            made: Made::default(),
            standing: None,
            permit: None,
            vendor_permit: None,
            usage: None,
            partial: false,
            price: None,
            begun: Instant::now(),
            first_byte: None,
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
        self.attempts += 1;
        self.vendor = Arc::clone(&target.vendor.name);
        self.model = Arc::clone(&target.model);
        self.price.clone_from(&target.price);
        self.vendor_permit = reserved;
    }

    /// Takes what was decided about this request.
    ///
    /// # Errors
    /// The refusal.
    pub fn admitted(&mut self, decided: Result<Option<Permit>, Refused>) -> Result<(), Failure> {
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

    /// Notes a target that answered.
    pub fn answered(&self) {
        self.metrics.attempted(&self.vendor, "ok");
    }

    /// Notes a target that gave no answer.
    pub fn missed(&mut self, failure: &Failure) {
        if let Some(permit) = self.vendor_permit.take() {
            permit.settle(&Spent { served: Served::Tried, usage: None, partial: false, cost: None });
        }
        self.metrics.attempted(&self.vendor, failure.kind.code());
        tracing::warn!(request = %self.id, route = %self.route, vendor = %self.vendor, model = %self.model, %failure, "attempt failed");
    }

    /// Notes the usage; a later note replaces an earlier one.
    pub fn used(&mut self, usage: Usage) {
        self.usage = Some(usage);
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
        let is_served = self.usage.is_some() || (self.bytes > 0 && self.status.is_success() && self.failure.is_none());
        let found = || cost::of(self.price.as_deref(), self.usage.as_ref(), &self.made);
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
    fn key_id(&self) -> &str {
        self.key.as_ref().map_or("", |key| &key.id)
    }

    /// Adds the request to the sums of its key and team, and tells whoever listens.
    fn report(&self, took: Duration, cost: Option<&Cost>) {
        let usage = self.usage.as_ref();
        let (input_tokens, output_tokens) = (usage.map_or(0, Usage::input_total), usage.map_or(0, Usage::output_total));
        let team = self.tenant.as_deref().unwrap_or_default();
        let who = Who { key: self.key_id(), team, subject: &self.subject, vendor: &self.vendor, model: &self.model };
        let failed = self.failure.is_some() || !self.status.is_success();
        let nano_usd = cost.map_or(0, |cost| nano_of(cost.usd.to_f64()));
        self.directory.usage().count(who, Used { failed, input_tokens, output_tokens, nano_usd }, now_unix_s());
        self.directory.feed().request(|| {
            serde_json::json!({
                "request": &*self.id, "route": &*self.route, "operation": self.operation, "subject": &self.subject,
                "key": self.key_id(), "team": team, "vendor": &*self.vendor, "model": &*self.model,
                "status": self.status.as_u16(), "failure": self.failure, "ending": self.ending.name(),
                "ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX), "bytes": self.bytes,
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
        if let Some(code) = self.failure {
            self.metrics.failed(&self.route, code);
        }
        let took = self.begun.elapsed();
        let cost = self.cost();
        self.metrics.ended(&crate::metrics::Ended {
            route: &self.route,
            vendor: &self.vendor,
            model: &self.model,
            operation: self.operation,
            status: self.status.as_u16(),
            took,
            first_byte: self.first_byte.map(|at| at.duration_since(self.begun)),
            usage: self.usage.as_ref(),
            cost: cost.map(|cost| cost.usd),
        });
        self.report(took, cost.as_ref());
        let usage = self.usage.as_ref();
        tracing::info!(
            target: "access",
            request = %self.id,
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
            bytes = self.bytes,
            ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            input_tokens = usage.map_or(0, Usage::input_total),
            output_tokens = usage.map_or(0, Usage::output_total),
            cost_usd = cost.map(|cost| cost.usd.to_f64()),
            cost_stated = cost.map(|cost| cost.stated),
        );
    }
}
