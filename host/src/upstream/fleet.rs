// SPDX-License-Identifier: Apache-2.0
//! The endpoints of a service as they are now. Who asks takes the list that is in force and keeps it for one request; who finds others
//! puts a new list in its place. Members that stay keep how they are doing, and what is under way at one that goes goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::endpoint::Endpoint;
use super::health::{clock, micros};
use super::{Breaker, Verdict};
use crate::config;

/// How fast a long answer time is forgotten: after this time, a third of it is left.
const FORGOTTEN: Duration = Duration::from_secs(10);
/// What a failure counts as, and an endpoint of which nothing is known that has requests under way, in seconds.
const PENALTY_S: f64 = 1.0;

/// One endpoint of a service.
#[derive(Clone)]
pub struct Member {
    /// Where it is.
    pub endpoint: Arc<Endpoint>,
    /// Its share.
    pub weight: u32,
    /// Higher ones are asked when none of a lower one is well.
    pub priority: u32,
    /// How it is doing as a member.
    pub standing: Arc<Standing>,
    /// What distinguishes it, the same in every process.
    pub(super) seed: u64,
    identity: Arc<str>,
}

/// How a member is doing.
#[derive(Debug, Default)]
pub struct Standing {
    /// By its answers.
    pub breaker: Breaker,
    /// When it was new; 0 when it has its whole share.
    new_since_us: AtomicU64,
    /// Its probes say that it is down.
    down: AtomicBool,
    /// Answers to probes in a row that say otherwise.
    otherwise: AtomicU32,
    /// Peak of the time to the first byte in seconds, as the bits of a float.
    peak: AtomicU64,
    peak_at_us: AtomicU64,
}

/// An endpoint that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its base URL.
    pub url: String,
    /// Its address, if that is not to be looked up.
    pub at: Option<SocketAddr>,
    /// Its share.
    pub weight: u32,
    /// Higher ones are asked when none of a lower one is well.
    pub priority: u32,
}

/// What endpoints that are found are made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mould {
    /// PEM text with further roots of trust.
    pub ca: Option<Vec<u8>>,
    /// Speak HTTP/2 without negotiation.
    pub http2: bool,
    /// They are probed: a new one is asked when it has passed the first probe.
    pub probed: bool,
    /// As many are taken.
    pub max: usize,
}

/// What has come of a new list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// Endpoints that were not there before.
    pub come: usize,
    /// Endpoints that are there no more.
    pub gone: usize,
    /// Endpoints that were found and are not taken, since there are too many or they are none.
    pub left_out: usize,
}

/// The endpoints of a service.
pub struct Fleet {
    members: ArcSwap<Vec<Member>>,
    /// What the balance counts.
    pub turn: AtomicUsize,
    mould: Mould,
    /// The first list is known. Whoever came before that waits for the news.
    is_known: AtomicBool,
    news: watch::Sender<bool>,
}

impl Fleet {
    /// Endpoints that are written down. Those that were in the one before keep how they are doing.
    #[must_use]
    pub fn fixed(members: Vec<Member>, before: Option<&Self>) -> Self {
        let kept = before.map(Self::now).unwrap_or_default();
        let members = members.into_iter().map(|member| match kept.iter().find(|old| old.is(&member)) {
            Some(old) => Member { standing: Arc::clone(&old.standing), ..member },
            None if kept.is_empty() => member,
            None => {
                member.standing.is_new(Instant::now());
                member
            }
        });
        Self::of(members.collect(), Mould::default(), true)
    }

    /// None yet; they are looked for.
    #[must_use]
    pub fn sought(mould: Mould) -> Self {
        Self::of(Vec::new(), mould, false)
    }

    fn of(members: Vec<Member>, mould: Mould, known: bool) -> Self {
        let members = ArcSwap::from_pointee(members);
        let (is_known, news) = (AtomicBool::new(known), watch::Sender::new(known));
        Self { members, turn: AtomicUsize::new(0), mould, is_known, news }
    }

    /// Whether it makes endpoints in this way.
    #[must_use]
    pub fn is_made_by(&self, mould: &Mould) -> bool {
        self.mould == *mould
    }

    /// The members that are in force.
    #[must_use]
    pub fn now(&self) -> Arc<Vec<Member>> {
        self.members.load_full()
    }

    /// The members that are in force; before the first ones are known, those, if they come within this time.
    pub async fn known(&self, limit: Duration) -> Arc<Vec<Member>> {
        if !self.is_known.load(Ordering::Acquire) {
            let mut news = self.news.subscribe();
            // Late is as good as never: the list is empty then.
            let _ = tokio::time::timeout(limit, news.wait_for(|known| *known)).await;
        }
        self.now()
    }

    /// Puts others in force; who asks already goes on where it is. Only one task may do this for a fleet.
    pub fn put(&self, found: &[Found], now: Instant) -> Changed {
        let before = self.now();
        let is_first = !self.is_known.load(Ordering::Acquire);
        let mut members: Vec<Member> = Vec::with_capacity(found.len());
        for found in found {
            if members.len() >= self.mould.max {
                break;
            }
            let identity = identity(&found.url, found.at);
            if members.iter().any(|member| *member.identity == identity) {
                continue;
            }
            match before.iter().find(|member| *member.identity == identity) {
                Some(old) => {
                    members.push(Member { weight: found.weight, priority: found.priority, ..old.clone() });
                }
                None => members.extend(self.made(found, (!is_first).then_some(now))),
            }
        }
        let kept = members.iter().filter(|member| before.iter().any(|old| old.identity == member.identity)).count();
        let (come, gone) = (members.len() - kept, before.len() - kept);
        let left_out = found.len() - members.len().min(found.len());
        self.members.store(Arc::new(members));
        if is_first {
            self.is_known.store(true, Ordering::Release);
            self.news.send_replace(true);
        }
        Changed { come, gone, left_out }
    }

    fn made(&self, found: &Found, new_since: Option<Instant>) -> Option<Member> {
        let endpoint = Endpoint::parse(&found.url, self.mould.ca.as_deref(), self.mould.http2).ok()?;
        let endpoint = match found.at {
            Some(at) => endpoint.at(at),
            None => endpoint,
        };
        let member = Member::named(identity(&found.url, found.at), Arc::new(endpoint), found.weight, found.priority);
        if let Some(now) = new_since {
            member.standing.is_new(now);
            member.standing.down.store(self.mould.probed, Ordering::Relaxed);
        }
        Some(member)
    }
}

/// What distinguishes an endpoint from others of its fleet.
fn identity(url: &str, at: Option<SocketAddr>) -> String {
    at.map_or_else(|| url.to_owned(), |at| format!("{url} {at}"))
}

impl Member {
    /// A member at a URL that is written down.
    #[must_use]
    pub fn new(url: &str, endpoint: Arc<Endpoint>, weight: u32, priority: u32) -> Self {
        Self::named(url.to_owned(), endpoint, weight, priority)
    }

    fn named(identity: String, endpoint: Arc<Endpoint>, weight: u32, priority: u32) -> Self {
        let digest = Sha256::digest(identity.as_bytes());
        let seed = digest.first_chunk().copied().map_or(0, u64::from_be_bytes);
        Self { endpoint, weight, priority, standing: Arc::default(), seed, identity: identity.into() }
    }

    /// Whether it is the same, reached in the same way.
    fn is(&self, other: &Self) -> bool {
        self.identity == other.identity && Arc::ptr_eq(&self.endpoint.health, &other.endpoint.health)
    }

    /// Whether to ask here before those that are ill.
    #[must_use]
    pub fn is_well(&self, rules: &config::Breaker, now: Instant) -> bool {
        !self.standing.is_down() && self.endpoint.health.healthy(now) && self.standing.breaker.healthy(rules, now)
    }

    /// How much of its slow start has passed, and how long that is, in microseconds; none when it is over.
    pub(super) fn warmth(&self, rules: &config::Breaker, now: Instant) -> Option<(u64, u64)> {
        let since = self.standing.new_since_us.load(Ordering::Relaxed);
        if since == 0 {
            return None;
        }
        let (passed, whole) = (clock(now).saturating_sub(since), u64::from(rules.slow_start_ms) * 1000);
        if passed >= whole {
            self.standing.new_since_us.store(0, Ordering::Relaxed);
            return None;
        }
        Some((passed, whole))
    }

    /// What asking here costs in time: how long it takes, for as many as are under way (Finagle's `PeakEwma`).
    pub(super) fn cost(&self, now: Instant) -> f64 {
        let under_way = self.endpoint.health.in_flight();
        let peak = self.standing.peak(now);
        if peak == 0.0 && under_way > 0 {
            return PENALTY_S + f64::from(under_way);
        }
        peak * f64::from(under_way + 1)
    }

    /// A request goes here.
    pub fn begins(&self, rules: &config::Breaker, now: Instant) {
        self.standing.breaker.begin(rules, now);
    }

    /// What has become of it; says for how long the member is ejected if it is by this.
    pub fn records(&self, verdict: Verdict, took: Duration, rules: &config::Breaker, now: Instant) -> Option<Duration> {
        match verdict {
            Verdict::Well => self.standing.took(took, now),
            Verdict::Ill | Verdict::Later(_) => self.standing.took(took.max(Duration::from_secs_f64(PENALTY_S)), now),
            Verdict::Neutral => {}
        }
        self.standing.breaker.record(verdict, rules, now)
    }
}

impl Standing {
    /// Its share comes little by little from now on.
    pub(super) fn is_new(&self, now: Instant) {
        self.new_since_us.store(clock(now), Ordering::Relaxed);
    }

    /// Whether its probes say that it is down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Takes note of a probe; says what the endpoint is from now on if that is another thing than before.
    pub fn probed(&self, is_good: bool, rules: &config::Probe, now: Instant) -> Option<bool> {
        let was_down = self.is_down();
        if is_good != was_down {
            self.otherwise.store(0, Ordering::Relaxed);
            return None;
        }
        let in_a_row = self.otherwise.fetch_add(1, Ordering::Relaxed) + 1;
        // One that has never been well has its slow start before it, and needs one good answer.
        let is_unknown = was_down && self.new_since_us.load(Ordering::Relaxed) != 0;
        let enough = match (was_down, is_unknown) {
            (true, true) => 1,
            (true, false) => rules.healthy_after,
            (false, _) => rules.unhealthy_after,
        };
        if in_a_row < enough {
            return None;
        }
        self.otherwise.store(0, Ordering::Relaxed);
        if was_down {
            self.is_new(now);
        }
        self.down.store(!was_down, Ordering::Relaxed);
        Some(is_good)
    }

    /// Takes note of a time to the first byte. Two at the same time may lose one of them: it is an average.
    pub(super) fn took(&self, took: Duration, now: Instant) {
        let (old, sample) = (self.peak(now), took.as_secs_f64());
        let new = if sample >= old { sample } else { (old * 7.0 + sample) / 8.0 };
        self.peak.store(new.to_bits(), Ordering::Relaxed);
        self.peak_at_us.store(clock(now), Ordering::Relaxed);
    }

    /// What is left of the longest time.
    fn peak(&self, now: Instant) -> f64 {
        let peak = f64::from_bits(self.peak.load(Ordering::Relaxed));
        if peak == 0.0 {
            return peak;
        }
        let passed = clock(now).saturating_sub(self.peak_at_us.load(Ordering::Relaxed));
        #[allow(clippy::cast_precision_loss, reason = "an average")]
        let aged = passed as f64 / micros(FORGOTTEN) as f64;
        peak * (-aged).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: fn() -> config::Probe =
        || config::Probe { path: "/".to_owned(), every_ms: 1, timeout_ms: 1, healthy_after: 2, unhealthy_after: 3 };

    fn found(url: &str) -> Found {
        Found { url: url.to_owned(), at: None, weight: 1, priority: 0 }
    }

    fn fleet(probed: bool) -> Fleet {
        Fleet::sought(Mould { max: 3, probed, ..Mould::default() })
    }

    #[test]
    fn who_stays_keeps_its_state_and_who_comes_later_starts_slowly() {
        let (fleet, now) = (fleet(false), Instant::now());
        let rules = config::Breaker::default();
        let first = fleet.put(&[found("http://a"), found("http://b"), found("http://a")], now);
        assert_eq!(first, Changed { come: 2, gone: 0, left_out: 1 });
        let before = fleet.now();
        assert!(before.iter().all(|member| member.warmth(&rules, now).is_none()), "the first ones are not new");
        let second = fleet.put(&[found("http://b"), found("http://c"), found("x"), found("http://d")], now);
        assert_eq!(second, Changed { come: 2, gone: 1, left_out: 1 });
        let after = fleet.now();
        assert!(Arc::ptr_eq(&before[1].endpoint, &after[0].endpoint));
        assert!(after[0].warmth(&rules, now).is_none() && after[1].warmth(&rules, now).is_some());
        assert_eq!(before.len(), 2, "who has the old list keeps it");
        let third = fleet.put(&["a", "b", "c", "d"].map(|host| found(&format!("http://{host}"))), now);
        assert_eq!((third.left_out, fleet.now().len()), (1, 3));
    }

    #[test]
    fn probes_take_an_endpoint_out_and_bring_it_back_and_a_new_one_in() {
        let (standing, rules, now) = (Standing::default(), PROBE(), Instant::now());
        let told: Vec<_> = [false, false, true, false, false, false, false, true, false, true, true, true]
            .map(|good| standing.probed(good, &rules, now))
            .to_vec();
        let changes: Vec<_> = told.iter().enumerate().filter_map(|(at, told)| told.map(|told| (at, told))).collect();
        assert_eq!(changes, [(5, false), (10, true)]);

        let fleet = fleet(true);
        fleet.put(&[found("http://a")], now);
        fleet.put(&[found("http://a"), found("http://b")], now);
        let members = fleet.now();
        let breaker = config::Breaker::default();
        assert!(members[0].is_well(&breaker, now) && !members[1].is_well(&breaker, now));
        assert_eq!(members[1].standing.probed(true, &rules, now), Some(true));
        assert!(members[1].is_well(&breaker, now));
    }

    #[tokio::test]
    async fn who_comes_before_the_first_list_waits_for_it() {
        let fleet = Arc::new(fleet(false));
        assert!(fleet.known(Duration::from_millis(10)).await.is_empty());
        let waiting = {
            let fleet = Arc::clone(&fleet);
            tokio::spawn(async move { fleet.known(Duration::from_secs(10)).await.len() })
        };
        tokio::task::yield_now().await;
        fleet.put(&[found("http://a")], Instant::now());
        assert_eq!(waiting.await.unwrap(), 1);
    }
}
