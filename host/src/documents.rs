// SPDX-License-Identifier: Apache-2.0
//! What others have answered to the questions of one auth plugin: the keys of an issuer, what it thinks of a token.
//!
//! Nothing is asked here; that is [`outbound`](crate::outbound)'s. This is what is known: by SHA-256 of the whole request, so
//! that no token is kept, bounded in number and bytes, and read without a lock. A question that many have at once goes out
//! once ([`asked_once`]): whoever comes first has a task of its own for it, so that a caller who hangs up takes nothing from
//! the others.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::clock;
use crate::config::Auth;
use crate::slots::{Digest, Slot, Slots};

/// How long an answer that is not 2xx is believed.
const NEGATIVE_MS: u64 = 5_000;
/// How long after a failure nobody is asked again.
const PAUSE_MS: u64 = 1_000;
/// A question may be asked so often in a row, and then once in [`AGAIN_MS`]: whoever makes up names of keys has nobody asked
/// more often than that, and an issuer that changes its keys time and again loses no request.
const IN_A_ROW: u64 = 10;
const AGAIN_MS: u64 = 1_000;

/// What somebody has answered.
pub struct Document {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Bytes,
    /// The same for the same body.
    pub version: u64,
    /// When it was asked for.
    at: Instant,
    /// Counts its bytes for as long as it lives.
    _weight: Weight,
}

struct Weight {
    bytes: u64,
    all: Arc<AtomicU64>,
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What is known of one question.
pub enum Known {
    /// This, and it is young.
    Fresh(Arc<Document>),
    /// This, and it is time to ask again.
    Aging(Arc<Document>),
    /// Nothing that is young enough.
    Nothing,
    /// Nothing that may serve, and whoever is asked was away a moment ago.
    Away,
}

/// One question.
pub struct Entry {
    document: ArcSwapOption<Document>,
    /// Until when nobody is asked, in milliseconds of [`Documents::begun`]; 0 if whoever is asked has answered.
    pause_until_ms: AtomicU64,
    touched_ms: AtomicU64,
    /// When it may have been asked once in [`AGAIN_MS`], each time counted (a leaky bucket).
    spent_until_ms: AtomicU64,
    flying: AtomicBool,
    landed: Notify,
}

/// The questions of one plugin.
pub struct Documents {
    limits: Auth,
    begun: Instant,
    bytes: Arc<AtomicU64>,
    flights: AtomicUsize,
    entries: OnceLock<Slots<Entry>>,
}

impl Documents {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(limits: &Auth) -> Self {
        Self {
            limits: limits.clone(),
            begun: Instant::now(),
            bytes: Arc::default(),
            flights: AtomicUsize::new(0),
            entries: OnceLock::new(),
        }
    }

    /// The ceilings.
    #[must_use]
    pub fn limits(&self) -> &Auth {
        &self.limits
    }

    /// A question; it is there from now on.
    #[must_use]
    pub fn entry(&self, key: &Digest) -> Arc<Slot<Entry>> {
        let entries = self.entries.get_or_init(|| Slots::new(self.limits.documents_max));
        let make = || Entry {
            document: ArcSwapOption::empty(),
            pause_until_ms: AtomicU64::new(0),
            touched_ms: AtomicU64::new(0),
            spent_until_ms: AtomicU64::new(0),
            flying: AtomicBool::new(false),
            landed: Notify::new(),
        };
        let entry = entries.get_or_put(key, make, |entry| entry.touched_ms.load(Ordering::Relaxed));
        entry.value.touched_ms.store(self.ms(Instant::now()), Ordering::Relaxed);
        entry
    }

    /// What is known of a question: at most `max_age_ms` old or asked for since `since`, or at most `or_stale_ms` old if whoever is
    /// asked is away.
    #[must_use]
    pub fn look(&self, entry: &Entry, max_age_ms: u64, or_stale_ms: u64, since: Instant) -> Known {
        let now = Instant::now();
        self.look_at(entry, max_age_ms, or_stale_ms, since, now)
    }

    fn look_at(&self, entry: &Entry, max_age_ms: u64, or_stale_ms: u64, since: Instant, now: Instant) -> Known {
        let pause_until_ms = entry.pause_until_ms.load(Ordering::Relaxed);
        let (fails, away) = (pause_until_ms != 0, self.ms(now) < pause_until_ms);
        let Some(document) = entry.document.load_full() else {
            return if away { Known::Away } else { Known::Nothing };
        };
        let is_good = (200..300).contains(&document.status);
        let max_age_ms = if is_good { max_age_ms } else { max_age_ms.min(NEGATIVE_MS) };
        let age_ms = document.age_ms(now);
        if document.at >= since {
            return Known::Fresh(document);
        }
        if age_ms <= max_age_ms {
            let aging = is_good && age_ms > max_age_ms / 2 && !away;
            return if aging { Known::Aging(document) } else { Known::Fresh(document) };
        }
        match (is_good && age_ms <= or_stale_ms, fails, away) {
            (true, true, true) => Known::Fresh(document),
            // No request waits for somebody who was away the last time.
            (true, true, false) => Known::Aging(document),
            (_, _, true) => Known::Away,
            (_, _, false) if self.may_ask(entry, now) => Known::Nothing,
            // It was asked a moment ago, time and again.
            _ if age_ms <= IN_A_ROW * AGAIN_MS => Known::Fresh(document),
            _ => Known::Away,
        }
    }

    fn may_ask(&self, entry: &Entry, now: Instant) -> bool {
        entry.spent_until_ms.load(Ordering::Relaxed) + AGAIN_MS <= self.ms(now) + IN_A_ROW * AGAIN_MS
    }

    fn spend(&self, entry: &Entry, now: Instant) {
        let next = |spent: u64| Some(spent.max(self.ms(now)) + AGAIN_MS);
        let _ = entry.spent_until_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// Keeps an answer that was asked for at a time. One that is not 2xx does not take the place of one that is.
    pub fn keep(&self, entry: &Entry, status: u16, body: Bytes, at: Instant) {
        let is_good = |status: u16| (200..300).contains(&status);
        let before = entry.document.load();
        if !is_good(status) && before.as_ref().is_some_and(|before| is_good(before.status)) {
            return self.failed(entry, Instant::now());
        }
        let bytes = body.len() as u64;
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.limits.documents_bytes_max {
            tracing::warn!("answers for auth take more than auth.documents_bytes_max; all are forgotten");
            self.entries.get().into_iter().for_each(Slots::clear);
        }
        let digest: [u8; 32] = Sha256::digest(&body).into();
        let version = u64::from_le_bytes(digest[..8].try_into().unwrap_or_default());
        let weight = Weight { bytes, all: Arc::clone(&self.bytes) };
        entry.document.store(Some(Arc::new(Document { status, body, version, at, _weight: weight })));
        entry.pause_until_ms.store(0, Ordering::Relaxed);
    }

    /// Whoever was asked has not answered.
    pub fn failed(&self, entry: &Entry, now: Instant) {
        entry.pause_until_ms.store(self.ms(now) + PAUSE_MS, Ordering::Relaxed);
    }

    fn ms(&self, now: Instant) -> u64 {
        clock::millis(now.saturating_duration_since(self.begun))
    }
}

impl Document {
    /// How old it is, in milliseconds.
    #[must_use]
    pub fn age_ms(&self, now: Instant) -> u64 {
        clock::millis(now.saturating_duration_since(self.at))
    }
}

/// A question on its way. Dropped, it has landed.
struct Flight {
    documents: Arc<Documents>,
    entry: Arc<Slot<Entry>>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.documents.flights.fetch_sub(1, Ordering::Relaxed);
        self.entry.value.flying.store(false, Ordering::Release);
        self.entry.value.landed.notify_waiters();
    }
}

/// Asks once, however many want to know; whoever else comes meanwhile waits for the same answer, at most until `limit` is
/// over. With a `limit` of zero nobody waits. `ask` is not called if it is on its way, or if too many are.
pub async fn asked_once<F>(
    documents: &Arc<Documents>,
    entry: &Arc<Slot<Entry>>,
    limit: Duration,
    ask: impl FnOnce() -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut landed = pin!(entry.value.landed.notified());
    // From here on no landing is missed.
    landed.as_mut().enable();
    if !entry.value.flying.swap(true, Ordering::Acquire) {
        let under_way = documents.flights.fetch_add(1, Ordering::Relaxed);
        let flight = Flight { documents: Arc::clone(documents), entry: Arc::clone(entry) };
        if under_way >= documents.limits.fetches_max {
            return;
        }
        documents.spend(&entry.value, Instant::now());
        let asking = ask();
        tokio::spawn(async move {
            asking.await;
            drop(flight);
        });
    }
    if !limit.is_zero() {
        let _ = tokio::time::timeout(limit, landed).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents() -> Arc<Documents> {
        Arc::new(Documents::new(&Auth { documents_bytes_max: 1000, ..Auth::default() }))
    }

    fn told(known: &Known) -> &'static str {
        match known {
            Known::Fresh(_) => "fresh",
            Known::Aging(_) => "aging",
            Known::Nothing => "nothing",
            Known::Away => "away",
        }
    }

    #[test]
    fn an_answer_is_young_then_aging_then_serves_while_the_source_is_away() {
        let documents = documents();
        let entry = documents.entry(&[1; 32]);
        let (entry, begun) = (&entry.value, Instant::now());
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let later = at(1_000_000);
        let look = |ms: u64| told(&documents.look_at(entry, 10_000, 60_000, later, at(ms)));
        assert_eq!(look(0), "nothing");
        documents.failed(entry, at(0));
        assert_eq!((look(10), look(PAUSE_MS + 10)), ("away", "nothing"));
        documents.keep(entry, 200, "keys".into(), at(0));
        assert_eq!(
            [look(0), look(5_000), look(5_001), look(10_000), look(10_001)],
            ["fresh", "fresh", "aging", "aging", "nothing"]
        );
        documents.failed(entry, at(59_900));
        assert_eq!([look(59_950), look(60_001), look(61_000)], ["fresh", "away", "nothing"]);
        documents.failed(entry, at(30_000));
        assert_eq!([look(30_999), look(31_001)], ["fresh", "aging"], "nobody waits for who was away");
        documents.keep(entry, 404, "gone".into(), at(6_000));
        assert_eq!(look(6_001), "aging", "an error does not take the place of an answer");
    }

    #[test]
    fn an_answer_that_is_an_error_is_believed_for_a_moment() {
        let documents = documents();
        let entry = documents.entry(&[1; 32]);
        let begun = Instant::now();
        documents.keep(&entry.value, 404, Bytes::new(), begun);
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let look = |ms: u64| told(&documents.look_at(&entry.value, 3_600_000, 0, at(10_000), at(ms)));
        assert_eq!((look(NEGATIVE_MS), look(NEGATIVE_MS + 1)), ("fresh", "nothing"));
    }

    #[test]
    fn what_must_be_new_is_asked_for_again_but_not_without_end() {
        let documents = documents();
        let entry = documents.entry(&[1; 32]);
        let (entry, begun) = (&entry.value, Instant::now());
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let look = |since: u64, ms: u64| told(&documents.look_at(entry, 0, 0, at(since), at(ms)));
        for came in (0..IN_A_ROW).map(|number| 1 + 9 * number) {
            assert_eq!(look(came, came), "nothing", "{came}");
            documents.spend(entry, at(came));
            documents.keep(entry, 200, "keys".into(), at(came + 1));
            assert_eq!(look(came, came + 2), "fresh", "it was asked for since this request came");
        }
        assert_eq!(look(100, 100), "fresh", "it was asked for ten times in a moment");
        assert_eq!(look(1_100, 1_100), "nothing", "and is asked for once a second from then on");
    }

    #[test]
    fn bytes_are_bounded() {
        let documents = documents();
        for number in 0..20 {
            let entry = documents.entry(&[number; 32]);
            documents.keep(&entry.value, 200, vec![0; 100].into(), Instant::now());
        }
        assert!(documents.bytes.load(Ordering::Relaxed) <= 1000);
    }

    #[tokio::test]
    async fn many_that_ask_are_one_and_a_hang_up_takes_nothing_from_the_others() {
        let (documents, asked) = (documents(), Arc::new(AtomicUsize::new(0)));
        let entry = documents.entry(&[1; 32]);
        let ask = |limit: Duration| {
            let (documents, entry, asked) = (Arc::clone(&documents), Arc::clone(&entry), Arc::clone(&asked));
            async move {
                let asking = || {
                    let (documents, entry) = (Arc::clone(&documents), Arc::clone(&entry));
                    async move {
                        asked.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        documents.keep(&entry.value, 200, "x".into(), Instant::now());
                    }
                };
                asked_once(&documents, &entry, limit, asking).await;
                matches!(documents.look(&entry.value, 60_000, 0, Instant::now()), Known::Fresh(_))
            }
        };
        let long = Duration::from_secs(15);
        assert!(tokio::time::timeout(Duration::from_millis(1), ask(long)).await.is_err(), "the first one hangs up");
        let all: Vec<_> = (0..50).map(|_| tokio::spawn(ask(long))).collect();
        for one in all {
            assert!(one.await.unwrap());
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert_eq!(documents.flights.load(Ordering::Relaxed), 0);
    }
}
