// SPDX-License-Identifier: Apache-2.0
//! A configured adapter, and its exchanges.

use std::sync::Arc;

use penstock_dialects::{framing, ir};
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre, ResourceAny};

use super::bindings::exports::penstock::plugin::adapter as wit;
use super::convert::{self, faulted};
use super::imports::Imports;
use super::manifest::Manifest;
use super::pool::{Lease, Pool, Role};
use super::types::{Blob, Call, CallError, Pair, Plan, Step, UpstreamRequest, Wants};
use crate::keys::Grants;

/// A configured adapter. Calls are synchronous and end within `sandbox.adapter_ms`.
pub struct Adapter {
    pool: Arc<Pool<wit::Guest>>,
    wants: Wants,
    dialects: Vec<String>,
    operations: Vec<String>,
}

impl Adapter {
    pub(super) fn new(pool: Arc<Pool<wit::Guest>>, wants: Wants, manifest: &Manifest) -> Self {
        Self { pool, wants, dialects: manifest.dialects.clone(), operations: manifest.operations.clone() }
    }

    pub(super) fn instances(&self) -> u32 {
        self.pool.instances()
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
    ) -> Result<UpstreamRequest, CallError> {
        let relay = |store: &mut Store<Imports>, guest: &wit::Guest| {
            guest.call_relay(store, convert::call(call), headers, members)
        };
        let upstream = self.pool.call("adapter.relay", relay)?.map_err(faulted)?;
        convert::upstream(upstream, self.secrets()).map_err(|invalid| invalid.broken(self.name()))
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
        let open = |store: &mut Store<Imports>, guest: &wit::Guest| {
            guest.exchange().call_open(store, convert::call(call), headers, body, &blobs)
        };
        let (lease, opened) = self.pool.lease("adapter.exchange.open", open)?;
        let (resource, plan) = opened.map_err(faulted)?;
        let exchange = Exchange { lease, resource };
        let plan = convert::plan(plan, self.secrets()).map_err(|invalid| invalid.broken(self.name()))?;
        Ok((exchange, plan))
    }

    /// Classifies an answer that is not 2xx.
    ///
    /// # Errors
    /// That it broke; its own word is the fault that it gives.
    pub fn reject(&self, status: u16, headers: &[Pair<'_>], body: &[u8]) -> Result<ir::Fault, CallError> {
        let reject = |store: &mut Store<Imports>, guest: &wit::Guest| guest.call_reject(store, status, headers, body);
        self.pool.call("adapter.reject", reject).map(convert::fault)
    }
}

/// One call to a vendor, as it lives in a guest. Dropping it gives the guest's memory of it back.
pub struct Exchange {
    lease: Lease<wit::Guest>,
    resource: ResourceAny,
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
        let finish = |store: &mut Store<Imports>, guest: &wit::Guest| {
            guest.exchange().call_finish(store, resource, status, headers, body)
        };
        let step = self.lease.call("adapter.exchange.finish", finish)?;
        self.checked(step)
    }

    fn send(&mut self, batch: &[wit::Frame<'_>]) -> Result<Step, CallError> {
        let resource = self.resource;
        let frames =
            |store: &mut Store<Imports>, guest: &wit::Guest| guest.exchange().call_frames(store, resource, batch);
        let step = self.lease.call("adapter.exchange.frames", frames)?;
        self.checked(step)
    }

    fn checked(&self, step: Result<wit::Step, wit::Fault>) -> Result<Step, CallError> {
        let shared = self.lease.shared();
        convert::step(step.map_err(faulted)?, &shared.grants).map_err(|invalid| invalid.broken(&shared.name))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let resource = self.resource;
        // An instance that is gone has nothing to give back; one that breaks over it is reported by the pool.
        let _ = self.lease.call("adapter.exchange.drop", |store, _| resource.resource_drop(store));
    }
}

impl Role for wit::Guest {
    type Indices = wit::GuestIndices;

    fn find(linked: &InstancePre<Imports>, _: bool) -> wasmtime::Result<Self::Indices> {
        wit::GuestIndices::new(linked)
    }

    fn load(indices: &Self::Indices, store: &mut Store<Imports>, instance: &Instance) -> wasmtime::Result<Self> {
        indices.load(store, instance)
    }
}

fn guest_frame<'a>(frame: &framing::Frame<'a>) -> wit::Frame<'a> {
    wit::Frame { name: frame.name, data: frame.data }
}
