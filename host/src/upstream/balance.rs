// SPDX-License-Identifier: Apache-2.0
//! Which of the endpoints of a service is asked. Nothing here takes a lock or, up to 64 endpoints, memory.
//!
//! First each endpoint gets a grade: those that are well before those that are ill, a lower priority before a higher one, those
//! that have all their share before those that are still let in slowly. The balance chooses among those of the best grade. An ill one
//! is asked when there is no other: with all down, the caller's request is as good a probe as any.

use std::cmp::Ordering;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::fleet::Member;
use crate::config::{self, Balance};
use crate::random;

/// Endpoints that are graded without taking memory.
const FEW: usize = 64;
/// Grade of an endpoint that is not asked again.
const NEVER: u64 = u64::MAX;
/// Steps in which a new endpoint gets its share.
const STEPS: u64 = 8;

/// How a service chooses.
#[derive(Debug)]
pub struct Rules<'r> {
    /// By what.
    pub balance: Balance,
    /// When an endpoint is ill.
    pub breaker: &'r config::Breaker,
    /// What requests that belong together have in common; none sends them anywhere.
    pub key: Option<u64>,
}

/// The member to ask next: none when all have been tried. `turn` is what the requests of a service share.
pub fn choose(
    members: &[Member],
    tried: &[usize],
    rules: &Rules<'_>,
    turn: &AtomicUsize,
    now: Instant,
) -> Option<usize> {
    let (mut few, mut many) = ([NEVER; FEW], Vec::new());
    let grades: &mut [u64] = if members.len() <= FEW {
        &mut few[..members.len()]
    } else {
        many.resize(members.len(), NEVER);
        &mut many
    };
    for (at, (member, graded)) in members.iter().zip(grades.iter_mut()).enumerate() {
        if !tried.contains(&at) {
            *graded = grade(member, rules, now);
        }
    }
    let best = grades.iter().copied().min().filter(|best| *best != NEVER)?;
    let of_it = || grades.iter().enumerate().filter(|(_, grade)| **grade == best).map(|(at, _)| at);
    let count = of_it().count();
    if count == 1 {
        return of_it().next();
    }
    let nth = |n: usize| of_it().nth(n);
    match rules.balance {
        Balance::RoundRobin => nth(turn.fetch_add(1, Relaxed) % count),
        Balance::Weighted => weighted(members, of_it),
        Balance::LeastBusy => least_busy(members, of_it()),
        Balance::PeakEwma => {
            let first = drawn(count);
            let second = (first + 1 + drawn(count - 1)) % count;
            let (first, second) = (nth(first)?, nth(second)?);
            let cost = |at: usize| members[at].cost(now);
            Some(if cost(second) < cost(first) { second } else { first })
        }
        Balance::Hash => match rules.key {
            Some(key) => of_it().max_by(|a, b| score(&members[*a], key).total_cmp(&score(&members[*b], key))),
            None => weighted(members, of_it),
        },
    }
}

/// The smaller, the better.
fn grade(member: &Member, rules: &Rules<'_>, now: Instant) -> u64 {
    let is_slow = member.warmth(rules.breaker, now).is_some_and(|(passed, whole)| {
        let steps = 1 + passed.saturating_mul(STEPS) / whole.max(1);
        let draw = match rules.key {
            Some(key) => mixed(key ^ member.seed) % STEPS, // what is alike moves over at once
            None => random::below(STEPS),
        };
        draw >= steps
    });
    let is_ill = !member.is_well(rules.breaker, now);
    u64::from(is_ill) << 40 | u64::from(member.priority) << 1 | u64::from(is_slow)
}

fn drawn(below: usize) -> usize {
    usize::try_from(random::below(below as u64)).unwrap_or(0)
}

fn weighted<I: Iterator<Item = usize>>(members: &[Member], of_it: impl Fn() -> I) -> Option<usize> {
    let sum: u64 = of_it().map(|at| u64::from(members[at].weight)).sum();
    let mut left = random::below(sum);
    for at in of_it() {
        let weight = u64::from(members[at].weight);
        if left < weight {
            return Some(at);
        }
        left -= weight;
    }
    of_it().next() // all of them weigh nothing
}

/// Among those that are alike, a random one.
fn least_busy(members: &[Member], of_it: impl Iterator<Item = usize>) -> Option<usize> {
    let busy = |at: usize| u64::from(members[at].endpoint.health.in_flight()) + 1;
    let weight = |at: usize| u64::from(members[at].weight.max(1));
    let (mut best, mut alike) = (None, 1);
    for at in of_it {
        let order = best.map_or(Ordering::Less, |best| (busy(at) * weight(best)).cmp(&(busy(best) * weight(at))));
        match order {
            Ordering::Less => (best, alike) = (Some(at), 1),
            Ordering::Equal => {
                alike += 1;
                if random::below(alike) == 0 {
                    best = Some(at);
                }
            }
            Ordering::Greater => {}
        }
    }
    best
}

/// Rendezvous hashing with weights (Thaler and Ravishankar 1998; Mosko 2016): every member has a score for every key, and the highest wins, so
/// that a key moves only when its own winner goes or a new one wins.
fn score(member: &Member, key: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "53 bits are what a float holds")]
    let unit = ((mixed(key ^ member.seed) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(member.weight) / -unit.ln()
}

/// A number for what requests have in common, the same in every process: FNV-1a (draft-eastlake-fnv), mixed.
#[must_use]
pub fn key_of(bytes: &[u8]) -> u64 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mixed(hash)
}

/// The end of `SplitMix64`: each bit of the result depends on each of the input.
fn mixed(value: u64) -> u64 {
    let mixed = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::upstream::{Endpoint, Verdict};

    const BREAKER: config::Breaker = config::Breaker {
        failures_max: 5,
        failing_percent: 40,
        eject_ms: 5_000,
        eject_ms_max: 60_000,
        slow_start_ms: 8_000,
    };

    fn member(number: usize, weight: u32, priority: u32) -> Member {
        let url = format!("http://10.0.0.{number}:80");
        Member::new(&url, Arc::new(Endpoint::parse(&url, None, false).unwrap()), weight, priority)
    }

    fn members(weights: &[u32]) -> Vec<Member> {
        weights.iter().enumerate().map(|(number, weight)| member(number, *weight, 0)).collect()
    }

    fn rules(balance: Balance, key: Option<u64>) -> Rules<'static> {
        Rules { balance, breaker: &BREAKER, key }
    }

    /// How often each is chosen.
    fn shares(members: &[Member], balance: Balance, requests: usize, now: Instant) -> Vec<usize> {
        let (turn, mut shares) = (AtomicUsize::new(0), vec![0; members.len()]);
        for _ in 0..requests {
            shares[choose(members, &[], &rules(balance, None), &turn, now).unwrap()] += 1;
        }
        shares
    }

    fn ejected(member: &Member, now: Instant) {
        for _ in 0..BREAKER.failures_max {
            member.standing.breaker.record(Verdict::Ill, &BREAKER, now);
        }
    }

    #[test]
    fn one_after_another_is_asked_and_ill_ones_leave_their_share_to_all() {
        let (members, now) = (members(&[1, 9, 1, 1]), Instant::now());
        assert_eq!(shares(&members, Balance::RoundRobin, 400, now), [100; 4]);
        ejected(&members[1], now);
        assert_eq!(shares(&members, Balance::RoundRobin, 300, now), [100, 0, 100, 100]);
    }

    #[test]
    fn weights_are_shares() {
        let (members, now) = (members(&[1, 2, 5, 0]), Instant::now());
        let shares = shares(&members, Balance::Weighted, 80_000, now);
        for (share, expected) in shares.iter().zip([10_000_i64, 20_000, 50_000, 0]) {
            assert!((i64::try_from(*share).unwrap() - expected).abs() < 1_000, "{shares:?}");
        }
    }

    #[test]
    fn the_least_busy_for_its_weight_is_asked() {
        let (members, now) = (members(&[1, 1, 3]), Instant::now());
        let mut busy = Vec::new();
        for _ in 0..500 {
            let at = choose(&members, &[], &rules(Balance::LeastBusy, None), &AtomicUsize::new(0), now).unwrap();
            busy.push(members[at].endpoint.health.begin(now));
        }
        let counts: Vec<_> = members.iter().map(|member| member.endpoint.health.in_flight()).collect();
        assert!(
            counts[0].abs_diff(100) <= 2 && counts[1].abs_diff(100) <= 2 && counts[2].abs_diff(300) <= 2,
            "{counts:?}"
        );
    }

    #[test]
    fn a_slow_endpoint_gets_little_until_its_peak_is_forgotten() {
        let (members, now) = (members(&[1, 1, 1]), Instant::now());
        for (member, ms) in members.iter().zip([10, 10, 900]) {
            member.standing.took(Duration::from_millis(ms), now);
        }
        let slow = shares(&members, Balance::PeakEwma, 3_000, now)[2];
        assert_eq!(slow, 0, "the slow one loses against each of the others");
        members[2].standing.took(Duration::from_millis(10), now + Duration::from_secs(60));
        let again = shares(&members, Balance::PeakEwma, 3_000, now + Duration::from_secs(60))[2];
        assert!(again < 3_000 && members[2].cost(now + Duration::from_secs(60)) < 0.011, "{again}");
        let early = now + Duration::from_secs(1);
        members[0].standing.took(Duration::from_millis(500), early);
        assert!(members[0].cost(early) >= 0.5, "a peak counts at once");
    }

    #[test]
    fn what_is_alike_stays_where_it_is_and_one_that_goes_moves_only_its_share() {
        let (all, now, turn) = (members(&[1; 10]), Instant::now(), AtomicUsize::new(0));
        let keys: Vec<u64> = (0..10_000_u32).map(|number| key_of(&number.to_be_bytes())).collect();
        let of = |members: &[Member], key| {
            let at = choose(members, &[], &rules(Balance::Hash, Some(key)), &turn, now).unwrap();
            members[at].endpoint.place().to_owned()
        };
        let before: Vec<_> = keys.iter().map(|key| of(&all, *key)).collect();
        let gone = all[3].endpoint.place().to_owned();
        for member in &all {
            let share = before.iter().filter(|place| **place == member.endpoint.place()).count();
            assert!((850..1150).contains(&share), "{share}");
        }
        let fewer: Vec<_> = all.iter().filter(|member| member.endpoint.place() != gone).cloned().collect();
        for (key, before) in keys.iter().zip(&before) {
            let after = of(&fewer, *key);
            assert!(*before == gone || *before == after, "only what was at {gone} moves");
            assert_ne!(after, gone);
        }
        ejected(&all[3], now);
        for (key, before) in keys.iter().zip(&before) {
            assert!(*before == gone || *before == of(&all, *key), "an ill one is passed over in the same way");
        }
    }

    #[test]
    fn weights_hold_for_what_is_alike_too() {
        let (all, now, turn) = (members(&[1, 3]), Instant::now(), AtomicUsize::new(0));
        let heavy = (0..10_000_u32).filter(|number| {
            let key = key_of(&number.to_be_bytes());
            choose(&all, &[], &rules(Balance::Hash, Some(key)), &turn, now) == Some(1)
        });
        assert!((7_200..7_800).contains(&heavy.count()));
    }

    #[test]
    fn a_higher_priority_number_waits_until_no_lower_one_is_well() {
        let now = Instant::now();
        let all = [member(0, 1, 0), member(1, 1, 0), member(2, 1, 1)];
        assert_eq!(shares(&all, Balance::RoundRobin, 100, now), [50, 50, 0]);
        ejected(&all[0], now);
        assert_eq!(shares(&all, Balance::RoundRobin, 100, now), [0, 100, 0]);
        ejected(&all[1], now);
        assert_eq!(shares(&all, Balance::RoundRobin, 100, now), [0, 0, 100]);
        ejected(&all[2], now);
        assert_eq!(shares(&all, Balance::RoundRobin, 100, now), [50, 50, 0], "with all ill, the order is as ever");
    }

    #[test]
    fn every_endpoint_is_tried_once_however_many_there_are() {
        let now = Instant::now();
        for balance in [Balance::RoundRobin, Balance::Weighted, Balance::LeastBusy, Balance::PeakEwma, Balance::Hash] {
            for count in [1, 2, 7, FEW, FEW + 1, 200] {
                let (all, turn, mut tried) = (members(&vec![1; count]), AtomicUsize::new(5), Vec::new());
                while let Some(at) = choose(&all, &tried, &rules(balance, Some(9)), &turn, now) {
                    assert!(!tried.contains(&at));
                    tried.push(at);
                }
                assert_eq!(tried.len(), count, "{balance:?}");
            }
        }
    }

    #[test]
    fn a_new_endpoint_gets_its_share_little_by_little() {
        let (all, now) = (members(&[1, 1]), Instant::now());
        all[1].standing.is_new(now);
        let share = |ms| {
            let later = now + Duration::from_millis(ms);
            shares(&all, Balance::RoundRobin, 8_000, later)[1]
        };
        let [first, half, whole] = [share(0), share(4_000), share(8_000)];
        // An eighth of the requests sees two, and half of those go to the new one.
        assert!((350..650).contains(&first), "{first}");
        assert!((2_200..2_800).contains(&half), "{half}");
        assert_eq!(whole, 4_000);
    }
}
