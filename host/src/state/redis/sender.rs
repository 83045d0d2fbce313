// SPDX-License-Identifier: Apache-2.0
//! Tells the shared store what it is owed, in order and in batches, and finds it again when it was away.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::Script;
use tokio::sync::mpsc;

use super::{Line, Shared};
use crate::clock;
use crate::state::owed::{Debts, Owed};

/// How often a store that is away is looked for.
const PROBE: Duration = Duration::from_millis(100);
/// After so many probes in vain the connection is made anew.
const PROBES_MAX: u32 = 20;
/// How long a batch may take.
const BATCH: Duration = Duration::from_secs(2);
/// Settled calls that are taken at a time.
const HEARD_MAX: usize = 1024;
/// Places that are renewed with one request.
const LEASES_MAX: usize = 500;
/// How soon an acknowledged call is written down as such. Until then the store itself knows.
const WRITE_DOWN: Duration = Duration::from_secs(1);

/// The task that tells the store.
pub(in crate::state) struct Sender {
    shared: Arc<Shared>,
    heard: mpsc::Receiver<Owed>,
    settle: Script,
    renew: Script,
    debts: Debts,
    /// What sessions before this one have left.
    estates: Vec<Estate>,
    misses: u32,
    renewed: Instant,
    written: u64,
    written_at: Instant,
}

/// What a process that has ended still owes.
struct Estate {
    session: String,
    recorded: Vec<Owed>,
    debts: Option<Debts>,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, heard: mpsc::Receiver<Owed>, recorded: Vec<String>) -> Self {
        let mut left: HashMap<String, Vec<Owed>> = HashMap::new();
        for line in recorded {
            match serde_json::from_str(&line) {
                Ok(Line::Owed(session, owed)) => left.entry(session).or_default().push(owed),
                Ok(Line::Acknowledged(..)) => {}
                Err(error) => tracing::warn!("a line of the journal cannot be read: {error}"),
            }
        }
        let estates = left.into_iter().map(|(session, recorded)| Estate { session, recorded, debts: None }).collect();
        let now = Instant::now();
        Self {
            shared,
            heard,
            settle: Script::new(include_str!("settle.lua")),
            renew: Script::new(include_str!("renew.lua")),
            debts: Debts::default(),
            estates,
            misses: 0,
            renewed: now,
            written: 0,
            written_at: now,
        }
    }

    /// Works until the gateway is gone.
    pub(in crate::state) async fn run(mut self) {
        let mut heard = Vec::new();
        loop {
            let patience = if self.shared.is_away() { PROBE } else { (self.shared.lease / 3).min(WRITE_DOWN) };
            let woken = Arc::clone(&self.shared);
            tokio::select! {
                count = self.heard.recv_many(&mut heard, HEARD_MAX) => if count == 0 { return },
                () = woken.wake.notified() => {}
                () = tokio::time::sleep(patience) => {}
            }
            heard.drain(..).for_each(|owed| self.debts.add(owed));
            if self.shared.is_away() {
                self.look_for_it().await;
            } else if let Err(error) = self.tell().await {
                self.shared.lost(&error);
            }
            self.write_down();
        }
    }

    /// Asks whether the store is there again, and tells it everything before anybody else may ask it.
    pub(in crate::state) async fn look_for_it(&mut self) {
        let found = match self.find().await {
            Ok(()) => self.tell().await,
            Err(error) => Err(error),
        };
        match found {
            Ok(()) => {
                self.misses = 0;
                self.shared.away.store(false, Ordering::Relaxed);
                tracing::info!("the shared state is there");
            }
            Err(error) => {
                tracing::debug!("the shared state is away: {error}");
                self.misses += 1;
                if self.misses.is_multiple_of(PROBES_MAX) {
                    self.shared.link.renew();
                }
                tokio::time::sleep(PROBE).await;
            }
        }
    }

    /// How far the store has come.
    async fn find(&mut self) -> Result<(), String> {
        let stored = self.stored(&self.shared.session).await?;
        self.debts.resume(stored, Instant::now());
        self.shared.acknowledged.fetch_max(stored, Ordering::Relaxed);
        for at in 0..self.estates.len() {
            let Some(session) = self.estates.get(at).map(|estate| estate.session.clone()) else { break };
            let stored = self.stored(&session).await?;
            let Some(estate) = self.estates.get_mut(at) else { break };
            match &mut estate.debts {
                Some(debts) => debts.resume(stored, Instant::now()),
                None => estate.debts = Some(Debts::of_the_dead(std::mem::take(&mut estate.recorded), stored)),
            }
        }
        Ok(())
    }

    async fn stored(&self, session: &str) -> Result<u64, String> {
        let get = redis::cmd("GET").arg(self.node(session)).to_owned();
        let stored: Option<u64> = self.shared.link.command(&get, self.shared.timeout).await?;
        Ok(stored.unwrap_or(0))
    }

    /// Tells the store everything that waits.
    async fn tell(&mut self) -> Result<(), String> {
        while let Some(mut estate) = self.estates.pop() {
            let told = match &mut estate.debts {
                Some(debts) => self.tell_of(&estate.session, debts).await.map(|_| ()),
                None => Ok(()),
            };
            if let Err(error) = told {
                self.estates.push(estate);
                return Err(error);
            }
            self.shared.write(&Line::Acknowledged(estate.session, u64::MAX));
        }
        let mut debts = std::mem::take(&mut self.debts);
        let session = self.shared.session.clone();
        let told = self.tell_of(&session, &mut debts).await;
        self.debts = debts;
        self.shared.acknowledged.fetch_max(told?, Ordering::Relaxed);
        self.renew().await
    }

    /// Answers with the last number that the store has acknowledged, 0 if there was nothing to tell.
    async fn tell_of(&self, session: &str, debts: &mut Debts) -> Result<u64, String> {
        let mut last = 0;
        while let Some(batch) = debts.next() {
            let (keys, steps) = batch.script();
            let mut script = self.settle.prepare_invoke();
            script.key(self.node(session));
            for key in keys {
                let is_whole = key.starts_with(&*self.shared.tag);
                script.key(if is_whole { key.to_string() } else { self.shared.counter(&key) });
            }
            script.arg(batch.from).arg(batch.to).arg(steps);
            let stored: u64 = self.shared.link.ask(&script, BATCH).await?;
            if stored != batch.to {
                return Err(format!("it has come to {stored} instead of {}", batch.to));
            }
            debts.acknowledge(stored, Instant::now());
            last = stored;
        }
        Ok(last)
    }

    /// Holds the places of the calls at a time under way.
    async fn renew(&mut self) -> Result<(), String> {
        if self.renewed.elapsed() < self.shared.lease / 3 {
            return Ok(());
        }
        let held: Vec<_> = self.shared.leases.pin().keys().cloned().collect();
        for some in held.chunks(LEASES_MAX) {
            let mut script = self.renew.prepare_invoke();
            script.arg(clock::millis(self.shared.lease));
            for (key, member) in some {
                script.key(self.shared.counter(key)).arg(&**member);
            }
            let _: u64 = self.shared.link.ask(&script, BATCH).await?;
        }
        self.renewed = Instant::now();
        Ok(())
    }

    /// Notes in the journal how far the store has come, so that the rest of it can go.
    fn write_down(&mut self) {
        let acknowledged = self.shared.acknowledged.load(Ordering::Relaxed);
        if acknowledged > self.written && self.written_at.elapsed() >= WRITE_DOWN {
            self.shared.write(&Line::Acknowledged(self.shared.session.clone(), acknowledged));
            self.written = acknowledged;
            self.written_at = Instant::now();
        }
    }

    fn node(&self, session: &str) -> String {
        format!("{}node:{session}", self.shared.tag)
    }
}
