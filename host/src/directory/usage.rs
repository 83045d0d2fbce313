// SPDX-License-Identifier: Apache-2.0
//! What was used, by day, key, team, subject, vendor and model: for reports, not for limits. A request adds to atomic
//! counters; once a second they are written to the store, so that a kill loses at most the last second of a report.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often sums are written to the store.
pub const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Days that are kept.
pub const DAYS_KEPT: u64 = 400;
/// Rows of one day; what is over it is counted without model and subject.
const ROWS_MAX: usize = 50_000;
/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// Who has used what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Who<'w> {
    /// Id of the virtual key; empty for none.
    pub key: &'w str,
    /// Id of the team, or the group that auth has named; empty for none.
    pub team: &'w str,
    /// Who asked.
    pub subject: &'w str,
    /// Vendor or service that answered; empty for none.
    pub vendor: &'w str,
    /// The vendor's name of the model.
    pub model: &'w str,
}

/// What one request has used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// It failed, or was refused.
    pub failed: bool,
    /// Tokens that went in.
    pub input_tokens: u64,
    /// Tokens that came out.
    pub output_tokens: u64,
    /// What it has cost, in nano-dollars.
    pub nano_usd: u64,
}

/// The sums of one day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Days since 1970.
    pub day: u64,
    /// Id of the virtual key; empty for none.
    pub key: String,
    /// Team; empty for none.
    pub team: String,
    /// Who asked.
    pub subject: String,
    /// Vendor or service.
    pub vendor: String,
    /// The vendor's name of the model.
    pub model: String,
    /// Requests that have ended.
    pub requests: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Tokens that went in.
    pub input_tokens: u64,
    /// Tokens that came out.
    pub output_tokens: u64,
    /// What it has cost, in nano-dollars.
    pub nano_usd: u64,
}

impl Row {
    /// What tells it from the other rows of its day.
    #[must_use]
    pub fn name(&self) -> String {
        let parts = [&self.key, &self.team, &self.subject, &self.vendor, &self.model];
        serde_json::json!(parts).to_string()
    }

    /// Adds the sums of another row.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.nano_usd = self.nano_usd.saturating_add(other.nano_usd);
    }

    /// What has come to a row since it was `before`; none if nothing has.
    fn since(mut self, before: &Self) -> Option<Self> {
        self.requests = self.requests.saturating_sub(before.requests);
        self.failed = self.failed.saturating_sub(before.failed);
        self.input_tokens = self.input_tokens.saturating_sub(before.input_tokens);
        self.output_tokens = self.output_tokens.saturating_sub(before.output_tokens);
        self.nano_usd = self.nano_usd.saturating_sub(before.nano_usd);
        (self.requests > 0).then_some(self)
    }

    fn who(&self) -> Who<'_> {
        Who { key: &self.key, team: &self.team, subject: &self.subject, vendor: &self.vendor, model: &self.model }
    }
}

/// The sums that grow. They are found by the hash of their names: two of them that have the same 64 bits would be added up,
/// which does not happen to anybody who does not know the seed.
pub struct Usage {
    sums: papaya::HashMap<u64, Arc<Sum>>,
    seed: RandomState,
}

struct Sum {
    row: Row,
    requests: AtomicU64,
    failed: AtomicU64,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
    nano_usd: AtomicU64,
    unwritten: AtomicBool,
}

impl Usage {
    /// With the sums of today, as far as they are known.
    #[must_use]
    pub(super) fn new(today: Vec<Row>) -> Self {
        let usage = Self { sums: papaya::HashMap::new(), seed: RandomState::new() };
        for row in today {
            let place = usage.place(row.day, row.who());
            usage.sums.pin().insert(place, Arc::new(Sum::of(row)));
        }
        usage
    }

    /// Counts a request that has ended. Takes no lock.
    pub fn count(&self, who: Who<'_>, used: Used, now_unix_s: u64) {
        let day = now_unix_s / DAY_S;
        let sums = self.sums.pin();
        let place = self.place(day, who);
        if let Some(sum) = sums.get(&place) {
            return sum.add(used);
        }
        let who = if sums.len() < ROWS_MAX { who } else { Who { subject: "", model: "", ..who } };
        let row = Row {
            day,
            key: who.key.to_owned(),
            team: who.team.to_owned(),
            subject: who.subject.to_owned(),
            vendor: who.vendor.to_owned(),
            model: who.model.to_owned(),
            ..Row::default()
        };
        sums.get_or_insert_with(self.place(day, who), || Arc::new(Sum::of(row))).add(used);
    }

    /// What a virtual key has used today.
    #[must_use]
    pub fn today(&self, key: &str, now_unix_s: u64) -> Row {
        let (mut sum, today) = (Row::default(), now_unix_s / DAY_S);
        let sums = self.sums.pin();
        let of_key = sums.values().filter(|sum| sum.row.day == today && sum.row.key == key);
        of_key.for_each(|row| sum.add(&row.row()));
        sum
    }

    /// The rows that have grown since the last time. Those of days that are over are not held any longer.
    pub(super) fn grown(&self, now_unix_s: u64) -> Vec<Row> {
        let today = now_unix_s / DAY_S;
        let sums = self.sums.pin();
        let grown = sums.values().filter(|sum| sum.unwritten.swap(false, Ordering::Relaxed)).map(|sum| sum.row());
        let grown = grown.collect();
        sums.retain(|_, sum| sum.row.day + 1 >= today);
        grown
    }

    /// All rows that are held.
    pub(super) fn all(&self) -> Vec<Row> {
        self.sums.pin().values().map(|sum| sum.row()).collect()
    }

    /// Adds what another process has counted.
    pub(super) fn add(&self, rows: &[Row]) {
        let sums = self.sums.pin();
        for row in rows {
            let empty =
                || Row { requests: 0, failed: 0, input_tokens: 0, output_tokens: 0, nano_usd: 0, ..row.clone() };
            let sum = sums.get_or_insert_with(self.place(row.day, row.who()), || Arc::new(Sum::of(empty())));
            sum.requests.fetch_add(row.requests, Ordering::Relaxed);
            sum.failed.fetch_add(row.failed, Ordering::Relaxed);
            sum.input_tokens.fetch_add(row.input_tokens, Ordering::Relaxed);
            sum.output_tokens.fetch_add(row.output_tokens, Ordering::Relaxed);
            sum.nano_usd.fetch_add(row.nano_usd, Ordering::Relaxed);
            sum.unwritten.store(true, Ordering::Release);
        }
    }

    /// The rows could not be written: they are tried again.
    pub(super) fn keep(&self, rows: &[Row]) {
        let sums = self.sums.pin();
        for row in rows {
            if let Some(sum) = sums.get(&self.place(row.day, row.who())) {
                sum.unwritten.store(true, Ordering::Relaxed);
            }
        }
    }

    fn place(&self, day: u64, who: Who<'_>) -> u64 {
        self.seed.hash_one((day, who))
    }
}

/// What has come to rows since they were `before`.
pub(super) fn growth(rows: Vec<Row>, before: &[Row]) -> Vec<Row> {
    let before: HashMap<_, _> = before.iter().map(|row| ((row.day, row.who()), row)).collect();
    let nothing = Row::default();
    let grown = rows.into_iter().filter_map(|row| {
        let was = *before.get(&(row.day, row.who())).unwrap_or(&&nothing);
        row.since(was)
    });
    grown.collect()
}

/// The day of a time, as days since 1970.
#[must_use]
pub fn day_of(unix_s: u64) -> u64 {
    unix_s / DAY_S
}

impl Sum {
    fn of(row: Row) -> Self {
        Self {
            requests: row.requests.into(),
            failed: row.failed.into(),
            input_tokens: row.input_tokens.into(),
            output_tokens: row.output_tokens.into(),
            nano_usd: row.nano_usd.into(),
            unwritten: AtomicBool::new(false),
            row,
        }
    }

    fn add(&self, used: Used) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(used.failed.into(), Ordering::Relaxed);
        self.input_tokens.fetch_add(used.input_tokens, Ordering::Relaxed);
        self.output_tokens.fetch_add(used.output_tokens, Ordering::Relaxed);
        self.nano_usd.fetch_add(used.nano_usd, Ordering::Relaxed);
        // last, so that a row that is written between two of these is written again
        self.unwritten.store(true, Ordering::Release);
    }

    fn row(&self) -> Row {
        Row {
            requests: self.requests.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            input_tokens: self.input_tokens.load(Ordering::Relaxed),
            output_tokens: self.output_tokens.load(Ordering::Relaxed),
            nano_usd: self.nano_usd.load(Ordering::Relaxed),
            ..self.row.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_written_once_and_goes_on_from_what_was_written() {
        let who = Who { key: "vk_1", team: "a", subject: "alice", vendor: "echo", model: "m" };
        let used = Used { failed: false, input_tokens: 3, output_tokens: 4, nano_usd: 5 };
        let usage = Usage::new(Vec::new());
        usage.count(who, used, DAY_S);
        usage.count(who, used, DAY_S);
        usage.count(Who { key: "", ..who }, Used { failed: true, ..used }, DAY_S);
        let mut rows = usage.grown(DAY_S);
        rows.sort_by(|one, other| other.key.cmp(&one.key));
        assert_eq!((rows.len(), rows[0].requests, rows[0].input_tokens, rows[0].nano_usd), (2, 2, 6, 10));
        assert_eq!((rows[1].requests, rows[1].failed), (1, 1));
        assert_eq!(usage.grown(DAY_S), []);
        let again = Usage::new(rows);
        again.count(who, used, DAY_S);
        assert_eq!(again.grown(DAY_S)[0].requests, 3);
        again.count(who, used, 3 * DAY_S);
        assert_eq!(again.grown(3 * DAY_S).len(), 1);
        assert_eq!(again.sums.pin().len(), 1, "days that are over are not held");
    }
}
