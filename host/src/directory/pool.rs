// SPDX-License-Identifier: Apache-2.0
//! The keys of one vendor, as requests choose among them: the first tier that has a key which works, and in it by weight. A
//! key that the vendor refuses cools down. Choosing takes no lock.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::view::PoolKey;
use crate::clock;
use crate::keys::Secret;

/// A key that is not valid, or whose account has no money, is left alone for so long.
pub const COOL_DOWN_REFUSED: Duration = Duration::from_secs(300);
/// A key whose limits are used up is left alone for so long, if the vendor does not say how long.
pub const COOL_DOWN_LIMITED: Duration = Duration::from_secs(20);
/// A key is left alone no longer than this, whatever the vendor says.
const COOL_DOWN_MAX: Duration = Duration::from_secs(3600);

/// The keys of a vendor.
pub struct Pool {
    members: Vec<Member>,
    /// Times are counted from here.
    zero: Instant,
}

/// A key with its cool-down.
pub struct Member {
    /// The key.
    pub key: PoolKey,
    fingerprint: [u8; 32],
    /// Until when it cools down, in milliseconds since the pool's zero.
    until_ms: AtomicU64,
}

/// The choice of one request: what it begins with a key, it goes on with, since work that a vendor has begun belongs to an
/// account.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    seed: u64,
    held: Arc<ArcSwapOption<String>>,
}

impl Turn {
    /// The turn of the request of this id: the same one for the same id, as after a restart.
    #[must_use]
    pub fn of(id: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        Self { seed: hasher.finish(), held: Arc::default() }
    }

    /// Keeps to a key.
    pub fn hold(&self, member: &Member) {
        if !self.holds(member) {
            self.held.store(Some(Arc::new(member.key.id.to_string())));
        }
    }

    /// Whether it keeps to a key.
    #[must_use]
    pub fn holds(&self, member: &Member) -> bool {
        self.held.load().as_ref().is_some_and(|held| **held == *member.key.id)
    }
}

impl Pool {
    /// A pool of these keys; one that was in a pool before goes on cooling down.
    #[must_use]
    pub fn of(keys: &[PoolKey], before: Option<&Self>) -> Self {
        let member = |key: &PoolKey| {
            let fingerprint = key.secret.fingerprint();
            let known = before.and_then(|pool| {
                pool.members.iter().find(|member| member.key.id == key.id && member.fingerprint == fingerprint)
            });
            let until_ms = known.map_or(0, |member| member.until_ms.load(Ordering::Relaxed)).into();
            Member { key: key.clone(), fingerprint, until_ms }
        };
        let zero = before.map_or_else(Instant::now, |pool| pool.zero);
        Self { members: keys.iter().map(member).collect(), zero }
    }

    /// The key for a request. When all of them cool down, the one that has done so for longest: the vendor may have changed
    /// its mind. `goes_on` is whether the request goes on with what was begun.
    #[must_use]
    pub fn pick(&self, turn: &Turn, goes_on: bool, now: Instant) -> Option<&Member> {
        let held = self.members.iter().find(|member| turn.holds(member));
        if let Some(held) = held.filter(|member| goes_on || self.is_ready(member, now)) {
            return Some(held);
        }
        let ready = self.members.iter().filter(|member| self.is_ready(member, now));
        let Some(tier) = ready.clone().map(|member| member.key.tier).min() else {
            return self.members.iter().min_by_key(|member| member.until_ms.load(Ordering::Relaxed));
        };
        let of_tier = ready.filter(|member| member.key.tier == tier);
        of_tier.max_by(|one, other| turn.lot(one).total_cmp(&turn.lot(other)))
    }

    /// All keys.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.members.iter().map(Member::secret)
    }

    /// Whether a key is left that does not cool down.
    #[must_use]
    pub fn has_ready(&self, now: Instant) -> bool {
        self.members.iter().any(|member| self.is_ready(member, now))
    }

    /// How many keys can be used, and how many cool down.
    #[must_use]
    pub fn count(&self, now: Instant) -> (usize, usize) {
        let ready = self.members.iter().filter(|member| self.is_ready(member, now)).count();
        (ready, self.members.len() - ready)
    }

    /// Leaves a key alone for a while.
    pub fn cool(&self, member: &Member, pause: Duration, now: Instant) {
        member.until_ms.fetch_max(self.ms(now + pause.min(COOL_DOWN_MAX)), Ordering::Relaxed);
    }

    /// Whether a key of this id cools down.
    #[must_use]
    pub fn is_cooling(&self, id: &str, now: Instant) -> bool {
        self.members.iter().any(|member| *member.key.id == *id && !self.is_ready(member, now))
    }

    fn is_ready(&self, member: &Member, now: Instant) -> bool {
        member.until_ms.load(Ordering::Relaxed) <= self.ms(now)
    }

    fn ms(&self, at: Instant) -> u64 {
        clock::millis(at.saturating_duration_since(self.zero))
    }
}

impl Member {
    /// The key itself.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.key.secret
    }
}

impl Turn {
    /// What a key draws; the highest lot wins, in proportion to the weights (Efraimidis and Spirakis, 2006).
    #[allow(clippy::cast_precision_loss, reason = "a lot of 53 bits")]
    fn lot(&self, member: &Member) -> f64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, &*member.key.id).hash(&mut hasher);
        let uniform = ((hasher.finish() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        uniform.ln() / f64::from(member.key.weight.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::settings::Tier;

    fn key(id: &str, tier: Tier, weight: u32) -> PoolKey {
        let secret = Arc::new(Secret::new(id.as_bytes().to_vec()));
        PoolKey { id: id.into(), name: id.to_owned(), tier, weight, secret }
    }

    fn picked(pool: &Pool, turn: &Turn, now: Instant) -> String {
        pool.pick(turn, false, now).unwrap().key.id.to_string()
    }

    #[test]
    fn a_later_tier_is_used_only_while_all_of_the_earlier_ones_cool_down() {
        let keys = [key("a", Tier::Primary, 1), key("b", Tier::Primary, 1), key("z", Tier::Backup, 100)];
        let (pool, now) = (Pool::of(&keys, None), Instant::now());
        let turn = Turn::of("r");
        let first = pool.pick(&turn, false, now).unwrap();
        pool.cool(first, Duration::from_secs(60), now);
        let second = pool.pick(&turn, false, now).unwrap();
        assert_ne!(first.key.id, second.key.id);
        assert_eq!(second.key.tier, Tier::Primary);
        pool.cool(second, Duration::from_secs(30), now);
        assert_eq!(picked(&pool, &turn, now), "z");
        let again = Pool::of(&keys, Some(&pool));
        assert_eq!(picked(&again, &turn, now), "z", "a new generation does not forget");
        pool.cool(pool.pick(&turn, false, now).unwrap(), Duration::from_secs(90), now);
        assert!(!pool.has_ready(now));
        assert_eq!(picked(&pool, &turn, now), *second.key.id, "the first to be ready again");
        assert_eq!(picked(&pool, &turn, now + Duration::from_secs(31)), *second.key.id);
    }

    #[test]
    fn what_was_begun_with_a_key_goes_on_with_it() {
        let keys: Vec<_> = ["a", "b", "c"].iter().map(|id| key(id, Tier::Primary, 1)).collect();
        let (pool, now) = (Pool::of(&keys, None), Instant::now());
        let turn = Turn::of("r");
        let member = pool.pick(&turn, false, now).unwrap();
        turn.hold(member);
        pool.cool(member, Duration::from_secs(60), now);
        assert_eq!(pool.pick(&turn, true, now).unwrap().key.id, member.key.id);
        assert_ne!(pool.pick(&turn, false, now).unwrap().key.id, member.key.id, "something new need not");
    }

    #[test]
    fn keys_of_a_tier_are_used_by_weight() {
        let keys = [key("light", Tier::Primary, 1), key("heavy", Tier::Primary, 3)];
        let (pool, now) = (Pool::of(&keys, None), Instant::now());
        let heavy = (0..4000).filter(|number| picked(&pool, &Turn::of(&number.to_string()), now) == "heavy").count();
        assert!((2800..3200).contains(&heavy), "{heavy}");
    }
}
