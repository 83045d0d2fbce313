// SPDX-License-Identifier: Apache-2.0
//! What a running gateway is told to do, by signals and by its supervisor: to read everything anew, to let another process have the
//! state directory, to stop.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::signals::{Said, Signals};
use super::worker::{Ear, Line, Mouth, News, Order};
use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::control::{Change, Control};
use crate::directory::Directory;
use crate::jobs::Jobs;
use crate::listener::Farewell;
use crate::state::State;

/// How long the shared state may take to be told what is owed before the state directory is handed over.
const SETTLE: Duration = Duration::from_secs(1);
/// How often it is looked whether a process before this one has left something.
const LOOK: Duration = Duration::from_millis(500);

/// Where orders come from.
pub(super) struct Orders {
    signals: Signals,
    supervisor: Option<(Ear, Mouth)>,
    stopping: bool,
}

/// What has to be let go of before another process can have the state directory.
pub(super) struct Keeper {
    pub(super) control: Control,
    pub(super) admin: Arc<Admin>,
    pub(super) jobs: Jobs,
    pub(super) state: Arc<State>,
    pub(super) cluster: Option<Cluster>,
    /// What runs beside requests and writes to the state directory.
    pub(super) background: JoinSet<()>,
    /// How long jobs may take to come to a point where they can be taken up again.
    pub(super) drain: Duration,
}

/// How a gateway ends.
pub(super) enum Leaving {
    /// Another process has its state.
    HandedOver,
    /// Nobody follows, as far as it knows.
    Alone(Option<Cluster>),
}

impl Leaving {
    /// How serving is to end.
    pub(super) fn farewell(&self) -> Farewell {
        match self {
            Self::HandedOver => Farewell::Patient,
            Self::Alone(_) => Farewell::Prompt,
        }
    }

    /// Writes down what is not written down yet, when the last request is done.
    ///
    /// # Errors
    /// What was used cannot be left for the process that follows.
    pub(super) async fn end(self, directory: &Directory, state: &State, state_dir: PathBuf) -> anyhow::Result<()> {
        let cluster = match self {
            Self::HandedOver => {
                state.end_late();
                let directory = directory.clone();
                let left = tokio::task::spawn_blocking(move || directory.leave_late(&state_dir)).await?;
                return left.context("what was used last cannot be left for the gateway that follows");
            }
            Self::Alone(cluster) => cluster,
        };
        directory.flush().await;
        if let Some(cluster) = cluster {
            cluster.leave().await;
        }
        Ok(())
    }
}

impl Orders {
    /// From now on no signal ends the process unheard. A worker heeds its supervisor as well.
    ///
    /// # Errors
    /// Signals cannot be listened to, or there is no supervisor.
    pub(super) fn new(is_worker: bool) -> io::Result<Self> {
        Ok(Self {
            signals: Signals::new()?,
            supervisor: if is_worker { Some(Line::to_supervisor()?.split()) } else { None },
            stopping: false,
        })
    }

    /// Whether a supervisor gives them.
    pub(super) fn are_a_supervisors(&self) -> bool {
        self.supervisor.is_some()
    }

    /// Heeds orders for as long as the process lives. The first one to stop drains, the second one ends it at once.
    pub(super) async fn heed(mut self, mut keeper: Keeper, stop: oneshot::Sender<Leaving>) {
        self.tell(News::Ready).await;
        let (mut stop, mut handed_over) = (Some(stop), false);
        loop {
            match self.next().await {
                Order::Reload => drop(keeper.control.ask(Change::Reload).await), // the log says what came of it
                Order::HandOver if handed_over => {}
                Order::HandOver => {
                    keeper.hand_over().await;
                    handed_over = true;
                    self.tell(News::HandedOver).await;
                }
                Order::Stop => {
                    let Some(stop) = stop.take() else {
                        tracing::warn!("stopped by a second signal");
                        std::process::exit(1);
                    };
                    tracing::info!("draining: no new connections, what runs may finish");
                    self.stopping = true;
                    keeper.admin.probes.draining.store(true, Ordering::Relaxed);
                    let leaving =
                        if handed_over { Leaving::HandedOver } else { Leaving::Alone(keeper.cluster.clone()) };
                    let _ = stop.send(leaving); // nobody waits if serving has failed
                }
            }
        }
    }

    async fn next(&mut self) -> Order {
        let told = async {
            let Some((ear, _)) = &mut self.supervisor else { return std::future::pending().await };
            if let Some(order) = ear.hear().await {
                return order;
            }
            tracing::warn!("the supervisor has ended");
            self.supervisor = None;
            // Once it has been told to stop, that is no reason to hurry.
            if self.stopping { std::future::pending().await } else { Order::Stop }
        };
        tokio::select! {
            said = self.signals.next() => match said {
                Said::Stop => Order::Stop,
                Said::Reload => Order::Reload,
            },
            order = told => order,
        }
    }

    async fn tell(&mut self, news: News) {
        if let Some((_, mouth)) = &mut self.supervisor {
            mouth.say(news).await;
        }
    }
}

impl Keeper {
    /// Lets go of the state directory. Requests go on; changes, and what has to do with jobs, are the next process's.
    async fn hand_over(&mut self) {
        self.control.end().await;
        self.jobs.drained(self.drain).await;
        self.background.shutdown().await;
        if let Some(cluster) = &self.cluster {
            cluster.leave().await;
        }
        self.state.flush(SETTLE).await;
        let (state, jobs) = (Arc::clone(&self.state), self.jobs.clone());
        let given = tokio::task::spawn_blocking(move || {
            jobs.hand_over();
            state.hand_over()
        });
        if let Err(error) = given.await.map_err(io::Error::other).flatten() {
            tracing::error!("the journal of what is used cannot be handed over: {error}");
        }
        // The last, since whoever has the directory has the rest.
        if let Err(error) = self.admin.directory.hand_over().await {
            tracing::error!("what was used cannot be kept: {error}");
        }
        tracing::info!("handed over: another process has the state directory, requests go on");
    }
}

/// Counts what processes before this one have left: once, and for a worker again and again, since the one before may still serve.
pub(super) async fn late(directory: Directory, state: Arc<State>, state_dir: PathBuf, again: bool) {
    loop {
        let counting = Arc::clone(&state);
        let counted = tokio::task::spawn_blocking(move || counting.take_late()).await;
        if let Err(error) = counted.map_err(io::Error::other).flatten() {
            tracing::warn!("what the gateway before this one has used cannot be counted: {error}");
        }
        if let Err(error) = directory.take_late(&state_dir).await {
            tracing::warn!("{error}");
        }
        if !again {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}
