// SPDX-License-Identifier: Apache-2.0
//! A shared store that is killed, stopped, and comes back: nothing is lost, nothing counted twice, and nobody waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use penstock::config::Away;
use penstock::state::charge::Algorithm;
use penstock::state::{Denied, Redis, State};

use tokio::runtime::Runtime;

use crate::state::{CALLERS, back, charge, counted, node, shared};
use crate::support::redis::RedisServer;

const FLUSH: Duration = Duration::from_secs(10);

/// A store that has as much time as the policy gives it by default.
fn in_time(server: &RedisServer, away: Away) -> Redis {
    Redis { timeout: Duration::from_millis(50), ..shared(server, away) }
}

/// Callers that go on until they are told to stop; how much they have used.
async fn busy(state: &Arc<State>, during: impl Future<Output = ()>) -> u64 {
    let (used, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (state, used, stop) = (Arc::clone(state), Arc::clone(&used), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    match state.admit(vec![charge("busy", Algorithm::Total, 1 << 40, 100)]).await {
                        Ok(held) => {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                            held.settle(&|_| caller + 1);
                            used.fetch_add(caller + 1, Ordering::Relaxed);
                        }
                        Err(Denied::Away) => tokio::time::sleep(Duration::from_millis(5)).await,
                        Err(other) => panic!("{other:?}"),
                    }
                }
            })
        })
        .collect();
    during.await;
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    used.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_killed_again_and_again_loses_nothing_and_counts_nothing_twice() {
    let Some(mut server) = RedisServer::start("a_store_that_is_killed") else { return };
    for away in [Away::Closed, Away::Open, Away::Local] {
        let folder = tempfile::tempdir().unwrap();
        let state = node(Some(shared(&server, away)), Some(folder.path())).await;
        let before = counted(&state, "busy", Algorithm::Total).await;
        let used = busy(&state, async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(150)).await;
                server.kill();
                tokio::time::sleep(Duration::from_millis(100)).await;
                server.again();
                back(&state).await;
            }
        })
        .await;
        assert!(used > 1000, "{away:?}: {used}");
        state.flush(FLUSH).await;
        back(&state).await;
        assert_eq!(counted(&state, "busy", Algorithm::Total).await - before, used, "{away:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_stopped_costs_the_first_calls_their_patience_and_later_ones_nothing() {
    let Some(server) = RedisServer::start("a_store_that_is_stopped") else { return };
    // On a busy machine a timer is late.
    let late = Duration::from_millis(50);
    for away in [Away::Closed, Away::Open, Away::Local] {
        let state = node(Some(in_time(&server, away)), None).await;
        let name = format!("{away:?}");
        let one = || vec![charge(&name, Algorithm::Total, 10, 1)];
        state.admit(one()).await.unwrap().settle(&|_| 1);
        state.flush(FLUSH).await;
        server.freeze();
        let mut admitted = 0;
        for number in 0..12 {
            let begun = Instant::now();
            let decided = state.admit(one()).await;
            let patience = Duration::from_millis(if number == 0 { 50 } else { 0 });
            assert!(begun.elapsed() < patience + late, "{name} {number}: {:?}", begun.elapsed());
            if let Ok(held) = decided {
                held.settle(&|_| 1);
                admitted += 1;
            }
        }
        // Local: what the node knew, one, and nine more.
        let expected = match away {
            Away::Closed => 0,
            Away::Open => 12,
            Away::Local => 9,
        };
        assert_eq!(admitted, expected, "{name}");
        server.thaw();
        back(&state).await;
        state.flush(FLUSH).await;
        assert_eq!(counted(&state, &name, Algorithm::Total).await, admitted + 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_stopped_under_load_comes_back_with_everything() {
    let Some(server) = RedisServer::start("a_store_that_is_stopped_under_load") else { return };
    let state = node(Some(in_time(&server, Away::Local)), None).await;
    let used = busy(&state, async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            server.freeze();
            tokio::time::sleep(Duration::from_millis(200)).await;
            server.thaw();
            back(&state).await;
        }
    })
    .await;
    state.flush(FLUSH).await;
    back(&state).await;
    assert_eq!(counted(&state, "busy", Algorithm::Total).await, used);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_a_time_of_a_node_that_is_gone_are_given_back_and_those_of_one_that_lives_are_not() {
    let Some(server) = RedisServer::start("calls_at_a_time_of_a_node") else { return };
    let lease = |ms| Redis { lease: Duration::from_millis(ms), ..shared(&server, Away::Closed) };
    let alive = node(Some(lease(1200)), None).await;
    let elsewhere = Runtime::new().unwrap();
    let gone = elsewhere.spawn(node(Some(lease(1200)), None)).await.unwrap();
    let two = || vec![charge("places", Algorithm::Concurrency, 2, 1)];
    let _kept = alive.admit(two()).await.unwrap();
    let lost = gone.admit(two()).await.unwrap();
    assert!(alive.admit(two()).await.is_err());
    // As a process that is killed: nothing of it renews or releases.
    elsewhere.shutdown_background();
    std::mem::forget(lost);
    tokio::time::sleep(Duration::from_millis(2600)).await;
    let second = alive.admit(two()).await.expect("the place of the node that is gone");
    assert!(alive.admit(two()).await.is_err(), "the place of the one that lives is still held");
    second.release();
}

#[tokio::test]
async fn what_a_node_could_not_tell_before_it_was_killed_is_told_at_its_next_start() {
    let Some(mut server) = RedisServer::start("what_a_node_could_not_tell") else { return };
    let folder = tempfile::tempdir().unwrap();
    {
        let elsewhere = Runtime::new().unwrap();
        let (redis, place) = (shared(&server, Away::Open), folder.path().to_owned());
        let begin = async move { node(Some(redis), Some(&place)).await };
        let state = elsewhere.spawn(begin).await.unwrap();
        let told = || vec![charge("told", Algorithm::Total, 1000, 10)];
        state.admit(told()).await.unwrap().settle(&|_| 3);
        state.flush(FLUSH).await;
        let held = state.admit(told()).await.unwrap();
        server.kill();
        held.settle(&|_| 4);
        state.admit(told()).await.unwrap().settle(&|_| 5);
        elsewhere.shutdown_background();
    }
    server.again();
    for _ in 0..2 {
        let state = node(Some(shared(&server, Away::Open)), Some(folder.path())).await;
        back(&state).await;
        assert_eq!(counted(&state, "told", Algorithm::Total).await, 12);
    }
}

#[tokio::test]
async fn a_store_behind_tls_and_a_password_is_reached_with_both_and_with_nothing_less() {
    let test = "a_store_behind_tls_and_a_password";
    let Some((server, ca)) = RedisServer::start_guarded(test, "open sesame") else { return };
    let url = server.url().replace("redis://", "rediss://");
    let guarded = |password: &str, ca: Option<&Vec<u8>>| {
        let password = Some(password.to_owned());
        Redis { url: url.clone(), password, ca: ca.cloned(), ..shared(&server, Away::Closed) }
    };
    let state = node(Some(guarded("open sesame", Some(&ca))), None).await;
    back(&state).await;
    state.admit(vec![charge("guarded", Algorithm::Total, 10, 1)]).await.unwrap().settle(&|_| 1);
    state.flush(FLUSH).await;
    assert_eq!(counted(&state, "guarded", Algorithm::Total).await, 1);
    for wrong in [guarded("sesame", Some(&ca)), guarded("open sesame", None)] {
        assert!(node(Some(wrong), None).await.is_away());
    }
}
