// SPDX-License-Identifier: Apache-2.0
//! Filters, auth, limits and routing, as the gateway sees them. Each stage takes what an earlier one made, so that a wrong
//! order does not compile; each fails closed when its plugin breaks.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use penstock_dialects::ir::Usage;

use crate::directory::{Directory, VirtualKey, now_unix_s};
use crate::failure::{Failure, Kind};
use crate::inbound::wanted;
use crate::plugin::types::{Call, Candidate, Edit, Pair, Reply};
use crate::plugin::{Filter, Limits, Routing};
use crate::routes::{Route, Target};
use crate::state::Memory;
use crate::state::limits::{Algorithm, Charge};
use crate::upstream::Health;

/// Who asks. On a route without auth everybody is the same empty subject.
#[derive(Debug, Clone, Default)]
pub struct Principal {
    /// Name.
    pub subject: String,
    /// Group.
    pub tenant: Option<String>,
    /// Attributes, as facts for later plugins (`auth.<name>`).
    pub attributes: Vec<(String, String)>,
    /// The virtual key that was used.
    pub key: Option<Arc<VirtualKey>>,
}

/// Name of the attribute that binds a principal to a virtual key, as a fact.
const KEY: &str = "auth.virtual-key";

impl Principal {
    /// Somebody with these attributes, bound to the virtual key that they name.
    ///
    /// # Errors
    /// `unauthenticated` if that key is not there any more, or is not accepted.
    pub fn bound(
        subject: String,
        tenant: Option<String>,
        attributes: Vec<(String, String)>,
        directory: &Directory,
    ) -> Result<Self, Failure> {
        let id = attributes.iter().find(|(name, _)| name == KEY);
        let key = id.map(|(_, id)| directory.key(id).filter(|key| key.refusal(now_unix_s()).is_none()));
        match key {
            Some(None) => {
                Err(Failure::new(Kind::Unauthenticated, "this API key is not accepted any more: ask the operator"))
            }
            key => Ok(Self { subject, tenant, attributes, key: key.flatten() }),
        }
    }

    /// Somebody who was let in before: what has been accepted since is done, whatever has become of the key.
    #[must_use]
    pub fn before(
        subject: String,
        tenant: Option<String>,
        attributes: Vec<(String, String)>,
        directory: &Directory,
    ) -> Self {
        let id = attributes.iter().find(|(name, _)| name == KEY);
        let key = id.and_then(|(_, id)| directory.key(id));
        Self { subject, tenant, attributes, key }
    }

    /// Looks whether the virtual key that was used allows an operation.
    ///
    /// # Errors
    /// `forbidden`
    pub fn may_ask_for(&self, operation: &str) -> Result<(), Failure> {
        if self.key.as_ref().is_none_or(|key| key.may_ask_for(operation)) {
            return Ok(());
        }
        let message = format!("this API key may not ask for {operation}: GET /v1/me says what it may");
        Err(Failure::new(Kind::Forbidden, message))
    }

    /// Looks whether the virtual key that was used allows a model, by the name that the caller uses.
    ///
    /// # Errors
    /// `forbidden`
    pub fn may_use(&self, model: &str) -> Result<(), Failure> {
        if self.key.as_ref().is_none_or(|key| key.may_use(model)) {
            return Ok(());
        }
        let what =
            if model.is_empty() { "anything without naming a model".to_owned() } else { format!("the model {model}") };
        let message = format!("this API key may not use {what}: GET /v1/me says what it may");
        Err(Failure::new(Kind::Forbidden, message))
    }

    /// The facts of a request, with what auth knows of the caller.
    #[must_use]
    pub fn facts<'f>(&'f self, known: &[Pair<'f>]) -> Vec<Pair<'f>> {
        let attributes = self.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        known.iter().copied().chain(attributes).collect()
    }
}

/// What the filters want to change in the answer.
#[derive(Default)]
pub struct ResponseEdits {
    edits: Vec<Edit>,
    watching: Vec<Arc<Filter>>,
}

/// Runs the filters of a route over the head of a request and applies their edits to it. Answers with the reply of the
/// filter that wants the request to go no further; what they want of the answer is gathered in `after`.
///
/// # Errors
/// What a filter says, or `plugin-broken`.
pub fn filter(
    route: &Route,
    call: &Call<'_>,
    head: &mut Parts,
    after: &mut ResponseEdits,
) -> Result<Option<Reply>, Failure> {
    for filter in &route.filters {
        let verdict = {
            let headers = wanted(&filter.wants().headers, &head.headers);
            filter
                .request_head(call, head.method.as_str(), head.uri.path(), &headers)
                .map_err(|error| Failure::of_policy(error, Kind::Forbidden))?
        };
        apply(&verdict.request, &mut head.headers);
        after.edits.extend(verdict.response);
        if filter.filters_responses() {
            after.watching.push(Arc::clone(filter));
        }
        if verdict.answer.is_some() {
            return Ok(verdict.answer);
        }
    }
    Ok(None)
}

impl ResponseEdits {
    /// Applies the edits to the head of an answer, and asks the filters that watch answers.
    pub fn apply<B>(&self, call: &Call<'_>, response: &mut Response<B>) {
        for filter in self.watching.iter().rev() {
            let headers = wanted(&filter.wants().response_headers, response.headers());
            let edits = filter.response_head(call, response.status().as_u16(), &headers);
            match edits {
                Ok(edits) => apply(&edits.unwrap_or_default(), response.headers_mut()),
                // The answer is already made; a filter that breaks here must not take it back.
                Err(error) => tracing::warn!(filter = filter.name(), %error, "filter failed on an answer"),
            }
        }
        apply(&self.edits, response.headers_mut());
    }
}

/// Says who asks.
///
/// # Errors
/// `unauthenticated`, `forbidden`, or `plugin-broken`.
pub fn authenticate(
    route: &Route,
    call: &Call<'_>,
    headers: &HeaderMap,
    directory: &Directory,
) -> Result<Principal, Failure> {
    let Some(auth) = &route.auth else { return Ok(Principal::default()) };
    let pairs = wanted(&auth.wants().headers, headers);
    let grant = auth.authenticate(call, &pairs).map_err(|error| Failure::of_policy(error, Kind::Unauthenticated))?;
    let attributes = grant.attributes.into_iter().map(|(name, value)| (format!("auth.{name}"), value)).collect();
    Principal::bound(grant.subject, grant.tenant, attributes, directory)
}

/// Budget that is reserved for a call. Settling it puts the true usage in the place of the estimate; dropping it without
/// settling leaves the estimate.
pub struct Permit {
    state: Arc<Memory>,
    reserved: Vec<Reserved>,
}

struct Reserved {
    limits: Arc<Limits>,
    label: String,
    key: String,
    algorithm: Algorithm,
    limit: u64,
    window_ms: u64,
    counted: Counted,
    cost: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Requests,
    Tokens,
    InputTokens,
    OutputTokens,
}

impl Reserved {
    fn charge(&self) -> Charge<'_> {
        Charge {
            key: &self.key,
            algorithm: self.algorithm,
            limit: self.limit,
            window_ms: self.window_ms,
            cost: self.cost,
        }
    }
}

/// Reserves the budget of a call with every limit of the route. `tokens` is an estimate of the input.
///
/// # Errors
/// `limited` with the time to wait; whatever was taken by then is given back.
pub fn admit(route: &Route, call: &Call<'_>, tokens: u64, state: &Arc<Memory>) -> Result<Option<Permit>, Failure> {
    if route.limits.is_empty() {
        return Ok(None);
    }
    let mut permit = Permit { state: Arc::clone(state), reserved: Vec::new() };
    for limits in &route.limits {
        let checks = limits.plan(call).map_err(|error| Failure::of_policy(error, Kind::Limited))?;
        let mut reserved = Vec::with_capacity(checks.len());
        for check in checks {
            let (algorithm, counted) = known(&check.algorithm, &check.counted, limits.name())?;
            let cost = match counted {
                Counted::Requests => 1,
                Counted::Tokens | Counted::InputTokens => tokens,
                Counted::OutputTokens => 0,
            };
            let (limit, window_ms) = (check.limit, check.window_ms);
            let (limits, label, key) = (Arc::clone(limits), check.label, check.key);
            reserved.push(Reserved { limits, label, key, algorithm, limit, window_ms, counted, cost });
        }
        let charges: Vec<_> = reserved.iter().map(Reserved::charge).collect();
        if let Err(exceeded) = state.take(limits.name(), &charges, Instant::now()) {
            let label = reserved.get(exceeded.index).map_or("a limit", |reserved| reserved.label.as_str());
            permit.give_back();
            let wait = exceeded.retry_after_ms;
            let message = format!("{label} is used up; try again in {} s", wait.div_ceil(1000).max(1));
            return Err(Failure::new(Kind::Limited, message).retry_after(Some(wait)));
        }
        permit.reserved.extend(reserved);
    }
    Ok(Some(permit))
}

impl Permit {
    /// Puts the true usage in the place of the estimate. A call that no upstream served costs no tokens; one that ended
    /// well without telling its usage keeps the estimate.
    pub fn settle(self, usage: Option<&Usage>, status: StatusCode) {
        for reserved in &self.reserved {
            if reserved.algorithm == Algorithm::Concurrency {
                self.state.release(reserved.limits.name(), &reserved.key);
                continue;
            }
            let actual = match (usage, reserved.counted) {
                (_, Counted::Requests) => continue,
                (Some(usage), Counted::Tokens) => usage.total(),
                (Some(usage), Counted::InputTokens) => usage.input_total(),
                (Some(usage), Counted::OutputTokens) => usage.output_total(),
                (None, _) if status.is_success() => continue,
                (None, _) => 0,
            };
            self.correct(reserved, actual);
        }
    }

    fn give_back(&self) {
        for reserved in &self.reserved {
            if reserved.algorithm == Algorithm::Concurrency {
                self.state.release(reserved.limits.name(), &reserved.key);
            } else {
                self.correct(reserved, 0);
            }
        }
    }

    fn correct(&self, reserved: &Reserved, actual: u64) {
        let delta = i64::try_from(actual).unwrap_or(i64::MAX) - i64::try_from(reserved.cost).unwrap_or(i64::MAX);
        if delta != 0 {
            self.state.correct(reserved.limits.name(), &reserved.charge(), delta, Instant::now());
        }
    }
}

fn known(algorithm: &str, counted: &str, plugin: &str) -> Result<(Algorithm, Counted), Failure> {
    let unknown = |word: &str| {
        let message = format!("the limits plugin {plugin} speaks of {word:?}, which this host does not know");
        Failure::new(Kind::PluginBroken, message)
    };
    let algorithm = match algorithm {
        "token-bucket" => Algorithm::TokenBucket,
        "fixed-window" => Algorithm::FixedWindow,
        "concurrency" => Algorithm::Concurrency,
        other => return Err(unknown(other)),
    };
    let counted = match counted {
        "requests" => Counted::Requests,
        "tokens" => Counted::Tokens,
        "input-tokens" => Counted::InputTokens,
        "output-tokens" => Counted::OutputTokens,
        other => return Err(unknown(other)),
    };
    Ok((algorithm, counted))
}

/// Puts the targets of a call in the order in which to try them. Without a routing plugin the order of the policy holds,
/// with targets that the breaker has closed at the end.
///
/// # Errors
/// What the plugin says; `no-target` if it leaves none.
pub fn rank(
    routing: Option<&Arc<Routing>>,
    call: &Call<'_>,
    targets: Vec<Target>,
    seed: u64,
) -> Result<Vec<Target>, Failure> {
    if targets.len() == 1 && routing.is_none() {
        return Ok(targets);
    }
    let now = Instant::now();
    let health = |target: &Target| target.vendor.endpoint.as_ref().map(|endpoint| Arc::clone(&endpoint.health));
    let Some(routing) = routing else {
        let mut targets = targets;
        targets.sort_by_key(|target| health(target).is_some_and(|health| !health.healthy(now)));
        return Ok(targets);
    };
    let candidates: Vec<_> = targets.iter().map(|target| candidate(target, health(target).as_deref(), now)).collect();
    let order = routing.rank(call, &candidates, seed).map_err(|error| Failure::of_policy(error, Kind::NoTarget))?;
    if order.is_empty() {
        return Err(Failure::new(
            Kind::NoTarget,
            format!("no target of {} is left to try; try again later", call.model),
        ));
    }
    Ok(order.into_iter().filter_map(|index| targets.get(index).cloned()).collect())
}

fn candidate<'a>(target: &'a Target, health: Option<&Health>, now: Instant) -> Candidate<'a> {
    Candidate {
        id: &target.id,
        vendor: &target.vendor.name,
        model: &target.model,
        weight: target.weight,
        priority: target.priority,
        healthy: health.is_none_or(|health| health.healthy(now)),
        latency_ms: health.map_or(0, |health| u32::try_from(health.first_byte().as_millis()).unwrap_or(u32::MAX)),
        inflight: health.map_or(0, Health::in_flight),
    }
}

fn apply(edits: &[Edit], headers: &mut HeaderMap) {
    for edit in edits {
        match edit {
            Edit::Set(name, value) => {
                headers.insert(name, value.clone());
            }
            Edit::Add(name, value) => {
                headers.append(name, value.clone());
            }
            Edit::Remove(name) => {
                headers.remove(name);
            }
        }
    }
}
