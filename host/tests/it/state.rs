// SPDX-License-Identifier: Apache-2.0
//! One suite for both places of counters: memory, and a real Redis.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use penstock::config::Away;
use penstock::state::charge::{Algorithm, Charge};
use penstock::state::{Denied, Memory, Options, Redis, State};

use crate::support::redis::RedisServer;

/// Callers at a time.
pub const CALLERS: u64 = 64;
const HOUR_MS: u64 = 3_600_000;
/// Far beyond what any test uses, and counted exactly everywhere.
const LARGE: u64 = 1 << 50;

/// A store that many nodes share. On a busy machine it may take its time; tests of time-outs say so.
pub fn shared(server: &RedisServer, away: Away) -> Redis {
    Redis {
        url: server.url(),
        user: None,
        password: None,
        ca: None,
        prefix: "test".to_owned(),
        timeout: Duration::from_secs(2),
        away,
        lease: Duration::from_secs(30),
        unsent_bytes_max: 1 << 30,
    }
}

/// A node of its own.
pub async fn node(redis: Option<Redis>, folder: Option<&Path>) -> Arc<State> {
    static SESSIONS: AtomicU64 = AtomicU64::new(1);
    let session = format!("s{}", SESSIONS.fetch_add(1, Ordering::Relaxed));
    let (memory, folder) = (Arc::new(Memory::new(100_000)), folder.map(Path::to_owned));
    State::open(Options { memory, folder, redis, session }).await.unwrap()
}

/// A charge of some tokens.
pub fn charge(name: &str, algorithm: Algorithm, limit: u64, cost: u64) -> Charge {
    Charge { cost, ..Charge::new("test", name, algorithm, limit, HOUR_MS) }
}

/// What a window has counted by now, reserved and used.
pub async fn counted(state: &Arc<State>, name: &str, algorithm: Algorithm) -> u64 {
    let held = state.admit(vec![charge(name, algorithm, LARGE, 0)]).await.unwrap_or_else(|why| panic!("{why:?}"));
    let remaining = held.items()[0].remaining.count;
    held.release();
    LARGE - remaining
}

/// Waits until the shared store is there.
pub async fn back(state: &State) {
    let begun = std::time::Instant::now();
    while state.is_away() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the store does not come back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a test in memory, and in a real Redis if there is one.
async fn in_both<F: Future<Output = ()>>(test: &str, run: impl Fn(Arc<State>) -> F) {
    run(node(None, None).await).await;
    if let Some(server) = RedisServer::start(test) {
        run(node(Some(shared(&server, Away::Closed)), None).await).await;
    }
}

#[tokio::test]
async fn both_count_alike() {
    use Algorithm::{Concurrency, FixedWindow, Month, SlidingWindow, TokenBucket, Total};
    in_both("both_count_alike", |state| async move {
        for algorithm in [FixedWindow, SlidingWindow, Month, Total, Concurrency, TokenBucket] {
            let name = algorithm.name();
            let three = || vec![charge(name, algorithm, 3, 1)];
            let mut held = Vec::new();
            for taken in 0..3 {
                let one = state.admit(three()).await.unwrap_or_else(|why| panic!("{name} {taken}: {why:?}"));
                assert_eq!(one.items()[0].remaining.count, 2 - taken, "{name}");
                held.push(one);
            }
            let Err(Denied::Exceeded(exceeded)) = state.admit(three()).await else { panic!("{name}: a fourth one") };
            assert_eq!((exceeded.index, exceeded.retry_after_ms.is_some()), (0, algorithm != Total), "{name}");
            held.pop().unwrap().release();
            state.flush(Duration::from_secs(5)).await;
            let again = state.admit(three()).await;
            assert!(again.is_ok(), "{name}: one was given back");
        }
        let both = vec![charge("a", FixedWindow, 10, 4), charge("b", Concurrency, 1, 1), charge("c", Total, 0, 1)];
        assert!(matches!(state.admit(both).await, Err(Denied::Exceeded(exceeded)) if exceeded.index == 2));
        assert_eq!(counted(&state, "a", FixedWindow).await, 0, "all or none");
        let twice = || vec![charge("t", Total, 5, 2), charge("t", Total, 5, 2)];
        state.admit(twice()).await.unwrap().settle(&|index| 10 * (1 + index as u64));
        state.flush(Duration::from_secs(5)).await;
        assert_eq!(counted(&state, "t", Total).await, 30, "a counter may be charged twice");
        assert!(state.admit(twice()).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_burst_is_at_once_and_the_rate_is_of_the_minute() {
    in_both("a_burst_is_at_once", |state| async move {
        let one = || vec![Charge { burst: 10, ..Charge::new("test", "plan", Algorithm::TokenBucket, 60, 60_000) }];
        for taken in 0..10 {
            let held = state.admit(one()).await.unwrap_or_else(|why| panic!("{taken}: {why:?}"));
            held.settle(&|_| 1);
        }
        let Err(Denied::Exceeded(exceeded)) = state.admit(one()).await else { panic!("eleven at once") };
        let wait = exceeded.retry_after_ms.unwrap();
        assert!((500..=1000).contains(&wait), "{wait}");
        tokio::time::sleep(Duration::from_millis(wait + 5)).await;
        assert!(state.admit(one()).await.is_ok());
    })
    .await;
}

/// Numbers without order that are the same in each run.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most + 1
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_limit_is_passed_by_more_than_the_calls_under_way() {
    const LIMIT: u64 = 20_000;
    in_both("no_limit_is_passed", |state| async move {
        for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::Month, Algorithm::Total] {
            // What is used is at most what is reserved, and then up to twice as much.
            for excess in [1, 2] {
                let name = format!("{}-{excess}", algorithm.name());
                let (used, under_way) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
                let callers = (0..CALLERS).map(|caller| {
                    let (state, name) = (Arc::clone(&state), name.clone());
                    let (used, under_way) = (Arc::clone(&used), Arc::clone(&under_way));
                    tokio::spawn(async move {
                        let mut dice = Dice(caller + excess);
                        loop {
                            let cost = dice.up_to(100);
                            let places = Charge::new("test", &format!("{name} places"), Algorithm::Concurrency, 40, 1);
                            let held = match state.admit(vec![charge(&name, algorithm, LIMIT, cost), places]).await {
                                Ok(held) => held,
                                Err(Denied::Exceeded(exceeded)) if exceeded.index == 1 => {
                                    tokio::task::yield_now().await;
                                    continue;
                                }
                                Err(Denied::Exceeded(_)) => return,
                                Err(other) => panic!("{other:?}"),
                            };
                            assert!(under_way.fetch_add(1, Ordering::SeqCst) < 40, "too many at a time");
                            tokio::task::yield_now().await;
                            let actual = dice.up_to(cost * excess);
                            under_way.fetch_sub(1, Ordering::SeqCst);
                            used.fetch_add(actual, Ordering::SeqCst);
                            held.settle(&|_| actual);
                        }
                    })
                });
                for caller in callers.collect::<Vec<_>>() {
                    caller.await.unwrap();
                }
                state.flush(Duration::from_secs(5)).await;
                let used = used.load(Ordering::SeqCst);
                assert_eq!(counted(&state, &name, algorithm).await, used, "{name}: what was used is what is counted");
                let most = if excess == 1 { LIMIT } else { LIMIT + 40 * 200 };
                assert!(used <= most && used >= LIMIT / 2, "{name}: {used}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_hold_one_limit() {
    let Some(server) = RedisServer::start("two_nodes_hold_one_limit") else { return };
    let redis = || Some(shared(&server, Away::Closed));
    let nodes = [node(redis(), None).await, node(redis(), None).await];
    let callers = (0..CALLERS).map(|caller| {
        let state = Arc::clone(if caller % 2 == 0 { &nodes[0] } else { &nodes[1] });
        tokio::spawn(async move {
            let mut taken = 0;
            while let Ok(held) = state.admit(vec![charge("common", Algorithm::Total, 1000, 1)]).await {
                held.settle(&|_| 1);
                taken += 1;
            }
            taken
        })
    });
    let mut taken = 0;
    for caller in callers.collect::<Vec<_>>() {
        taken += caller.await.unwrap();
    }
    assert_eq!(taken, 1000);
    nodes[0].flush(Duration::from_secs(5)).await;
    nodes[1].flush(Duration::from_secs(5)).await;
    assert_eq!(counted(&nodes[1], "common", Algorithm::Total).await, 1000);
}

#[tokio::test]
async fn what_was_used_outlives_a_node_and_windows_that_are_over_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let names: BTreeMap<&str, u64> = [("a", 5), ("b", 7)].into();
    for round in 1..=3 {
        let state = node(None, Some(folder.path())).await;
        for (name, amount) in &names {
            assert_eq!(counted(&state, name, Algorithm::Month).await, amount * (round - 1), "{name} {round}");
            let held = state.admit(vec![charge(name, Algorithm::Month, 100, 50)]).await.unwrap();
            held.settle(&|_| *amount);
            let soon = Charge::new("test", "soon", Algorithm::FixedWindow, 100, 1000);
            state.admit(vec![soon]).await.unwrap().settle(&|_| 1);
        }
        // What is only reserved is not written down: the process ends as if it were killed.
        std::mem::forget(state.admit(vec![charge("a", Algorithm::Month, 100, 9)]).await.unwrap());
    }
}
