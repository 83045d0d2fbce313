// SPDX-License-Identifier: Apache-2.0
//! Who asks. Somebody who was let in a moment ago is known; else the plugin says it, and what it must know of others is asked
//! before it is called again. Whatever goes wrong on the way, nobody is let in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;

use super::Principal;
use crate::clock;
use crate::directory::Directory;
use crate::failure::{Failure, Kind};
use crate::inbound::wanted;
use crate::listener::Peer;
use crate::metrics::Metrics;
use crate::outbound::questions;
use crate::plugin::types::{Call, CallError, Grant, Pair, TIME, Verified};
use crate::routes::{Authority, Route};
use crate::slots::Digest;
use crate::upstream::Client;

/// How often a plugin is called for one request.
const ROUNDS_MAX: usize = 3;

/// With whose help it is found out who asks.
#[derive(Clone, Copy)]
pub struct Reception<'r> {
    /// Who asks others.
    pub client: &'r Client,
    /// Who counts that.
    pub metrics: &'r Arc<Metrics>,
    /// Who knows virtual keys.
    pub directory: &'r Directory,
}

impl Reception<'_> {
    /// Says who asks.
    ///
    /// # Errors
    /// `unauthenticated`, `forbidden`, `plugin-broken`, or `auth-away` if it cannot be found out now.
    pub async fn authenticate(
        &self,
        route: &Route,
        call: &Call<'_>,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Principal, Failure> {
        let Some(authority) = &route.auth else { return Ok(Principal::default()) };
        let plugin = &authority.plugin;
        let headers = wanted(&plugin.wants().headers, headers);
        let certificate = peer.certificate().filter(|_| plugin.wants_certificate());
        let digest = plugin.digest(&headers, certificate.map(|certificate| &certificate.sha256));
        // Read first: what changes while the plugin is asked makes its answer one of the past.
        let revision = self.directory.view().number;
        if let Some(known) = plugin.remembered(&digest, revision, Instant::now()) {
            return self.principal(&known.value.grant);
        }
        let begun = Instant::now();
        let facts = certificate.map_or(&[][..], |certificate| &certificate.facts);
        let visit = Visit { reception: *self, authority, call, headers, facts, digest, revision, begun };
        let verified = visit.ask();
        if verified.wishes.is_empty() {
            return visit.conclude(verified);
        }
        // On the heap: hardly any request has it.
        Box::pin(visit.find_out(verified)).await
    }

    fn principal(&self, grant: &Grant) -> Result<Principal, Failure> {
        let Grant { subject, tenant, attributes, cache_ms: _ } = grant.clone();
        Principal::bound(subject, tenant, attributes, self.directory)
    }
}

/// A caller who is not known.
struct Visit<'v> {
    reception: Reception<'v>,
    authority: &'v Arc<Authority>,
    call: &'v Call<'v>,
    headers: Vec<Pair<'v>>,
    /// Of the caller's certificate.
    facts: &'v [(String, String)],
    digest: Digest,
    revision: u64,
    begun: Instant,
}

impl Visit<'_> {
    /// Asks the plugin.
    fn ask(&self) -> Verified {
        let plugin = &self.authority.plugin;
        if !plugin.wants_time() && self.facts.is_empty() {
            return plugin.authenticate(self.call, &self.headers, self.begun);
        }
        let time = clock::unix_ms().to_string();
        let mut facts = self.call.facts.to_vec();
        if plugin.wants_time() {
            facts.push((TIME, &time));
        }
        facts.extend(self.facts.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        plugin.authenticate(&Call { facts: &facts, ..*self.call }, &self.headers, self.begun)
    }

    /// Asks others what the plugin wishes to know, and the plugin again.
    async fn find_out(&self, mut verified: Verified) -> Result<Principal, Failure> {
        let deadline = Duration::from_millis(self.call.deadline_ms.into());
        for _ in 1..ROUNDS_MAX {
            let lacks = verified.wishes.iter().any(|wish| wish.is_needed);
            let must_wait = lacks && matches!(verified.grant, Err(CallError::Fault(_)));
            for wish in &mut verified.wishes {
                // What is not needed for this answer is asked for, and not waited for.
                wish.is_needed &= must_wait;
                let patience = deadline.saturating_sub(self.begun.elapsed());
                let Reception { client, metrics, .. } = self.reception;
                questions::ask(client, metrics, self.authority, wish, patience).await;
            }
            if !must_wait {
                break;
            }
            verified = self.ask();
        }
        self.conclude(verified)
    }

    /// What the plugin has come to, if it knew what it must.
    fn conclude(&self, verified: Verified) -> Result<Principal, Failure> {
        let lacks = verified.away || verified.wishes.iter().any(|wish| wish.is_needed);
        let mut grant = match verified.grant {
            Ok(grant) => grant,
            Err(CallError::Fault(fault)) if lacks => {
                let message = "who asks cannot be found out now, since whoever knows it is away; try again";
                return Err(Failure::new(Kind::AuthAway, message).because(fault.message));
            }
            Err(error) => return Err(Failure::of_policy(error, Kind::Unauthenticated)),
        };
        for (name, _) in &mut grant.attributes {
            name.insert_str(0, "auth.");
        }
        let principal = self.reception.principal(&grant)?;
        self.authority.plugin.remember(self.digest, &grant, verified.valid_until_unix_s, self.revision);
        Ok(principal)
    }
}
