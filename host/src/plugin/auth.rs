// SPDX-License-Identifier: Apache-2.0
//! A configured auth plugin, and whom it has let in.
//!
//! A grant is remembered for as long as the plugin says, by SHA-256 over everything that the plugin was shown: whole headers,
//! each with its length, and the certificate. So two credentials that differ in one byte are two, and no credential is kept.
//! What is remembered belongs to this configured plugin and to one revision of the directory: when either changes, it is not
//! there any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::Store;

use super::bindings::exports::penstock::plugin::auth;
use super::breaks::Condition;
use super::convert::{self, faulted};
use super::imports::{Findings, Imports};
use super::pool::Pool;
use super::types::{CLIENT_CERTIFICATE, Call, Grant, Pair, TIME, Verified, Wants};
use crate::clock;
use crate::documents::Documents;
use crate::keys::Grants;
use crate::slots::{Digest, Parts, Slot, Slots};

/// A configured auth plugin.
pub struct Auth {
    pool: Arc<Pool<auth::Guest>>,
    wants: Wants,
    wants_time: bool,
    wants_certificate: bool,
    remembered: Slots<Remembered>,
    begun: Instant,
}

/// Somebody who was let in.
pub struct Remembered {
    /// As whom.
    pub grant: Grant,
    until: Instant,
    /// When the credential ends by itself.
    ends_unix_s: u64,
    revision: u64,
}

impl Auth {
    pub(super) fn new(pool: Arc<Pool<auth::Guest>>, wants: Wants) -> Self {
        let wants_fact = |name: &str| wants.facts.iter().any(|fact| fact == name);
        let (wants_time, wants_certificate) = (wants_fact(TIME), wants_fact(CLIENT_CERTIFICATE));
        let remembered = Slots::new(pool.shared().documents.limits().grants_max);
        Self { pool, wants, wants_time, wants_certificate, remembered, begun: Instant::now() }
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

    /// Whether it wants to know the time.
    #[must_use]
    pub fn wants_time(&self) -> bool {
        self.wants_time
    }

    /// Whether it wants to see the certificates of callers.
    #[must_use]
    pub fn wants_certificate(&self) -> bool {
        self.wants_certificate
    }

    /// Secrets that it may name in questions.
    #[must_use]
    pub fn secrets(&self) -> &Grants {
        &self.pool.shared().grants
    }

    /// What it was told by others.
    #[must_use]
    pub fn documents(&self) -> &Arc<Documents> {
        &self.pool.shared().documents
    }

    /// Who asks. `headers` are those of [`Self::wants`] that the request has. Without what it wishes to know it may have refused
    /// for the lack of that. `since` is when the request came: what was found out since is young enough.
    #[must_use]
    pub fn authenticate(&self, call: &Call<'_>, headers: &[Pair<'_>], since: Instant) -> Verified {
        let authenticate = |store: &mut Store<Imports>, guest: &auth::Guest| {
            store.data_mut().known = Findings::since(since);
            let granted = guest.call_authenticate(&mut *store, convert::call(call), headers)?;
            Ok((granted, std::mem::replace(&mut store.data_mut().known, Findings::since(since))))
        };
        match self.pool.call("auth.authenticate", authenticate) {
            Ok((granted, known)) => {
                let granted = granted.map_err(faulted);
                let checked = |grant| convert::grant(grant).map_err(|invalid| invalid.broken(self.name()));
                known.with(granted.and_then(checked), self.name())
            }
            Err(error) => Findings::since(since).with(Err(error), self.name()),
        }
    }

    /// What somebody presents, as what is remembered of them is found.
    #[must_use]
    pub fn digest(&self, headers: &[Pair<'_>], certificate: Option<&[u8; 32]>) -> Digest {
        let mut parts = Parts::default();
        parts.add(certificate.map_or(&[][..], |sha256| sha256));
        for (name, value) in headers {
            parts.add(name.as_bytes());
            parts.add(value.as_bytes());
        }
        parts.digest()
    }

    /// Who presents this, if it was let in a short time ago and nothing has changed in the directory since.
    #[must_use]
    pub fn remembered(&self, digest: &Digest, revision: u64, now: Instant) -> Option<Arc<Slot<Remembered>>> {
        let known = self.remembered.get(digest)?;
        let Remembered { revision: of, until, ends_unix_s, .. } = &known.value;
        // The end of a credential is a time of day, and the clock may have been set since.
        let goes_on = || *ends_unix_s == u64::MAX || clock::unix_s() < *ends_unix_s;
        (*of == revision && now < *until && goes_on()).then_some(known)
    }

    /// Remembers who presents this: for as long as the grant says and the operator allows, and not beyond the credential's
    /// own end. `revision` is that of the directory before the plugin was asked.
    pub fn remember(&self, digest: Digest, grant: &Grant, valid_until_unix_s: Option<u64>, revision: u64) {
        let left_ms =
            valid_until_unix_s.map_or(u64::MAX, |end| end.saturating_mul(1000).saturating_sub(clock::unix_ms()));
        let lasts_ms = u64::from(grant.cache_ms).min(self.documents().limits().grant_ms_max).min(left_ms);
        if lasts_ms == 0 {
            return;
        }
        let until = Instant::now() + Duration::from_millis(lasts_ms);
        let ends_unix_s = valid_until_unix_s.unwrap_or(u64::MAX);
        let remembered = Remembered { grant: grant.clone(), until, ends_unix_s, revision };
        let left = |known: &Remembered| {
            // What is of an older directory is worth nothing.
            let counts = known.revision == revision;
            if counts { clock::millis(known.until.saturating_duration_since(self.begun)) } else { 0 }
        };
        self.remembered.put(digest, remembered, left);
    }
}
