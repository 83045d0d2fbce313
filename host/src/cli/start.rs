// SPDX-License-Identifier: Apache-2.0
//! From flags to a gateway that serves, and to the answer of `penstock check`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::cluster::{self, Begun};
use super::orders::{Keeper, Leaving, Orders, late};
use super::{Flags, readings, state, traces};
use crate::admin::{self, Admin};
use crate::cluster::Cluster;
use crate::config::Place;
use crate::config::load::{self, Policy};
use crate::config::place::Problem;
use crate::control::live::Live;
use crate::control::{self, Control, Places};
use crate::directory::Directory;
use crate::discovery::{self, Means};
use crate::gateway::Gateway;
use crate::jobs::Jobs;
use crate::listener::{self, Bound, Certificates, Drained, Farewell, Inherited};
use crate::metrics::Metrics;
use crate::plugin::{Compiler, Runtime, RuntimeOptions};
use crate::probes::Probes;
use crate::shed::{self, Shed};
use crate::stages::Gate;
use crate::state::Memory;
use crate::traces::export::Exporter;
use crate::upstream::Client;
use crate::watch;

/// How long the end of the process waits for the shared state to be told what was used; the journal has the rest.
const FLUSH: Duration = Duration::from_secs(1);

/// Everything that runs.
pub struct Started {
    gateway: Gateway,
    policy: Policy,
    control: Control,
    cluster: Option<Cluster>,
    admin: Arc<Admin>,
    admin_listener: TcpListener,
    bound: Bound,
    places: Places,
    orders: Orders,
    exporter: Option<Exporter>,
    means: Means,
    state_dir: PathBuf,
}

impl Started {
    /// Opens sockets, reads policies and plugins, and builds the first generation.
    ///
    /// # Errors
    /// Everything that keeps the gateway from serving, with the place and the cure.
    /// It listens on the sockets that were handed over, where they are meant; a worker heeds its supervisor.
    pub async fn new(flags: &Flags, mut inherited: Inherited, is_worker: bool) -> anyhow::Result<Self> {
        let orders = Orders::new(is_worker).context("cannot listen to signals")?; // from here on none ends it unheard
        let metrics = Arc::new(Metrics::new()?);
        let Begun { policy, places, directory, cluster, beats } = cluster::begin(flags, &metrics).await?;
        let config = &policy.config;
        if places.built_in.is_some() {
            places.plugins.iter().try_for_each(std::fs::create_dir_all).context("cannot make the drop-in directory")?;
        }
        let bound = listener::bind_or_inherit(&config.listeners, &mut inherited).map_err(|error| anyhow!(error))?;
        let admin_listener = inherited.listen(config.admin.address);
        let admin_listener = admin_listener.with_context(|| format!("admin.address {}", config.admin.address))?;

        let memory = state::memory(config);
        let compiled = flags.state_dir().join("compiled");
        let live = live(&policy, Some(&compiled), &memory, &directory, &metrics, bound.certificates())?;
        let (control, snapshot) = {
            let (places, metrics) = (places.clone(), Arc::clone(&metrics));
            tokio::task::spawn_blocking(move || Control::start(live, &places, metrics))
                .await?
                .map_err(|problems| all(&problems))?
        };
        if let Some(cluster) = &cluster {
            cluster.attach(control.clone(), places.clone()).await;
        }
        let client = Client::new(&config.limits, &config.timeouts)?;
        let jobs = {
            let (state_dir, metrics) = (flags.state_dir(), Arc::clone(&metrics));
            tokio::task::spawn_blocking(move || Jobs::open(Some(&state_dir), metrics)).await?
        };
        let jobs = jobs.map_err(|error| anyhow!(error))?;
        let probes = Probes { metrics_open: config.admin.metrics_open, ..Probes::default() };
        let probes = Arc::new(probes);
        let admin = Arc::new(Admin {
            control: control.clone(),
            snapshot: Arc::clone(&snapshot),
            directory: directory.clone(),
            jobs: jobs.clone(),
            metrics: Arc::clone(&metrics),
            probes: Arc::clone(&probes),
            component_bytes_max: config.sandbox.component_bytes_max,
            beats: Arc::clone(&beats),
            cluster: cluster.clone(),
        });
        let state = state::open(&policy, memory, &flags.state_dir()).await?;
        let shed = Arc::new(Shed::new(&config.limits));
        readings::show(&metrics, Arc::clone(&snapshot), Arc::clone(&state), directory.clone(), Arc::clone(&shed))?;
        let gate = Gate { state, rules: Arc::new(directory.clone()) };
        let (traces, exporter) = traces::start(&policy, &client, &metrics)?;
        let means =
            Means { client: client.clone(), metrics: Arc::clone(&metrics), directory: directory.clone(), beats };
        let gateway = Gateway { snapshot, client, gate, metrics, jobs, directory, probes, traces, shed };
        let state_dir = flags.state_dir();
        Ok(Self {
            gateway,
            policy,
            control,
            cluster,
            admin,
            admin_listener,
            bound,
            places,
            orders,
            exporter,
            means,
            state_dir,
        })
    }

    /// Tells the operator what is served where.
    pub fn announce(&self) {
        for (address, listener) in self.bound.addresses().iter().zip(&self.policy.config.listeners) {
            let scheme = if listener.tls.is_some() { "https" } else { "http" };
            match &listener.address {
                Place::Network(_) => tracing::info!(%address, "serving {scheme}://{address}"),
                Place::File(_) => {
                    tracing::info!(address = %listener.address, "serving {scheme} at {}", listener.address);
                }
            }
        }
        match self.admin_listener.local_addr() {
            Ok(address) => tracing::info!(%address, "the admin API is at http://{address}"),
            Err(error) => tracing::warn!("the admin API has no address: {error}"),
        }
        for (vendor, why) in &self.gateway.snapshot.load().dormant {
            tracing::info!(vendor, "{vendor} is left out: {why}");
        }
        let status = self.control.status();
        let names: Vec<&str> = status.plugins.iter().map(|plugin| plugin.facts.name.as_str()).collect();
        tracing::info!(generation = status.generation, plugins = names.join(" "), "ready");
    }

    /// Serves until a signal says to stop; then running requests may finish within `timeouts.drain_ms`.
    ///
    /// # Errors
    /// Signals or files cannot be listened to.
    pub async fn serve(self) -> anyhow::Result<Drained> {
        let Self {
            gateway,
            policy,
            control,
            cluster,
            admin,
            admin_listener,
            bound,
            places,
            orders,
            exporter,
            means,
            state_dir,
        } = self;
        watch::start(control.clone(), cluster.clone(), &places, bound.certificates()).context("cannot watch files")?;
        let (limits, timeouts) = (&policy.config.limits, &policy.config.timeouts);
        let drain = Duration::from_millis(timeouts.drain_ms);
        let connections = gateway.metrics.connections();
        let gateway = Arc::new(gateway);
        let (jobs, state) = (gateway.jobs.clone(), Arc::clone(&gateway.gate.state));
        let directory = gateway.directory.clone();

        let mut background = JoinSet::new();
        let serving_admin = admin::serve(admin_listener, Arc::clone(&admin), policy.config.admin.connections_max);
        background.spawn(async move { match serving_admin.await {} });
        background.spawn(discovery::run(Arc::clone(&gateway.snapshot), means));
        let writing = directory.clone();
        background.spawn(async move { writing.run().await });
        if let Some(cluster) = cluster.clone() {
            background.spawn(async move { cluster.run().await });
        }
        background.spawn(late(directory.clone(), Arc::clone(&state), state_dir.clone(), orders.are_a_supervisors()));
        work(&gateway);
        let keeper =
            Keeper { control, admin, jobs: jobs.clone(), state: Arc::clone(&state), cluster, background, drain };
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(orders.heed(keeper, stop));

        let handler = move |request, peer| {
            let gateway = Arc::clone(&gateway);
            async move { gateway.handle(request, peer).await }
        };
        let mut leaving = None;
        let shutdown = async {
            let asked = stopped.await.ok();
            jobs.hold();
            let farewell = asked.as_ref().map_or(Farewell::Prompt, Leaving::farewell);
            leaving = asked;
            farewell
        };
        let drained = listener::serve(bound, handler, limits, timeouts, &connections, shutdown).await;
        jobs.drained(drain).await;
        state.flush(FLUSH).await;
        leaving.unwrap_or(Leaving::Alone(None)).end(&directory, &state, state_dir).await?;
        if let Some(exporter) = exporter {
            exporter.flush(FLUSH).await;
        }
        Ok(drained)
    }
}

/// What the gateway does beside requests, for as long as the process lives: jobs, and a look at how late its tasks are.
fn work(gateway: &Arc<Gateway>) {
    let (working, shed) = (Arc::clone(gateway), Arc::clone(&gateway.shed));
    let metrics = Arc::clone(&gateway.metrics);
    let count = move || {
        let (ended, took_us) = metrics.ended_so_far();
        shed::Count { ended, took_us }
    };
    tokio::spawn(async move { shed.watch(count).await });
    tokio::spawn(async move {
        let (client, snapshot) = (working.client.clone(), Arc::clone(&working.snapshot));
        working.jobs.run(Arc::clone(&working), client, snapshot).await;
    });
}

/// `penstock check`: one line when all is well, otherwise a line for each problem.
///
/// # Errors
/// Standard output cannot be written to, or the runtime does not start.
pub fn check(flags: &Flags) -> anyhow::Result<ExitCode> {
    let found = cluster::places(flags).and_then(|places| Ok((load::parse(places.policy()?)?, places)));
    let checked = found.map_err(Ok).and_then(|(policy, places)| {
        let metrics = Arc::new(Metrics::new().map_err(|error| Err(anyhow!(error)))?);
        state::redis(&policy).map_err(|problem| Ok(vec![problem]))?;
        traces::options(&policy).map_err(|problem| Ok(vec![problem]))?;
        let memory = state::memory(&policy.config);
        let directory = Directory::in_memory().map_err(|error| Err(anyhow!(error)))?;
        let live = live(&policy, None, &memory, &directory, &metrics, Certificates::default()).map_err(Err)?;
        control::check(live, &places, metrics).map_err(Ok).map(|(status, snapshot)| (policy, status, snapshot))
    });
    let mut out = io::stdout().lock();
    match checked {
        Ok((policy, status, snapshot)) => {
            let files = policy.sources.files().count();
            let config = policy.config;
            let (vendors, routes, plugins) = (config.vendors.len(), config.routes.len(), status.plugins.len());
            let dormant: Vec<&str> = snapshot.dormant.iter().map(|(vendor, _)| vendor.as_str()).collect();
            let left_out =
                if dormant.is_empty() { String::new() } else { format!(" (left out: {})", dormant.join(", ")) };
            writeln!(out, "ok: {files} files, {routes} routes, {vendors} vendors{left_out}, {plugins} plugins")?;
            for file in &status.refused {
                writeln!(out, "warning: {}: {}", file.path, Problem::new("", file.refusal.to_string(), ""))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(Ok(problems)) => {
            for problem in problems {
                writeln!(out, "{problem}")?;
            }
            Ok(ExitCode::FAILURE)
        }
        Err(Err(error)) => Err(error),
    }
}

fn live(
    policy: &Policy,
    compiled: Option<&Path>,
    state: &Arc<Memory>,
    directory: &Directory,
    metrics: &Metrics,
    certificates: Certificates,
) -> anyhow::Result<Live> {
    let program = super::program()?;
    let runtime = Runtime::new(RuntimeOptions {
        sandbox: policy.config.sandbox.clone(),
        cache_dir: compiled.map(Path::to_owned),
        compiler: Compiler::Child(program),
        self_test: Some(crate::plugin::self_test::run_embedded),
    })?;
    runtime.count_in(metrics.registry())?;
    let (state, directory, metrics) = (Arc::clone(state), directory.clone(), metrics.registry().clone());
    Ok(Live { runtime, state, directory, metrics, certificates })
}

/// Problems as one error, a line each.
pub(super) fn all(problems: &[Problem]) -> anyhow::Error {
    for problem in problems {
        tracing::error!("{problem}");
    }
    anyhow!("{} in policies or plugins; nothing is served", if problems.len() == 1 { "a problem" } else { "problems" })
}
