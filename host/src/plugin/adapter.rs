// SPDX-License-Identifier: Apache-2.0
//! A configured adapter, and its exchanges.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use penstock_dialects::{framing, ir};
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre, ResourceAny};

use super::bindings::exports::penstock::plugin::{adapter as wit, credentials, signing};
use super::breaks::Condition;
use super::convert::{self, Allowed, faulted};
use super::gate::{Further, Passed};
use super::imports::Imports;
use super::memo::{Asked, Memo};
use super::pool::{Lease, Pool, Role};
use super::types::{Blob, Body, Call, CallError, Fetching, Pair, Plan, Step, Unsigned, UpstreamRequest, Wants};
use crate::credential::Credential;
use crate::keys::Grants;

/// A configured adapter. Calls are synchronous and end within `sandbox.adapter_ms`.
pub struct Adapter {
    pool: Arc<Pool<AdapterRole>>,
    wants: Wants,
    dialects: Vec<String>,
    operations: Vec<String>,
    features: Vec<String>,
    component: String,
    further: Further,
    credential: Credential,
    relays: Memo<UpstreamRequest>,
}

impl Adapter {
    pub(super) fn new(pool: Arc<Pool<AdapterRole>>, wants: Wants, passed: &Passed) -> Self {
        let manifest = &passed.manifest;
        let done = |names: &[String]| -> Vec<String> {
            names.iter().filter(|name| !wants.without.contains(name)).cloned().collect()
        };
        let (dialects, operations) = (done(&manifest.dialects), done(&manifest.operations));
        let converses = operations.iter().any(|operation| operation == "chat");
        let features = if converses { done(&manifest.features) } else { Vec::new() };
        let component = manifest.name.clone();
        let is_small = |request: &UpstreamRequest| !matches!(request.body, Body::Bytes(_));
        Self {
            pool,
            relays: Memo::new(wants.alike.clone(), is_small),
            wants,
            dialects,
            operations,
            features,
            component,
            further: passed.further,
            credential: Credential::default(),
        }
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

    /// Whether its vendor speaks this dialect, so that a call in it can be relayed.
    #[must_use]
    pub fn speaks(&self, dialect: &str) -> bool {
        self.dialects.iter().any(|spoken| spoken == dialect)
    }

    /// Name of its component.
    #[must_use]
    pub fn component(&self) -> &str {
        &self.component
    }

    /// The dialects that its vendor speaks.
    #[must_use]
    pub fn dialects(&self) -> &[String] {
        &self.dialects
    }

    /// The operations that it serves.
    #[must_use]
    pub fn operations(&self) -> &[String] {
        &self.operations
    }

    /// What of a conversation it can carry.
    #[must_use]
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// Whether it serves this operation.
    #[must_use]
    pub fn serves(&self, operation: &str) -> bool {
        self.operations.iter().any(|served| served == operation)
    }

    /// The secrets that it may name in a request.
    #[must_use]
    pub fn secrets(&self) -> &Grants {
        &self.pool.shared().grants
    }

    /// The head of a call in a dialect that the vendor speaks. `headers` and `members` are those of [`Self::wants`]
    /// that the request has.
    ///
    /// # Errors
    /// The adapter's fault, or that it broke.
    pub fn relay(
        &self,
        call: &Call<'_>,
        headers: &[Pair<'_>],
        members: &[Pair<'_>],
    ) -> Result<Arc<UpstreamRequest>, CallError> {
        let relay = |store: &mut Store<Imports>, guest: &AdapterRole| {
            guest.adapter.call_relay(store, convert::call(call), headers, members)
        };
        self.relays.answer(&Asked { call: *call, headers, members, ..Asked::default() }, || {
            let upstream = self.pool.call("adapter.relay", relay)?.map_err(faulted)?;
            convert::upstream(upstream, self.allowed()).map_err(|invalid| invalid.broken(self.name()))
        })
    }

    /// Begins an exchange with a translated call. `body` is the canonical request as JSON.
    ///
    /// # Errors
    /// The adapter's fault, or that it broke.
    pub fn open(
        self: &Arc<Self>,
        call: &Call<'_>,
        headers: &[Pair<'_>],
        body: &[u8],
        blobs: &[Blob<'_>],
    ) -> Result<(Exchange, Plan), CallError> {
        let blobs: Vec<_> = blobs
            .iter()
            .map(|blob| wit::Blob { marker: blob.marker, media_type: blob.media_type, length: blob.length })
            .collect();
        let open = |store: &mut Store<Imports>, guest: &AdapterRole| {
            guest.adapter.exchange().call_open(store, convert::call(call), headers, body, &blobs)
        };
        let (lease, opened) = self.pool.lease("adapter.exchange.open", open)?;
        let (resource, plan) = opened.map_err(faulted)?;
        let exchange = Exchange { lease, resource, fetches: self.further.fetches };
        let plan = convert::plan(plan, self.allowed()).map_err(|invalid| invalid.broken(self.name()))?;
        Ok((exchange, plan))
    }

    /// Whether its requests are signed by [`Self::sign`].
    #[must_use]
    pub fn signs(&self) -> bool {
        self.further.signs
    }

    /// Headers that sign a request.
    ///
    /// # Errors
    /// The adapter's fault, or that it broke.
    pub fn sign(&self, request: &Unsigned<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, CallError> {
        let request = signing::Unsigned {
            method: request.method,
            host: request.host,
            path: request.path,
            query: request.query,
            headers: request.headers,
            body_sha256: request.body_sha256,
            time: request.time,
        };
        let sign = |store: &mut Store<Imports>, guest: &AdapterRole| match &guest.signing {
            Some(signing) => signing.call_sign(store, request),
            None => Ok(Ok(Vec::new())),
        };
        let headers = self.pool.call("signing.sign", sign)?.map_err(faulted)?;
        convert::signature(&headers).map_err(|invalid| invalid.broken(self.name()))
    }

    /// The credential that is fetched for it, where it is kept.
    #[must_use]
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// How to get a credential at this time (seconds since 1970); none if it needs none.
    ///
    /// # Errors
    /// The adapter's fault, or that it broke.
    pub fn fetch(&self, time: u64) -> Result<Option<Fetching>, CallError> {
        let fetch = |store: &mut Store<Imports>, guest: &AdapterRole| match &guest.credentials {
            Some(credentials) => credentials.call_fetch(store, time),
            None => Ok(Ok(None)),
        };
        let Some(fetching) = self.pool.call("credentials.fetch", fetch)?.map_err(faulted)? else { return Ok(None) };
        convert::fetching(fetching, self.allowed()).map(Some).map_err(|invalid| invalid.broken(self.name()))
    }

    fn allowed(&self) -> Allowed<'_> {
        Allowed { grants: self.secrets(), bare: false, fetches: self.further.fetches }
    }

    /// Classifies an answer that is not 2xx.
    ///
    /// # Errors
    /// That it broke; its own word is the fault that it gives.
    pub fn reject(&self, status: u16, headers: &[Pair<'_>], body: &[u8]) -> Result<ir::Fault, CallError> {
        let reject =
            |store: &mut Store<Imports>, guest: &AdapterRole| guest.adapter.call_reject(store, status, headers, body);
        self.pool.call("adapter.reject", reject).map(convert::fault)
    }
}

/// One call to a vendor, as it lives in a guest. Dropping it gives the guest's memory of it back.
pub struct Exchange {
    lease: Lease<AdapterRole>,
    resource: ResourceAny,
    fetches: bool,
}

impl Exchange {
    /// Every complete frame of one network read, in order.
    ///
    /// # Errors
    /// The adapter's fault, or that it broke.
    pub fn frames(&mut self, frames: &[framing::Frame<'_>]) -> Result<Step, CallError> {
        match frames {
            // Most reads bring one frame: no list is built for it.
            [one] => self.send(&[guest_frame(one)]),
            all => self.send(&all.iter().map(guest_frame).collect::<Vec<_>>()),
        }
    }

    /// The end of the answer: its body where the framing is the whole of it, otherwise nothing.
    ///
    /// # Errors
    /// The adapter's fault, or that it broke.
    pub fn finish(&mut self, status: u16, headers: &[Pair<'_>], body: &[u8]) -> Result<Step, CallError> {
        let resource = self.resource;
        let finish = |store: &mut Store<Imports>, guest: &AdapterRole| {
            guest.adapter.exchange().call_finish(store, resource, status, headers, body)
        };
        let step = self.lease.call("adapter.exchange.finish", finish)?;
        self.checked(step)
    }

    fn send(&mut self, batch: &[wit::Frame<'_>]) -> Result<Step, CallError> {
        let resource = self.resource;
        let frames = |store: &mut Store<Imports>, guest: &AdapterRole| {
            guest.adapter.exchange().call_frames(store, resource, batch)
        };
        let step = self.lease.call("adapter.exchange.frames", frames)?;
        self.checked(step)
    }

    fn checked(&self, step: Result<wit::Step, wit::Fault>) -> Result<Step, CallError> {
        let shared = self.lease.shared();
        let allowed = Allowed { grants: &shared.grants, bare: false, fetches: self.fetches };
        convert::step(step.map_err(faulted)?, allowed).map_err(|invalid| invalid.broken(&shared.name))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let resource = self.resource;
        // An instance that is gone has nothing to give back; one that breaks over it is reported by the pool.
        let _ = self.lease.call("adapter.exchange.drop", |store, _| resource.resource_drop(store));
    }
}

/// The exports of an adapter.
pub(super) struct AdapterRole {
    adapter: wit::Guest,
    signing: Option<signing::Guest>,
    credentials: Option<credentials::Guest>,
}

pub(super) struct AdapterIndices {
    adapter: wit::GuestIndices,
    signing: Option<signing::GuestIndices>,
    credentials: Option<credentials::GuestIndices>,
}

impl Role for AdapterRole {
    type Indices = AdapterIndices;

    fn find(linked: &InstancePre<Imports>, further: Further) -> wasmtime::Result<Self::Indices> {
        Ok(AdapterIndices {
            adapter: wit::GuestIndices::new(linked)?,
            signing: further.signs.then(|| signing::GuestIndices::new(linked)).transpose()?,
            credentials: further.fetches.then(|| credentials::GuestIndices::new(linked)).transpose()?,
        })
    }

    fn load(indices: &Self::Indices, store: &mut Store<Imports>, instance: &Instance) -> wasmtime::Result<Self> {
        Ok(Self {
            adapter: indices.adapter.load(&mut *store, instance)?,
            signing: indices.signing.as_ref().map(|it| it.load(&mut *store, instance)).transpose()?,
            credentials: indices.credentials.as_ref().map(|it| it.load(&mut *store, instance)).transpose()?,
        })
    }
}

fn guest_frame<'a>(frame: &framing::Frame<'a>) -> wit::Frame<'a> {
    wit::Frame { name: frame.name, data: frame.data }
}
