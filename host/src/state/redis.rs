// SPDX-License-Identifier: Apache-2.0
//! Counters that many nodes share, in Redis.
//!
//! A decision is one script, and one round trip. All keys have the same hash tag, `{prefix}`, so that they lie in one slot of
//! a cluster: a decision is about all counters of a call or none. What a call has reserved stands beside what was used, under
//! the name of its permit; settling moves it. Nobody waits for that: [`sender`] tells the store later, and until the store has
//! acknowledged it, it stands in the journal.
//!
//! A store that does not answer in time is away: from then on no call waits for it, until the sender has reached it again and
//! has told it everything that it is owed.

mod sender;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::Script;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

use super::charge::{Algorithm, Charge, Exceeded, Remaining, Window};
use super::journal::Journal;
use super::link::{Link, Server};
use super::owed::{Owed, Step};
use crate::clock;
use crate::config::Away;

pub(super) use sender::Sender;

/// Settled calls on their way to the sender; one more waits, but no caller does.
const OUTBOX_MAX: usize = 65_536;
/// Largest number that the store's scripts count exactly: as nano-dollars, about nine million dollars.
pub(super) const EXACT_MAX: u64 = (1 << 53) - 1;

/// Where the store is, and how it is spoken to.
pub struct Redis {
    /// `redis://host:port/database`, or `rediss://` for TLS.
    pub url: String,
    /// Name to log in with.
    pub user: Option<String>,
    /// Password to log in with.
    pub password: Option<String>,
    /// PEM with the roots of trust for TLS; none for those of the system.
    pub ca: Option<Vec<u8>>,
    /// Begin of every key.
    pub prefix: String,
    /// How long a call waits for a decision.
    pub timeout: Duration,
    /// What happens to calls while the store is away.
    pub away: Away,
    /// After how long the calls at a time of a node that is gone are given back.
    pub lease: Duration,
    /// Bytes of the journal beyond which calls are refused while the store is away.
    pub unsent_bytes_max: u64,
}

impl Redis {
    fn server(&self) -> Server {
        let Self { url, user, password, ca, .. } = self;
        Server { url: url.clone(), user: user.clone(), password: password.clone(), ca: ca.clone() }
    }
}

/// A line of the journal.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Line {
    /// A settled call of a session.
    #[serde(rename = "o")]
    Owed(String, Owed),
    /// How far the store has come with a session.
    #[serde(rename = "a")]
    Acknowledged(String, u64),
}

/// The store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IsAway;

/// A decision of the store.
pub(super) enum Decision {
    Granted(Vec<(Window, Remaining)>),
    Refused(Exceeded),
}

/// The shared store, as calls see it.
pub(super) struct Shared {
    link: Link,
    timeout: Duration,
    admit: Script,
    tag: String,
    away: AtomicBool,
    pub(super) mode: Away,
    wake: Notify,
    session: String,
    permits: AtomicU64,
    numbers: AtomicU64,
    /// The last number that the store has acknowledged.
    acknowledged: AtomicU64,
    outbox: mpsc::Sender<Owed>,
    journal: Option<Arc<Journal>>,
    unsent_bytes_max: u64,
    lease: Duration,
    /// Calls at a time under way: counter and member.
    leases: papaya::HashMap<(Arc<str>, Arc<str>), ()>,
}

impl Shared {
    /// A store that is not yet asked, and what will tell it what it is owed. `session` must be new; `recorded` is what the
    /// journal has of earlier ones.
    pub(super) fn new(
        redis: &Redis,
        session: String,
        journal: Option<Arc<Journal>>,
        recorded: Vec<String>,
    ) -> Result<(Arc<Self>, Sender), String> {
        let (outbox, heard) = mpsc::channel(OUTBOX_MAX);
        let shared = Arc::new(Self {
            link: Link::new(&redis.server())?,
            timeout: redis.timeout,
            admit: Script::new(include_str!("redis/admit.lua")),
            tag: format!("{{{}}}:", redis.prefix),
            // Until the sender has reached it.
            away: AtomicBool::new(true),
            mode: redis.away,
            wake: Notify::new(),
            session,
            permits: AtomicU64::new(1),
            numbers: AtomicU64::new(1),
            acknowledged: AtomicU64::new(0),
            outbox,
            journal,
            unsent_bytes_max: redis.unsent_bytes_max,
            lease: redis.lease,
            leases: papaya::HashMap::new(),
        });
        let sender = Sender::new(Arc::clone(&shared), heard, recorded);
        Ok((shared, sender))
    }

    pub(super) fn journal(&self) -> Option<&Arc<Journal>> {
        self.journal.as_ref()
    }

    /// Whether there is room to remember what calls use while the store is away.
    pub(super) fn has_room(&self) -> bool {
        self.journal.as_ref().is_none_or(|journal| journal.bytes() < self.unsent_bytes_max)
    }

    /// Whether the store is away now.
    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Settled calls that the store has not acknowledged.
    pub(super) fn unsettled(&self) -> u64 {
        let given = self.numbers.load(Ordering::Relaxed) - 1;
        given.saturating_sub(self.acknowledged.load(Ordering::Relaxed))
    }

    /// Charges all counters, or none of them; the permit names what was reserved.
    pub(super) async fn admit(&self, charges: &[Charge]) -> Result<(Arc<str>, Decision), IsAway> {
        if self.is_away() {
            return Err(IsAway);
        }
        let permit: Arc<str> = format!("{}{:x}", self.session, self.permits.fetch_add(1, Ordering::Relaxed)).into();
        let guard = GivenUp { shared: self, permit: &permit, charges };
        let mut script = self.admit.prepare_invoke();
        script.key(self.given_up(&permit));
        for charge in charges {
            script.key(self.counter(&charge.key));
        }
        script.arg(&*permit).arg(clock::millis(self.lease));
        for charge in charges {
            let (limit, burst) = (charge.limit.min(EXACT_MAX), charge.burst.min(EXACT_MAX));
            script
                .arg(how(charge.algorithm))
                .arg(limit)
                .arg(charge.window_ms)
                .arg(burst)
                .arg(charge.cost.min(EXACT_MAX));
        }
        let answer = self.link.ask(&script, self.timeout).await;
        let answer: Vec<i64> = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.lost(&error);
                return Err(IsAway);
            }
        };
        std::mem::forget(guard); // it holds nothing, and there is nothing to undo any more
        match decision(&answer, charges.len()) {
            Some(Decision::Granted(granted)) => {
                self.hold(&permit, charges);
                Ok((permit, Decision::Granted(granted)))
            }
            Some(refused) => Ok((permit, refused)),
            None => {
                self.lost(&format!("it answers {answer:?} to a call"));
                Err(IsAway)
            }
        }
    }

    fn hold(&self, permit: &str, charges: &[Charge]) {
        for (index, charge) in calls_at_a_time(charges) {
            let member = member(permit, index);
            self.leases.pin().insert((Arc::clone(&charge.key), member), ());
        }
    }

    /// Sees that the store will be told of a settled call. What lasts is in the journal when this returns.
    pub(super) fn owe(&self, steps: Vec<Step>, lasting: bool) {
        for step in &steps {
            if let Step::Ended { key, member } = step {
                self.leases.pin().remove(&(Arc::clone(key), Arc::clone(member)));
            }
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let owed = Owed { number, steps };
        let line = Line::Owed(self.session.clone(), owed);
        if lasting {
            self.write(&line);
        }
        let Line::Owed(_, owed) = line else { return };
        if let Err(mpsc::error::TrySendError::Full(owed)) = self.outbox.try_send(owed)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let outbox = self.outbox.clone();
            runtime.spawn(async move { outbox.send(owed).await });
        }
    }

    fn write(&self, line: &Line) {
        let Some(journal) = &self.journal else { return };
        if let Ok(line) = serde_json::to_string(line) {
            journal.append(&line);
        }
    }

    /// From now on no call waits for the store.
    fn lost(&self, error: &str) {
        if !self.away.swap(true, Ordering::Relaxed) {
            tracing::warn!(mode = ?self.mode, "the shared state is away: {error}");
        }
        self.wake.notify_one();
    }

    fn counter(&self, key: &str) -> String {
        format!("{}l:{key}", self.tag)
    }

    fn given_up(&self, permit: &str) -> String {
        format!("{}gone:{permit}", self.tag)
    }
}

/// A permit that nobody waits for any more: whatever of it reaches the store is to be undone.
struct GivenUp<'a> {
    shared: &'a Shared,
    permit: &'a Arc<str>,
    charges: &'a [Charge],
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        let mut steps = vec![Step::GivenUp { key: self.shared.given_up(self.permit).into() }];
        for (index, charge) in self.charges.iter().enumerate() {
            let key = Arc::clone(&charge.key);
            match charge.algorithm {
                // Whether it was taken is not known; a bucket refills by itself.
                Algorithm::TokenBucket => {}
                Algorithm::Concurrency => steps.push(Step::Ended { key, member: member(self.permit, index) }),
                _ => {
                    let permit = Arc::clone(self.permit);
                    steps.push(Step::Used { key, permit, window: 0, kept_ms: 0, amount: 0 });
                }
            }
        }
        self.shared.owe(steps, false);
    }
}

fn decision(answer: &[i64], charges: usize) -> Option<Decision> {
    let (head, rest) = answer.split_at_checked(2)?;
    let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    match head {
        [0, _] if rest.len() == charges * 4 => {
            let granted = rest.chunks_exact(4).filter_map(|each| match each {
                [window, ends, count, reset] => {
                    let window = Window { number: number(*window), ends_ms: number(*ends) };
                    let remaining = Remaining { count: number((*count).max(0)), reset_ms: number(*reset) };
                    Some((window, remaining))
                }
                _ => None,
            });
            Some(Decision::Granted(granted.collect()))
        }
        [index, retry] if *index > 0 => {
            let index = usize::try_from(*index - 1).ok().filter(|index| *index < charges)?;
            Some(Decision::Refused(Exceeded { index, retry_after_ms: u64::try_from(*retry).ok() }))
        }
        _ => None,
    }
}

fn how(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::TokenBucket => "b",
        Algorithm::FixedWindow => "w",
        Algorithm::SlidingWindow => "s",
        Algorithm::Month => "month",
        Algorithm::Total => "total",
        Algorithm::Concurrency => "c",
    }
}

/// The calls at a time among the charges.
fn calls_at_a_time(charges: &[Charge]) -> impl Iterator<Item = (usize, &Charge)> {
    charges.iter().enumerate().filter(|(_, charge)| charge.algorithm == Algorithm::Concurrency)
}

/// The name under which a permit holds a counter; a permit may hold one twice.
pub(super) fn member(permit: &str, index: usize) -> Arc<str> {
    format!("{permit}:{}", index + 1).into()
}

/// What a compaction of the journal leaves: what was not acknowledged, and how far the store has come.
pub(super) fn fold(lines: &[String]) -> Vec<String> {
    let read: Vec<_> = lines.iter().map(|line| serde_json::from_str::<Line>(line).ok()).collect();
    let mut acknowledged = std::collections::HashMap::new();
    for line in read.iter().flatten() {
        if let Line::Acknowledged(session, to) = line {
            let known = acknowledged.entry(session.clone()).or_insert(0);
            *known = (*known).max(*to);
        }
    }
    let is_owed = |line: &Option<Line>| match line {
        Some(Line::Owed(session, owed)) => acknowledged.get(session).is_none_or(|to| owed.number > *to),
        Some(Line::Acknowledged(..)) => false,
        None => true,
    };
    lines.iter().zip(&read).filter(|(_, line)| is_owed(line)).map(|(text, _)| text.clone()).collect()
}
