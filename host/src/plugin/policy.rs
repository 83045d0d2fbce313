// SPDX-License-Identifier: Apache-2.0
//! Configured plugins of the kinds that decide: auth, limits, routing, filters. Each is one crossing by value; calls
//! are synchronous and end within `sandbox.policy_ms`.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use super::bindings::exports::penstock::plugin::{auth, head_filter, limits, response_filter, routing};
use super::breaks::Condition;
use super::convert::{self, faulted};
use super::gate::Further;
use super::imports::Imports;
use super::memo::{Asked, Memo};
use super::order::Order;
use super::pool::{Pool, Role};
use super::types::{Call, CallError, Candidate, Check, Counted, Edit, Pair, Part, Rule, Verdict, Wants, Whose};

/// Bytes of a filter's own answer that is kept.
const KEPT_BODY_BYTES_MAX: usize = 4 << 10;

/// A configured limits plugin.
pub struct Limits {
    pool: Arc<Pool<limits::Guest>>,
    plans: Memo<Box<[Check]>>,
    /// Of counters of vendors.
    of_vendors: String,
}

impl Limits {
    pub(super) fn new(pool: Arc<Pool<limits::Guest>>, wants: Wants) -> Self {
        let of_vendors = format!("vendors.{}", pool.shared().name);
        Self { pool, plans: Memo::new(wants.alike, |_| true), of_vendors }
    }

    pub(super) fn instances(&self) -> u32 {
        self.pool.instances()
    }

    pub(super) fn condition(&self) -> Condition {
        self.pool.condition()
    }

    /// Name of the configured plugin, and the namespace of its counters.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.pool.shared().name
    }

    /// Counts a call that a counter of this plugin does not admit.
    pub fn refused(&self, counted: Counted, scope: &'static str) {
        self.pool.shared().series.host.refused(counted.name(), scope);
    }

    /// The counters that a call is charged to. `rules` are those that it is under, for plugins that ask for them.
    ///
    /// # Errors
    /// The plugin's fault, or that it broke.
    pub fn plan(&self, whose: Whose, call: &Call<'_>, rules: &Arc<[Rule]>) -> Result<Arc<Box<[Check]>>, CallError> {
        let namespace = match whose {
            Whose::Callers => self.name(),
            Whose::Vendors => &self.of_vendors,
        };
        let plan = |store: &mut Store<Imports>, guest: &limits::Guest| {
            store.data_mut().rules = Arc::clone(rules);
            let planned = guest.call_plan(&mut *store, convert::call(call));
            store.data_mut().rules = Arc::default();
            planned
        };
        self.plans.answer(&Asked { call: *call, rules, place: namespace, ..Asked::default() }, || {
            let checks = self.pool.call("limits.plan", plan)?.map_err(faulted)?;
            convert::checks(namespace, checks).map_err(|invalid| invalid.broken(self.name()))
        })
    }
}

/// A configured routing plugin.
pub struct Routing {
    pool: Arc<Pool<routing::Guest>>,
    wants: Wants,
    orders: Memo<Order>,
    /// Whether it looks at how fast and how busy targets are.
    sees_load: bool,
}

impl Routing {
    pub(super) fn new(pool: Arc<Pool<routing::Guest>>, wants: Wants) -> Self {
        let sees_load = wants.alike.as_ref().is_none_or(|alike| alike.0.contains(&Part::Load));
        let orders = Memo::new(wants.alike.clone().filter(|_| !sees_load), |_| true);
        Self { pool, wants, orders, sees_load }
    }

    pub(super) fn instances(&self) -> u32 {
        self.pool.instances()
    }

    pub(super) fn condition(&self) -> Condition {
        self.pool.condition()
    }

    /// Name of the configured plugin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.pool.shared().name
    }

    /// What it wants to know of each call.
    #[must_use]
    pub fn wants(&self) -> &Wants {
        &self.wants
    }

    /// Groups of indices into `candidates`, each at most once, in the order in which to try them. `wanted` are the facts that
    /// it wants of this call.
    ///
    /// # Errors
    /// The plugin's fault, or that it broke.
    pub fn rank(
        &self,
        call: &Call<'_>,
        wanted: &[Pair<'_>],
        candidates: &[Candidate<'_>],
        seed: u64,
    ) -> Result<Arc<Order>, CallError> {
        self.orders.answer(&Asked { call: *call, headers: wanted, candidates, ..Asked::default() }, || {
            let targets: Vec<_> = candidates.iter().map(|candidate| target(candidate, self.sees_load)).collect();
            let seen = self.wants.alike.as_ref().map_or(*call, |alike| alike.seen(call));
            let facts = [seen.facts, wanted].concat();
            let call = Call { facts: &facts, ..seen };
            let rank = |store: &mut Store<Imports>, guest: &routing::Guest| {
                guest.call_rank(store, convert::call(&call), &targets, seed)
            };
            let order = self.pool.call("routing.rank", rank)?.map_err(faulted)?;
            convert::order(order, candidates.len()).map_err(|invalid| invalid.broken(self.name()))
        })
    }
}

/// A configured filter.
pub struct Filter {
    pool: Arc<Pool<FilterRole>>,
    wants: Wants,
    verdicts: Memo<Verdict>,
    filters_responses: bool,
}

impl Filter {
    pub(super) fn new(pool: Arc<Pool<FilterRole>>, wants: Wants, filters_responses: bool) -> Self {
        let is_small =
            |verdict: &Verdict| verdict.answer.as_ref().is_none_or(|answer| answer.body.len() <= KEPT_BODY_BYTES_MAX);
        let verdicts = Memo::new(wants.alike.clone(), is_small);
        Self { pool, wants, verdicts, filters_responses }
    }

    pub(super) fn instances(&self) -> u32 {
        self.pool.instances()
    }

    pub(super) fn condition(&self) -> Condition {
        self.pool.condition()
    }

    /// Name of the configured plugin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.pool.shared().name
    }

    /// What it wants to see of each call.
    #[must_use]
    pub fn wants(&self) -> &Wants {
        &self.wants
    }

    /// Whether it sees the heads of answers.
    #[must_use]
    pub fn filters_responses(&self) -> bool {
        self.filters_responses
    }

    /// What it makes of the head of a request. `headers` are those of [`Self::wants`] that the request has.
    ///
    /// # Errors
    /// The plugin's fault, or that it broke.
    pub fn request_head(
        &self,
        call: &Call<'_>,
        method: &str,
        path: &str,
        headers: &[Pair<'_>],
    ) -> Result<Arc<Verdict>, CallError> {
        let request_head = |store: &mut Store<Imports>, guest: &FilterRole| {
            guest.request.call_request_head(store, convert::call(call), method, path, headers)
        };
        self.verdicts.answer(&Asked { call: *call, method, path, headers, ..Asked::default() }, || {
            let verdict = self.pool.call("head-filter.request-head", request_head)?.map_err(faulted)?;
            convert::verdict(verdict).map_err(|invalid| invalid.broken(self.name()))
        })
    }

    /// What it makes of the head of an answer; none if it does not look at answers.
    ///
    /// # Errors
    /// The plugin's fault, or that it broke.
    pub fn response_head(
        &self,
        call: &Call<'_>,
        status: u16,
        headers: &[Pair<'_>],
    ) -> Result<Option<Vec<Edit>>, CallError> {
        if !self.filters_responses {
            return Ok(None);
        }
        let response_head = |store: &mut Store<Imports>, guest: &FilterRole| match &guest.response {
            Some(response) => response.call_response_head(store, convert::call(call), status, headers),
            None => Ok(Ok(Vec::new())),
        };
        let edits = self.pool.call("response-filter.response-head", response_head)?.map_err(faulted)?;
        convert::edits(edits).map(Some).map_err(|invalid| invalid.broken(self.name()))
    }
}

/// What a filter exports.
pub(super) struct FilterRole {
    request: head_filter::Guest,
    response: Option<response_filter::Guest>,
}

/// Where it exports that.
pub(super) struct FilterIndices {
    request: head_filter::GuestIndices,
    response: Option<response_filter::GuestIndices>,
}

impl Role for FilterRole {
    type Indices = FilterIndices;

    fn find(linked: &InstancePre<Imports>, further: Further) -> wasmtime::Result<Self::Indices> {
        let response = further.filters_responses.then(|| response_filter::GuestIndices::new(linked)).transpose()?;
        Ok(FilterIndices { request: head_filter::GuestIndices::new(linked)?, response })
    }

    fn load(indices: &Self::Indices, store: &mut Store<Imports>, instance: &Instance) -> wasmtime::Result<Self> {
        let response = indices.response.as_ref().map(|response| response.load(&mut *store, instance)).transpose()?;
        Ok(Self { request: indices.request.load(store, instance)?, response })
    }
}

macro_rules! roles {
    ($($interface:ident),*) => {$(
        impl Role for $interface::Guest {
            type Indices = $interface::GuestIndices;

            fn find(linked: &InstancePre<Imports>, _: Further) -> wasmtime::Result<Self::Indices> {
                $interface::GuestIndices::new(linked)
            }

            fn load(indices: &Self::Indices, store: &mut Store<Imports>, instance: &Instance) -> wasmtime::Result<Self> {
                indices.load(store, instance)
            }
        }
    )*};
}

roles!(auth, limits, routing);

fn target<'a>(candidate: &Candidate<'a>, sees_load: bool) -> routing::Target<'a> {
    routing::Target {
        id: candidate.id,
        vendor: candidate.vendor,
        model: candidate.model,
        weight: candidate.weight,
        priority: candidate.priority,
        healthy: candidate.healthy,
        latency_ms: if sees_load { candidate.latency_ms } else { 0 },
        inflight: if sees_load { candidate.inflight } else { 0 },
        facts: candidate.facts,
    }
}
