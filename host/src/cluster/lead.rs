// SPDX-License-Identifier: Apache-2.0
//! One node leads: it does what would be done in vain or wrongly by several. It has a lease, and a token that is greater than
//! that of any leader before it. Every write of a leader goes through a script that takes it only if its token is the newest:
//! a leader that was stopped and goes on after another one has come to lead changes nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Node;
use super::wire::{Kept, UNUSED_S};

use crate::clock;

/// How often a node tells that it is there.
const BEAT: Duration = Duration::from_secs(1);
/// How long a node is known that tells nothing any more.
const SILENT: Duration = Duration::from_secs(86_400);
/// How long it is known that something was removed: a node that was away for longer reads everything.
pub(super) const REMOVED: Duration = Duration::from_secs(7 * 86_400);
/// How long it is known when services were heard of.
const HEARD: Duration = Duration::from_secs(30 * 86_400);
/// Clocks of nodes may differ by so many seconds.
const SKEW_S: u64 = 5;

impl Node {
    /// Leads when nobody does.
    pub(super) async fn keep_leading(&self) {
        let lease = self.settings.lease;
        loop {
            self.lead_once(lease).await;
            tokio::time::sleep(lease / 3).await;
        }
    }

    /// What is to be done as the leader, or what is to be done to become it. The store decides who leads, not a clock here:
    /// a leader does not look at its own before it writes.
    async fn lead_once(&self, lease: Duration) {
        let token = self.token.load(Ordering::Relaxed);
        if token == 0 {
            if let Ok(Some(token)) = self.wire.lead(&self.id, lease).await {
                self.token.store(token, Ordering::Relaxed);
                self.metrics.leads(true);
                tracing::info!(token, "this node leads the cluster");
            }
            return;
        }
        let kept = Kept { removed: REMOVED, nodes: SILENT, beats: HEARD };
        match self.wire.sweep(&self.id, token, lease, &kept).await {
            Ok(Some(0)) => {}
            Ok(Some(done)) => tracing::info!(done, unused_s = UNUSED_S, "the cluster is swept"),
            Ok(None) => {
                self.token.store(0, Ordering::Relaxed);
                self.metrics.leads(false);
                self.metrics.fenced();
                tracing::warn!(token, "another node leads the cluster; what this one was about to write was refused");
            }
            Err(error) => tracing::debug!("the lease of the leader cannot be renewed: {error}"),
        }
    }

    /// Gives the lead back.
    pub(super) async fn leave(&self) {
        let token = self.token.swap(0, Ordering::Relaxed);
        if token > 0
            && let Err(error) = self.wire.release(&self.id, token).await
        {
            tracing::debug!("the lead cannot be given back: {error}");
        }
    }

    /// Tells the others that this node is there, what it has heard of services and what was used.
    pub(super) async fn keep_beating(&self) {
        let mut since = 0;
        loop {
            if !self.is_away() {
                self.beat(&mut since).await;
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    async fn beat(&self, since: &mut u64) {
        let (heard, begun) = (self.beats.fresh(), clock::unix_s());
        match self.wire.beat(&self.id, &self.shown_to_others(), &heard, *since).await {
            Ok(others) => {
                self.beats.learn(others);
                *since = begun.saturating_sub(SKEW_S);
            }
            Err(error) => {
                self.beats.keep(heard);
                tracing::debug!("the cluster cannot be told that this node is there: {error}");
            }
        }
        if let Err(error) = self.send_usage().await {
            tracing::debug!("the cluster cannot be told what was used: {error}");
        }
    }
}
