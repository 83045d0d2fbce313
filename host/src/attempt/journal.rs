// SPDX-License-Identifier: Apache-2.0
//! Work that a vendor does beyond one round trip: what must be written down so that a restart of the gateway can go on with
//! it, and what is sent when nobody waits for it any more.

use std::sync::Arc;

use bytes::Bytes;

use crate::outbound::{self, Payload};
use crate::plugin::types::{Body, UpstreamRequest};
use crate::routes::Vendor;
use crate::upstream::{Answer, Client};

/// An answer of a vendor, as it is handed to an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Status.
    pub status: u16,
    /// The headers that the adapter wants.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Bytes,
}

/// Where the answers of round trips that change something at the vendor are kept. An adapter is a pure function with
/// memory: opened again with the same request and given the same answers, it stands where it stood.
pub trait Journal: Send + Sync {
    /// The answer of this round trip (from 0), if it was made before.
    fn recorded(&self, round: u32) -> Option<Recorded>;

    /// Keeps the answer that this target has given.
    fn record(&self, target: &str, answer: &Recorded);
}

/// What came of a round trip.
pub(super) enum Heard {
    /// All of the answer.
    Whole(Recorded),
    /// The beginning of a stream.
    Stream(Answer),
}

/// Work that a vendor has begun. Dropping it before it is done (the caller has hung up, time is over) cancels the work.
pub(super) struct Begun {
    client: Client,
    vendor: Arc<Vendor>,
    cancel: Option<UpstreamRequest>,
}

impl Begun {
    pub(super) fn new(client: &Client, vendor: &Arc<Vendor>) -> Self {
        Self { client: client.clone(), vendor: Arc::clone(vendor), cancel: None }
    }

    /// This cancels it from now on.
    pub(super) fn cancel_by(&mut self, request: Option<UpstreamRequest>) {
        self.cancel = request;
    }

    /// There is nothing to cancel any more.
    pub(super) fn done(&mut self) {
        self.cancel = None;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some(request) = self.cancel.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (client, vendor) = (self.client.clone(), Arc::clone(&self.vendor));
        runtime.spawn(async move {
            let payload = match &request.body {
                Body::Bytes(bytes) => Payload::json(Bytes::copy_from_slice(bytes)),
                _ => Payload::default(),
            };
            match outbound::send(&client, &vendor, &request, payload).await {
                Ok(answer) => {
                    tracing::info!(vendor = %vendor.name, status = answer.status().as_u16(), "cancelled work that nobody waits for");
                }
                Err(failure) => {
                    tracing::warn!(vendor = %vendor.name, %failure, "could not cancel work that nobody waits for");
                }
            }
        });
    }
}
