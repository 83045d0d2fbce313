// SPDX-License-Identifier: Apache-2.0
//! A request under way: what is fixed when it has found its route, and what every later stage may read.

use std::sync::Arc;
use std::time::Instant;

use http::Uri;

use crate::inbound::{Asked, Inbound};
use crate::listener::Peer;
use crate::plugin::types::{Call, Pair};
use crate::routes::{Route, Serves};
use crate::snapshot::Snapshot;
use crate::stages::Principal;

/// What every stage may read of a request under way.
pub struct Underway {
    /// What is in force for it.
    pub snapshot: Arc<Snapshot>,
    /// Its route.
    pub route: Arc<Route>,
    /// Dialect and operation; none on a plain HTTP route.
    pub asked: Option<Asked>,
    /// Its id.
    pub id: Arc<str>,
    /// Who is connected.
    pub peer: Peer,
    /// Address of the caller.
    pub client_ip: Arc<str>,
    /// When it is given up.
    pub deadline: Instant,
}

impl Underway {
    /// Name of the operation; empty on a plain HTTP route.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.asked.as_ref().map_or("", |asked| asked.operation.name())
    }

    /// Facts that hold from the beginning.
    #[must_use]
    pub fn facts(&self) -> [Pair<'_>; 2] {
        [("route", &*self.route.name), ("client-ip", &self.client_ip)]
    }

    /// The request as a plugin sees it, as far as it is known by then.
    #[must_use]
    pub fn call<'c>(
        &'c self,
        principal: &'c Principal,
        inbound: Option<&'c Inbound<'_>>,
        facts: &'c [Pair<'c>],
    ) -> Call<'c> {
        let left = self.deadline.saturating_duration_since(Instant::now()).as_millis();
        let known = self.route.auth.is_some() && !principal.subject.is_empty();
        Call {
            id: &self.id,
            operation: self.operation(),
            dialect: self.asked.as_ref().map_or("", |asked| asked.dialect.name()),
            model: inbound.map_or("", |inbound| &inbound.model),
            streaming: inbound.is_some_and(|inbound| inbound.streaming),
            attempt: 0,
            deadline_ms: u32::try_from(left).unwrap_or(u32::MAX),
            subject: known.then_some(&*principal.subject),
            tenant: principal.tenant.as_deref(),
            facts,
        }
    }

    /// Path and query for a plain HTTP service.
    #[must_use]
    pub fn service_path(&self, uri: &Uri) -> String {
        let whole = uri.path_and_query().map_or("/", |path| path.as_str());
        let strip = matches!(self.route.serves, Serves::Service { strip_prefix: true, .. });
        let rest = whole.strip_prefix(&self.route.prefix).filter(|_| strip).unwrap_or(whole);
        if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") }
    }
}
