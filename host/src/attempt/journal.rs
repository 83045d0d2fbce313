// SPDX-License-Identifier: Apache-2.0
//! Work that a vendor does beyond one round trip: what must be written down so that a restart of the gateway can go on with
//! it, and what is sent when nobody waits for it any more.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use penstock_dialects::ir::FaultClass;
use tokio::task::JoinHandle;

use crate::directory::pool::Turn;
use crate::failure::{Failure, Kind};
use crate::outbound::{self, Payload};
use crate::plugin::types::{Body, UpstreamRequest};
use crate::routes::Vendor;
use crate::upstream::{Answer, Client};

/// First pause before a vendor is asked again how its work is doing; it doubles.
const POLL_PAUSE: Duration = Duration::from_millis(500);
/// Longest such pause.
const POLL_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Such tries in a row while a caller waits.
const POLL_TRIES_MAX: u32 = 5;

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

/// What a journal does in its own time.
pub type Writing<'j, T> = Pin<Box<dyn Future<Output = T> + Send + 'j>>;

/// Where the answers of requests are kept that change something at a vendor (all but GET), so that the work survives this
/// process. An adapter is a pure function with memory: opened again with the same request and given the same answers, it
/// stands where it stood. Such requests of one attempt are counted from 0.
pub trait Journal: Send + Sync {
    /// The answer that this target has given to the `step`th request, if it was asked before.
    fn recorded(&self, target: &str, step: u32) -> Option<Recorded>;

    /// The `step`th request is about to go out to this target. It goes out when this has come back.
    ///
    /// # Errors
    /// Why it must not go out.
    fn sending<'j>(&'j self, target: &'j str, step: u32) -> Writing<'j, Result<(), Failure>>;

    /// Keeps the answer; the adapter wants a further round trip.
    fn record<'j>(&'j self, target: &'j str, step: u32, answer: &'j Recorded) -> Writing<'j, ()>;

    /// Whether work that is dropped now is not wanted any more, so that its vendor is told; it is not if only this process
    /// ends.
    fn gives_up(&self) -> bool;

    /// The vendor is being told so.
    fn telling(&self, told: JoinHandle<()>);
}

/// What came of a round trip.
pub(super) enum Heard {
    /// All of the answer.
    Whole(Recorded),
    /// The beginning of a stream.
    Stream(Answer),
}

/// Work that a vendor has begun. Dropping it before it is done (the caller has hung up, time is over) cancels the work.
pub(super) struct Begun<'j> {
    client: Client,
    vendor: Arc<Vendor>,
    journal: Option<&'j dyn Journal>,
    turn: Turn,
    cancel: Option<UpstreamRequest>,
}

impl<'j> Begun<'j> {
    pub(super) fn new(client: &Client, vendor: &Arc<Vendor>, journal: Option<&'j dyn Journal>, turn: &Turn) -> Self {
        Self { client: client.clone(), vendor: Arc::clone(vendor), journal, turn: turn.clone(), cancel: None }
    }

    /// This cancels it from now on.
    pub(super) fn cancel_by(&mut self, request: Option<UpstreamRequest>) {
        self.cancel = request;
    }

    /// There is nothing to cancel any more.
    pub(super) fn done(&mut self) {
        self.cancel = None;
    }

    /// The adapter has failed over an answer. Where that is what the vendor said, the work has ended there.
    pub(super) fn judged(&mut self, failure: &Failure) {
        if failure.kind == Kind::Refused {
            self.done();
        }
    }

    /// Whether it is worth asking again how the work is doing when there was no answer, and after which pause. Asking changes
    /// nothing at the vendor, and the work goes on there; giving it up for one lost answer would be a waste of it. A caller
    /// waits for a few such tries, a job until its deadline.
    pub(super) fn asks_again(&self, failure: &Failure, tries: u32) -> Option<Duration> {
        let passing = match failure.kind {
            Kind::Unreachable | Kind::ProxyFailed | Kind::UpstreamTimeout | Kind::Cut => true,
            Kind::Refused => matches!(
                failure.fault.class,
                FaultClass::Overloaded | FaultClass::Timeout | FaultClass::RateLimit | FaultClass::VendorBug
            ),
            _ => false,
        };
        if !passing || tries >= POLL_TRIES_MAX && self.journal.is_none() {
            return None;
        }
        let pause = POLL_PAUSE * 2_u32.saturating_pow(tries);
        let stated = Duration::from_millis(failure.fault.retry_after_ms.unwrap_or_default());
        Some(pause.max(stated).min(POLL_PAUSE_MAX))
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let Some(request) = self.cancel.take() else { return };
        if self.journal.is_some_and(|journal| !journal.gives_up()) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (client, vendor, turn) = (self.client.clone(), Arc::clone(&self.vendor), self.turn.clone());
        let told = runtime.spawn(async move {
            let payload = match &request.body {
                Body::Bytes(bytes) => Payload::json(Bytes::copy_from_slice(bytes)),
                _ => Payload::default(),
            };
            match outbound::send(&client, &vendor, &request, payload, &turn, None).await {
                Ok(answer) => {
                    tracing::info!(vendor = %vendor.name, status = answer.status().as_u16(), "cancelled work that nobody waits for");
                }
                Err(failure) => {
                    tracing::warn!(vendor = %vendor.name, %failure, "could not cancel work that nobody waits for");
                }
            }
        });
        if let Some(journal) = self.journal {
            journal.telling(told);
        }
    }
}
