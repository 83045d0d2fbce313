// SPDX-License-Identifier: Apache-2.0
//! Promises of the counters in memory.

use super::*;

const MS: u64 = 1_000_000;
const HOUR: u64 = 3_600_000;

fn charge(algorithm: Algorithm, limit: u64, window_ms: u64, cost: u64) -> Charge {
    Charge { cost, ..Charge::new("n", "k", algorithm, limit, window_ms) }
}

fn counters() -> Counters {
    Counters::new(100, 100)
}

fn exceeded(index: usize, retry_after_ms: u64) -> Result<(), Refused> {
    Err(Refused::Exceeded(Exceeded { index, retry_after_ms: Some(retry_after_ms) }))
}

#[test]
fn a_bucket_admits_its_limit_refills_smoothly_and_tells_when() {
    let counters = counters();
    let one = [charge(Algorithm::TokenBucket, 10, 1000, 1)];
    for taken in 0..10 {
        assert_eq!(counters.take(&one, 0), Ok(()), "number {taken}");
    }
    assert_eq!(counters.take(&one, 0), exceeded(0, 100));
    assert_eq!(counters.take(&one, 99 * MS), exceeded(0, 1));
    assert_eq!(counters.take(&one, 100 * MS), Ok(()));
    assert_eq!(counters.remaining(&one[0], 1100 * MS), Remaining { count: 10, reset_ms: 0 });
    assert!(counters.take(&[charge(Algorithm::TokenBucket, 10, 1000, 11)], 9999 * MS).is_err());
}

#[test]
fn a_bucket_holds_its_burst_and_refills_at_the_rate_of_its_limit() {
    let counters = counters();
    let one = [Charge { burst: 10, ..charge(Algorithm::TokenBucket, 60, 60_000, 1) }];
    for taken in 0..10 {
        assert_eq!(counters.take(&one, 0), Ok(()), "number {taken}");
    }
    assert_eq!(counters.take(&one, 0), exceeded(0, 1000));
    let minute = (1..=60_000).filter(|ms| counters.take(&one, ms * MS).is_ok()).count();
    assert_eq!(minute, 60, "the rate of a minute");
    assert_eq!(counters.remaining(&one[0], 120_000 * MS).count, 10);
}

#[test]
fn a_correction_makes_a_debt_or_gives_back_but_never_more_than_the_limit() {
    let counters = counters();
    let ten = [charge(Algorithm::TokenBucket, 100, 1000, 10)];
    counters.take(&ten, 0).unwrap();
    counters.correct(&ten[0], Window::default(), 190, 0);
    assert_eq!(counters.take(&ten, 1000 * MS), exceeded(0, 100));
    counters.correct(&ten[0], Window::default(), -100_000, 1000 * MS);
    assert_eq!(counters.remaining(&ten[0], 1000 * MS).count, 100);
}

#[test]
fn a_window_starts_anew_and_is_settled_where_it_was_charged() {
    let counters = counters();
    let two = charge(Algorithm::FixedWindow, 5, 1000, 2);
    assert_eq!(counters.take(&[two.clone(), two.clone()], 300 * MS), Ok(()));
    assert_eq!(counters.take(std::slice::from_ref(&two), 300 * MS), exceeded(0, 700));
    assert_eq!(counters.remaining(&two, 300 * MS), Remaining { count: 1, reset_ms: 700 });
    assert_eq!(counters.take(std::slice::from_ref(&two), 1000 * MS), Ok(()));
    counters.correct(&two, two.window(300), -2, 1000 * MS);
    assert_eq!(counters.remaining(&two, 1000 * MS).count, 3, "a late settlement does not touch the new window");
}

#[test]
fn a_sliding_window_forgets_evenly() {
    let counters = counters();
    let one = [charge(Algorithm::SlidingWindow, 10, 1000, 1)];
    assert_eq!((0..20).filter(|_| counters.take(&one, 900 * MS).is_ok()).count(), 10);
    assert_eq!((0..20).filter(|_| counters.take(&one, 1500 * MS).is_ok()).count(), 5, "half of the ten still counts");
    assert!(counters.take(&one, 1500 * MS).is_err());
    assert_eq!(counters.remaining(&one[0], 1900 * MS).count, 4);
}

#[test]
fn a_total_never_starts_anew_and_tells_no_time() {
    let counters = counters();
    let all = [charge(Algorithm::Total, 5, 0, 5)];
    assert_eq!(counters.take(&all, 0), Ok(()));
    let never = Err(Refused::Exceeded(Exceeded { index: 0, retry_after_ms: None }));
    assert_eq!(counters.take(&[charge(Algorithm::Total, 5, 0, 0)], u64::MAX / 2), never, "even for nothing");
}

#[test]
fn calls_at_a_time_are_released_and_leave_nothing_behind() {
    let counters = counters();
    let call = [charge(Algorithm::Concurrency, 2, 0, 1)];
    assert_eq!(counters.take(&call, 0), Ok(()));
    assert_eq!(counters.take(&call, 0), Ok(()));
    assert_eq!(counters.take(&call, 0), exceeded(0, 1000));
    counters.release(&call[0].key);
    assert_eq!(counters.take(&call, 0), Ok(()));
    (0..3).for_each(|_| counters.release(&call[0].key));
    assert!(counters.concurrent.is_empty());
}

#[test]
fn either_all_charges_are_taken_or_none() {
    let counters = counters();
    let bucket = charge(Algorithm::TokenBucket, 10, 1000, 4);
    let window = charge(Algorithm::FixedWindow, 10, 1000, 4);
    let call = charge(Algorithm::Concurrency, 5, 0, 1);
    let none = charge(Algorithm::FixedWindow, 0, 2000, 1);
    let charges = [bucket.clone(), window.clone(), call.clone(), none];
    assert_eq!(counters.take(&charges, 0), exceeded(3, 2000));
    assert_eq!(counters.remaining(&bucket, 0).count, 10);
    assert_eq!(counters.remaining(&window, 0).count, 10);
    assert_eq!(counters.remaining(&call, 0).count, 5);
}

#[test]
fn lasting_counters_are_never_pushed_out_and_go_when_they_are_over() {
    let counters = Counters::new(100, 2);
    let of = |key: &str, ms| [Charge::new("n", key, Algorithm::FixedWindow, 1, ms)];
    let later = 100 * 24 * HOUR * MS;
    assert_eq!(counters.take(&of("a", HOUR), 0), Ok(()));
    assert_eq!(counters.take(&of("b", 1000 * 24 * HOUR), 0), Ok(()));
    assert_eq!(counters.take(&of("c", HOUR), 1), Err(Refused::Full));
    assert_eq!(counters.take(&of("c", HOUR), later), Ok(()), "the first window is over");
    assert!(counters.take(&of("b", 1000 * 24 * HOUR), later).is_err(), "the long one still counts");
}

#[test]
fn many_threads_never_take_more_than_there_is() {
    use Algorithm::{Concurrency, FixedWindow, Month, SlidingWindow, TokenBucket, Total};
    for algorithm in [TokenBucket, FixedWindow, SlidingWindow, Month, Total, Concurrency] {
        let counters = Arc::new(counters());
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let counters = Arc::clone(&counters);
                std::thread::spawn(move || {
                    let one = [charge(algorithm, 1000, HOUR, 1)];
                    (0..1000).filter(|_| counters.take(&one, 0).is_ok()).count()
                })
            })
            .collect();
        let taken: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(taken, 1000, "{algorithm:?}");
    }
}
