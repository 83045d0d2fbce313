// SPDX-License-Identifier: Apache-2.0
//! The directory's store on a node of a cluster: a change goes to the cluster first, and into the state directory when the
//! cluster has it. Reads are of the state directory, but for usage, which is the sum of all nodes.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::entry::Name;
use super::wire::Written;
use super::{Node, Trouble, of_document};
use crate::clock;
use crate::directory::audit::{Line, Query};
use crate::directory::store::{Commit, Embedded, Followed, Loaded, Store, StoreError};
use crate::directory::usage::{DAYS_KEPT, Row, day_of};

/// Sums of usage that wait until Redis is there again; what is over it is told with the next change of the same sum.
const UNSENT_MAX: usize = 100_000;

/// Days whose sums a node tells anew when it starts.
const DAYS_TOLD: u64 = 7;

pub(super) struct Shared {
    own: Embedded,
    node: Arc<Node>,
}

impl Shared {
    pub(super) fn new(own: Embedded, node: Arc<Node>) -> Self {
        Self { own, node }
    }

    async fn tell(&self, commit: &Commit<'_>) -> Result<(), StoreError> {
        let mut entries = Vec::new();
        if let Some(document) = commit.put {
            let (name, body) = of_document(document).map_err(|trouble| told(&trouble))?;
            entries.push((name, body, None));
        }
        if let Some((kind, id)) = commit.remove {
            entries.push((Name::Document(kind, id.to_owned()), None, None));
        }
        let written = self.node.write(commit.expected, entries, Some(commit.line)).await;
        match written.map_err(|trouble| told(&trouble))? {
            Ok(position) => self
                .node
                .keep(|copy| {
                    if let Some((kind, id)) = commit.remove {
                        copy.remove(Name::Document(kind, id.to_owned()).to_string(), position.number);
                    }
                    if copy.number == commit.expected {
                        (copy.number, copy.head) = (position.number, position.head);
                    }
                })
                .map_err(|trouble| StoreError::Broken(trouble.text().to_owned())),
            Err(Written::Behind) => Err(StoreError::Conflict),
            Err(other) => Err(StoreError::Broken(format!("the cluster does not take the change: {other:?}"))),
        }
    }

    /// Sums are told with the next beat.
    fn to_send(&self, rows: &[Row]) -> Result<(), StoreError> {
        let mut unsent = self.node.unsent_usage.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            let sum = serde_json::to_string(row).map_err(|error| StoreError::Broken(error.to_string()))?;
            let place = (row.day, row.name());
            if unsent.len() < UNSENT_MAX || unsent.contains_key(&place) {
                unsent.insert(place, sum);
            }
        }
        Ok(())
    }

    /// Sums of other nodes of some days.
    async fn others(&self, from: u64, to: u64) -> Result<Vec<Row>, String> {
        let mut rows = Vec::new();
        for day in from..=to {
            let sums = self.node.wire.usage(day).await?;
            let of_others = sums.iter().filter(|(field, _)| !field.starts_with(&self.node.id));
            rows.extend(of_others.filter_map(|(_, sum)| serde_json::from_str::<Row>(sum).ok()));
        }
        Ok(rows)
    }
}

impl Store for Shared {
    fn load(&self) -> Result<Loaded, StoreError> {
        // What the last process could not tell is told by this one.
        let today = day_of(clock::unix_s());
        self.to_send(&self.own.usage(today.saturating_sub(DAYS_TOLD), today)?)?;
        self.own.load()
    }

    fn commit(&self, commit: &Commit<'_>) -> Result<(), StoreError> {
        waited(self.tell(commit))?;
        self.own.commit(commit)
    }

    fn follow(&self, followed: &Followed) -> Result<(), StoreError> {
        self.own.follow(followed)
    }

    fn audit(&self, query: &Query) -> Result<Vec<Line>, StoreError> {
        self.own.audit(query)
    }

    fn put_usage(&self, rows: &[Row], first_day: u64) -> Result<(), StoreError> {
        self.own.put_usage(rows, first_day)?;
        self.to_send(rows)
    }

    fn usage(&self, from: u64, to: u64) -> Result<Vec<Row>, StoreError> {
        let mut rows = self.own.usage(from, to)?;
        match waited(self.others(from, to)) {
            Ok(others) => rows.extend(others),
            Err(error) => tracing::warn!("usage is that of this node alone: {error}"),
        }
        Ok(rows)
    }

    fn give_up(&self) {
        self.own.give_up();
    }
}

impl Node {
    /// Tells the others what this node has counted. What cannot be told is told the next time.
    pub(super) async fn send_usage(&self) -> Result<(), String> {
        const KEPT: Duration = Duration::from_secs(DAYS_KEPT * 86_400);
        let unsent = std::mem::take(&mut *self.unsent_usage.lock().unwrap_or_else(PoisonError::into_inner));
        let row = |((day, name), sum): (&(u64, String), &String)| (*day, format!("{}|{name}", self.id), sum.clone());
        let rows: Vec<_> = unsent.iter().map(row).collect();
        let sent = self.wire.put_usage(&rows, KEPT).await;
        if sent.is_err() {
            let mut newer = self.unsent_usage.lock().unwrap_or_else(PoisonError::into_inner);
            for (place, sum) in unsent {
                newer.entry(place).or_insert(sum);
            }
        }
        sent
    }
}

fn told(trouble: &Trouble) -> StoreError {
    StoreError::Away(trouble.refusal().message)
}

/// Waits on a thread for waiting, where the directory calls its store.
fn waited<T>(answer: impl Future<Output = T>) -> T {
    Handle::current().block_on(answer)
}
