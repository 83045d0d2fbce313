// SPDX-License-Identifier: Apache-2.0
//! `penstock supervise`: a process that holds the sockets and runs a worker, which serves. A worker that ends is replaced at once, and
//! connections wait in the sockets meanwhile. On SIGUSR2 the program that is on the disk now takes over, without a connection refused
//! and without a request lost; if it does not come up, the one before goes on.
//!
//! The order of an upgrade: the new program checks policies and plugins; the worker lets go of the state directory and serves on; the
//! new worker opens it, and serves beside it from the same sockets; the old one ends each connection with its next answer.

use std::env;
use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use command_fds::{CommandFdExt, FdMapping};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::signals::{Said, Signals};
use super::worker::{Ear, Line, Mouth, News, Order};
use super::{Flags, cluster, program};
use crate::config::{Place, load};
use crate::listener::{self, Inherited};

/// The command of a worker.
pub const WORK: &str = "work";
/// The first descriptor that is handed over (`sd_listen_fds(3)`).
const FIRST: i32 = 3;
/// How long a new program may take to check policies and plugins, or to begin to serve.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a worker may take to let go of the state directory, beyond the time that its jobs have.
const HAND_OVER_MAX: Duration = Duration::from_secs(90);
/// A worker that has served is replaced at once. After one that has not come so far there is a pause, after each further one
/// twice as long, from here to there.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Runs workers until told to stop.
///
/// # Errors
/// Sockets or signals cannot be had, or the first worker cannot be run.
pub fn supervise(flags: &Flags) -> anyhow::Result<ExitCode> {
    let inherited = Inherited::from_env().context("the sockets that were handed over")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { Supervisor::new(flags, inherited)?.run().await })
}

struct Supervisor {
    flags: Flags,
    /// Arguments of every worker.
    arguments: Vec<OsString>,
    /// The program of the worker that serves; one that is replaced on the disk is still the same here.
    program: PathBuf,
    /// Where the program is on the disk.
    on_disk: PathBuf,
    sockets: Vec<(SocketAddr, TcpListener)>,
    /// Workers that end.
    retired: JoinSet<()>,
    signals: Signals,
    /// The signal to upgrade.
    upgrade: Signal,
    /// Workers that have ended one after another before they served.
    failures: u32,
}

struct Worker {
    child: Child,
    ear: Ear,
    mouth: Mouth,
    serves: bool,
}

/// What has happened.
enum Event {
    Ended(io::Result<ExitStatus>),
    Heard(Option<News>),
    Said(Said),
    Upgrade,
    Retired,
}

impl Supervisor {
    fn new(flags: &Flags, mut inherited: Inherited) -> anyhow::Result<Self> {
        let signals = Signals::new().context("cannot listen to signals")?;
        let upgrade = signal(SignalKind::user_defined2()).context("cannot listen to signals")?;
        let mut sockets = Vec::new();
        for address in addresses(flags)? {
            let open = || listener::open(address);
            let socket = inherited.take(address).map_or_else(open, Ok).with_context(|| address.to_string())?;
            sockets.push((address, socket));
        }
        Ok(Self {
            flags: flags.clone(),
            arguments: env::args_os().skip_while(|argument| argument != "supervise").skip(1).collect(),
            program: program()?,
            on_disk: env::current_exe().context("cannot find the program itself")?,
            sockets,
            retired: JoinSet::new(),
            signals,
            upgrade,
            failures: 0,
        })
    }

    async fn run(mut self) -> anyhow::Result<ExitCode> {
        let mut worker = self.spawn(&self.program).context("cannot run a worker")?;
        let (mut has_served, mut hears, mut stopping) = (false, true, false);
        loop {
            let event = tokio::select! {
                ended = worker.child.wait() => Event::Ended(ended),
                news = worker.ear.hear(), if hears => Event::Heard(news),
                said = self.signals.next() => Event::Said(said),
                _ = self.upgrade.recv() => Event::Upgrade,
                Some(_) = self.retired.join_next() => Event::Retired,
            };
            match event {
                Event::Ended(status) if stopping || !has_served => {
                    while self.retired.join_next().await.is_some() {}
                    return Ok(code(&status?));
                }
                Event::Ended(status) => {
                    tracing::error!("the worker has ended ({}); another one takes its place", told(&status));
                    worker = self.replaced(worker.serves).await;
                    hears = true;
                }
                Event::Heard(Some(News::Ready)) => (worker.serves, has_served) = (true, true),
                Event::Heard(Some(News::HandedOver)) | Event::Retired => {}
                Event::Heard(None) => hears = false,
                Event::Said(Said::Stop) if stopping => {
                    let _ = worker.child.start_kill(); // it may have ended
                    self.retired.abort_all();
                }
                Event::Said(Said::Stop) => {
                    stopping = true;
                    worker.mouth.say(Order::Stop).await;
                }
                Event::Said(Said::Reload) => worker.mouth.say(Order::Reload).await,
                Event::Upgrade if stopping => {}
                Event::Upgrade => {
                    worker = self.upgraded(worker).await;
                    hears = true;
                }
            }
        }
    }

    /// Another worker in the place of one that has failed.
    async fn replaced(&mut self, has_served: bool) -> Worker {
        self.failures = if has_served { 0 } else { self.failures.saturating_add(1) };
        loop {
            if let Some(further) = self.failures.checked_sub(1) {
                tokio::time::sleep(PAUSE.0.saturating_mul(1 << further.min(6)).min(PAUSE.1)).await;
            }
            match self.spawn(&self.program) {
                Ok(worker) => return worker,
                Err(error) => tracing::error!("cannot run a worker: {error}"),
            }
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// The worker of the program that is on the disk now, or one of the program before if that fails.
    async fn upgraded(&mut self, mut worker: Worker) -> Worker {
        tracing::info!(program = %self.on_disk.display(), "upgrading");
        if let Err(error) = self.check().await {
            tracing::error!("not upgraded, the worker serves on: {error:#}");
            return worker;
        }
        self.renew_sockets();
        worker.mouth.say(Order::HandOver).await;
        if let Err(error) = worker.until(News::HandedOver, HAND_OVER_MAX).await {
            tracing::error!("the worker did not hand over ({error}); it is ended");
            let _ = worker.child.start_kill(); // it may have ended
            let _ = worker.child.wait().await;
        }
        let on_disk = self.on_disk.clone();
        let next = match self.started(&on_disk).await {
            Ok(next) => {
                tracing::info!("upgraded");
                self.program = on_disk;
                next
            }
            Err(error) => {
                tracing::error!("not upgraded, the program before goes on: {error:#}");
                match self.started(&self.program).await {
                    Ok(next) => next,
                    Err(error) => {
                        tracing::error!("cannot run a worker: {error:#}");
                        self.replaced(false).await
                    }
                }
            }
        };
        worker.mouth.say(Order::Stop).await;
        self.retired.spawn(async move {
            let Worker { mut child, ear, mouth, .. } = worker;
            let _ = child.wait().await; // it ends by itself
            drop((ear, mouth)); // not before: their end would tell it to hurry
        });
        next
    }

    /// Asks the program on the disk what it would say of policies and plugins.
    async fn check(&self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.on_disk);
        command.arg("check").args(&self.arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(START_MAX, command.output()).await.context("its check takes too long")??;
        if !output.status.success() {
            bail!("its check says: {}", String::from_utf8_lossy(&output.stdout).trim());
        }
        Ok(())
    }

    /// Sockets for listeners that are new in the policies; those of listeners that are gone are closed with the old worker.
    fn renew_sockets(&mut self) {
        let wanted = match addresses(&self.flags) {
            Ok(wanted) => wanted,
            Err(error) => return tracing::warn!("the listeners stay as they are for the supervisor: {error:#}"),
        };
        self.sockets.retain(|(address, _)| wanted.contains(address));
        for address in wanted {
            if !self.sockets.iter().any(|(known, _)| *known == address) {
                match listener::open(address) {
                    Ok(socket) => self.sockets.push((address, socket)),
                    Err(error) => tracing::error!("{address}: {error}"),
                }
            }
        }
    }

    /// A worker that serves.
    async fn started(&self, program: &Path) -> anyhow::Result<Worker> {
        let mut worker = self.spawn(program)?;
        worker.until(News::Ready, START_MAX).await?;
        worker.serves = true;
        Ok(worker)
    }

    fn spawn(&self, program: &Path) -> anyhow::Result<Worker> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = std::process::Command::new(program);
        command.arg(WORK).args(&self.arguments).stdin(OwnedFd::from(theirs));
        command.env("LISTEN_FDS", self.sockets.len().to_string());
        for name in ["LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_FDS_FIRST_FD"] {
            command.env_remove(name);
        }
        let mappings = (FIRST..)
            .zip(&self.sockets)
            .map(|(child_fd, (_, socket))| Ok(FdMapping { parent_fd: socket.try_clone()?.into(), child_fd }));
        command.fd_mappings(mappings.collect::<io::Result<_>>()?)?;
        let mut command = Command::from(command);
        let child = command.kill_on_drop(true).spawn().with_context(|| program.display().to_string())?;
        let (ear, mouth) = Line::over(ours)?.split();
        Ok(Worker { child, ear, mouth, serves: false })
    }
}

impl Worker {
    /// Waits for a word of the worker.
    async fn until(&mut self, word: News, patience: Duration) -> anyhow::Result<()> {
        let heard = async {
            loop {
                match self.ear.hear::<News>().await {
                    Some(heard) if heard == word => return Ok(()),
                    Some(_) => {}
                    None => bail!("it has ended ({})", told(&self.child.wait().await)),
                }
            }
        };
        timeout(patience, heard).await.context("it takes too long")?
    }
}

/// Where the policies say that is listened, the admin API included.
fn addresses(flags: &Flags) -> anyhow::Result<Vec<SocketAddr>> {
    let policy = cluster::places(flags).and_then(|places| load::parse(places.policy()?));
    let config = policy.map_err(|problems| super::start::all(&problems))?.config;
    // The file of a Unix socket is the worker's own: the next one puts another in its place.
    let callers = config.listeners.iter().filter_map(|listener| match listener.address {
        Place::Network(address) => Some(address),
        Place::File(_) => None,
    });
    Ok(callers.chain([config.admin.address]).collect())
}

fn told(status: &io::Result<ExitStatus>) -> String {
    status.as_ref().map_or_else(ToString::to_string, ToString::to_string)
}

fn code(status: &ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
