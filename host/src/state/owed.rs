// SPDX-License-Identifier: Apache-2.0
//! What is owed to the shared store: settled calls that it has not been told of, or has not acknowledged.
//!
//! Each process is a session, and numbers what it owes from 1 on. A batch is a range of numbers that the store applies as a
//! whole, or not if it has come so far before. Once it may have been sent, a batch does not change any more, so that sending
//! it twice counts it once, whatever was lost: the batch, its answer, the connection, or the store's last seconds.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Steps of one batch: what a store does in about a millisecond, in which it does nothing else.
const STEPS_MAX: usize = 500;
/// How long a batch is kept that was acknowledged: a store that is killed may have lost its last seconds.
const KEPT: Duration = Duration::from_secs(10);

/// A call that is settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owed {
    pub(super) number: u64,
    pub(super) steps: Vec<Step>,
}

/// What settling a call does to one counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// A window: what the permit has reserved goes back, and so much was used. `u64::MAX` is never.
    #[serde(rename = "w")]
    Used { key: Arc<str>, permit: Arc<str>, window: u64, kept_ms: u64, amount: u64 },
    /// A bucket: so much more or less than was taken.
    #[serde(rename = "b")]
    Corrected { key: Arc<str>, delta: i64, window_ms: u64, limit: u64 },
    /// A call at a time is over.
    #[serde(rename = "c")]
    Ended { key: Arc<str>, member: Arc<str> },
    /// A call whose permit was not waited for: should it still arrive, it is not to be granted.
    #[serde(rename = "g")]
    GivenUp { key: Arc<str> },
}

impl Step {
    pub(super) fn key(&self) -> &Arc<str> {
        match self {
            Self::Used { key, .. } | Self::Corrected { key, .. } | Self::Ended { key, .. } | Self::GivenUp { key } => {
                key
            }
        }
    }

    /// The step as the script reads it; `place` is that of its key.
    fn json(&self, place: usize) -> Value {
        match self {
            Self::Used { permit, window, kept_ms, amount, .. } => {
                let kept = i64::try_from(*kept_ms).ok().filter(|_| *kept_ms != u64::MAX).unwrap_or(-1);
                json!(["w", place, permit, window, kept, amount])
            }
            Self::Corrected { delta, window_ms, limit, .. } => json!(["b", place, delta, window_ms, limit]),
            Self::Ended { member, .. } => json!(["c", place, member]),
            Self::GivenUp { .. } => json!(["g", place]),
        }
    }
}

/// A range of numbers, and what it comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) from: u64,
    pub(super) to: u64,
    calls: u64,
    /// May have been sent, and does not change any more.
    sent: bool,
    steps: Vec<Step>,
    /// Where the sum of a counter's window is among the steps.
    sums: HashMap<(Arc<str>, u64), usize>,
}

impl Batch {
    fn add(&mut self, owed: Owed) {
        if self.calls == 0 {
            self.from = owed.number;
        }
        self.to = owed.number;
        self.calls += 1;
        for step in owed.steps {
            match step {
                // Without a permit nothing but the sum matters.
                Step::Used { key, permit, window, kept_ms, amount } if permit.is_empty() => {
                    let place = (Arc::clone(&key), window);
                    if let Some(Step::Used { amount: sum, .. }) =
                        self.sums.get(&place).and_then(|at| self.steps.get_mut(*at))
                    {
                        *sum = sum.saturating_add(amount);
                        continue;
                    }
                    self.sums.insert(place, self.steps.len());
                    self.steps.push(Step::Used { key, permit, window, kept_ms, amount });
                }
                step => self.steps.push(step),
            }
        }
    }

    fn is_full(&self) -> bool {
        self.steps.len() >= STEPS_MAX
    }

    /// The counters, and the steps as the script reads them; the first key is the session's.
    pub(super) fn script(&self) -> (Vec<Arc<str>>, String) {
        let mut keys = Vec::new();
        let mut places = HashMap::new();
        let mut steps = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let place = *places.entry(Arc::clone(step.key())).or_insert_with(|| {
                keys.push(Arc::clone(step.key()));
                keys.len() + 1
            });
            steps.push(step.json(place));
        }
        (keys, Value::Array(steps).to_string())
    }
}

/// Everything that one session owes, in the order of its numbers.
#[derive(Debug, Default)]
pub(super) struct Debts {
    /// Came before those with a lower number.
    early: BTreeMap<u64, Owed>,
    /// The last number that is in a batch.
    last: u64,
    /// In order.
    waiting: VecDeque<Batch>,
    acknowledged: VecDeque<(Instant, Batch)>,
}

impl Debts {
    /// Those of a process that has ended, of which the store has come so far. Numbers may be missing, which were never
    /// written down.
    pub(super) fn of_the_dead(mut owed: Vec<Owed>, stored: u64) -> Self {
        owed.sort_by_key(|owed| owed.number);
        owed.dedup_by_key(|owed| owed.number);
        let mut debts = Self::default();
        owed.into_iter().filter(|owed| owed.number > stored).for_each(|owed| debts.push(owed));
        debts
    }

    pub(super) fn add(&mut self, owed: Owed) {
        self.early.insert(owed.number, owed);
        while let Some(next) = self.early.remove(&(self.last + 1)) {
            self.push(next);
        }
    }

    fn push(&mut self, owed: Owed) {
        self.last = owed.number;
        match self.waiting.back_mut().filter(|batch| !batch.sent && !batch.is_full()) {
            Some(batch) => batch.add(owed),
            None => {
                let mut batch = Batch::default();
                batch.add(owed);
                self.waiting.push_back(batch);
            }
        }
    }

    /// The batch to send next. From now on it does not change.
    pub(super) fn next(&mut self) -> Option<Batch> {
        let next = self.waiting.front_mut()?;
        next.sent = true;
        Some(next.clone())
    }

    /// The store has come so far, as it has just said itself.
    pub(super) fn acknowledge(&mut self, to: u64, now: Instant) {
        while self.waiting.front().is_some_and(|batch| batch.to <= to) {
            self.acknowledged.extend(self.waiting.pop_front().map(|batch| (now, batch)));
        }
        while self.acknowledged.front().is_some_and(|(at, _)| now.duration_since(*at) > KEPT) {
            self.acknowledged.pop_front();
        }
    }

    /// The store is there again, and says how far it has come: what it has lost is owed again, what it has is not.
    pub(super) fn resume(&mut self, stored: u64, now: Instant) {
        self.acknowledge(stored, now);
        while let Some((at, batch)) = self.acknowledged.pop_back() {
            if batch.from <= stored {
                self.acknowledged.push_back((at, batch));
                break;
            }
            self.waiting.push_front(batch);
        }
    }

    #[cfg(test)]
    fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.early.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(number: u64, key: &str, amount: u64) -> Owed {
        let step = Step::Used { key: key.into(), permit: "".into(), window: 7, kept_ms: u64::MAX, amount };
        Owed { number, steps: vec![step] }
    }

    fn next(debts: &mut Debts) -> Option<(u64, u64, String)> {
        debts.next().map(|batch| (batch.from, batch.to, batch.script().1))
    }

    #[test]
    fn what_may_have_been_sent_does_not_change_and_the_rest_is_summed_up() {
        let now = Instant::now();
        let mut debts = Debts::default();
        debts.add(used(2, "a", 20));
        assert_eq!(next(&mut debts), None, "number 1 is on its way");
        debts.add(used(1, "a", 10));
        let first = (1, 2, r#"[["w",2,"",7,-1,30]]"#.to_owned());
        assert_eq!(next(&mut debts), Some(first.clone()));
        debts.add(used(3, "b", 1));
        debts.add(used(4, "b", 2));
        assert_eq!(next(&mut debts), Some(first));
        debts.acknowledge(2, now);
        assert_eq!(next(&mut debts), Some((3, 4, r#"[["w",2,"",7,-1,3]]"#.to_owned())));
        debts.acknowledge(4, now);
        assert!(debts.is_settled());
    }

    #[test]
    fn what_a_store_has_lost_is_owed_again_and_what_it_has_is_not() {
        let now = Instant::now();
        let mut debts = Debts::default();
        for number in 1..=3 {
            debts.add(used(number, "a", number));
            debts.next();
            debts.acknowledge(number, now);
        }
        debts.add(used(4, "a", 4));
        debts.next();
        debts.add(used(5, "a", 5));
        debts.resume(1, now);
        let mut again = Vec::new();
        while let Some(batch) = debts.next() {
            again.push((batch.from, batch.to));
            debts.acknowledge(batch.to, now);
        }
        assert_eq!(again, [(2, 2), (3, 3), (4, 4), (5, 5)]);
        debts.resume(5, now);
        assert!(debts.is_settled());
        debts.resume(0, now + KEPT * 2);
        assert!(debts.is_settled(), "what is long acknowledged is not kept for ever");
    }

    #[test]
    fn the_answer_that_was_lost_is_told_by_how_far_the_store_has_come() {
        let now = Instant::now();
        let mut debts = Debts::of_the_dead(vec![used(9, "a", 9), used(2, "a", 2), used(5, "a", 5), used(9, "a", 9)], 4);
        assert_eq!(debts.next().map(|batch| (batch.from, batch.to, batch.calls)), Some((5, 9, 2)));
        debts.resume(9, now);
        assert!(debts.is_settled());
    }

    #[test]
    fn a_batch_holds_so_much_and_no_more() {
        let mut debts = Debts::default();
        (1..=2 * STEPS_MAX as u64).for_each(|number| debts.add(used(number, &format!("k{number}"), 1)));
        assert_eq!(debts.next().map(|batch| (batch.from, batch.to)), Some((1, STEPS_MAX as u64)));
    }
}
