// SPDX-License-Identifier: Apache-2.0
//! A gateway in this process: policy text in, address out. The components are the real ones, loaded once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Request;
use penstock::config;
use penstock::config::place::{Problem, Sources};
use penstock::directory::Directory;
use penstock::directory::beats::Beats;
use penstock::discovery::{self, Means};
use penstock::gateway::Gateway;
use penstock::jobs::Jobs;
use penstock::library::Library;
use penstock::listener;
use penstock::metrics::Metrics;
use penstock::plugin::{Compiler, Component, Runtime, RuntimeOptions};
use penstock::shed::Shed;
use penstock::snapshot::{Build, Snapshot};
use penstock::stages::Gate;
use penstock::state::{Memory, State};
use penstock::traces::Tracer;
use penstock::upstream::Client;
use tokio::sync::oneshot;

use super::caller::{self, Reply};
use super::plugins::{built, folder, hostile};

/// The runtime of all tests.
pub fn runtime() -> &'static Arc<Runtime> {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let cache_dir = Some(folder().join("cache"));
        let (sandbox, compiler) = (config::Sandbox::default(), Compiler::InProcess);
        Runtime::new(RuntimeOptions { sandbox, cache_dir, compiler, self_test: None })
            .expect("the plugin runtime starts")
    })
}

/// The components that operators get.
const TAME: [&str; 13] = [
    "anthropic",
    "api-key",
    "budget",
    "concurrency",
    "cors",
    "echo",
    "jwt",
    "mtls",
    "oidc-introspection",
    "openai-compatible",
    "priority",
    "token-bucket",
    "weighted",
];

/// The components that operators get, and `hostile`.
pub fn hostile_library() -> &'static Library<Component> {
    static LIBRARY: OnceLock<Library<Component>> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let mut library = library().clone();
        library.components.insert("hostile".to_owned(), runtime().load(&hostile("adapter")).unwrap());
        library
    })
}

/// The components that operators get, and `painter`.
pub fn painter_library() -> &'static Library<Component> {
    static LIBRARY: OnceLock<Library<Component>> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let mut library = library().clone();
        library.components.insert("painter".to_owned(), runtime().load(&built("painter")).unwrap());
        library
    })
}

/// The components that operators get, by name.
pub fn library() -> &'static Library<Component> {
    static LIBRARY: OnceLock<Library<Component>> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let mut components: BTreeMap<String, Arc<Component>> = BTreeMap::new();
        for name in TAME {
            let component = runtime().load(&built(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            components.insert(component.manifest().name.clone(), component);
        }
        Library { components, ..Library::default() }
    })
}

/// A running gateway. Dropping it stops it.
pub struct Rig {
    /// Where it listens.
    pub address: SocketAddr,
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// The certificates of its listener.
    pub certificates: listener::Certificates,
    /// When services were heard of.
    pub beats: Arc<Beats>,
    _stop: oneshot::Sender<()>,
}

impl Rig {
    /// Starts a gateway with this policy (without listeners) and the components of the repository.
    pub async fn start(policy: &str) -> Self {
        Self::with(policy, library()).await
    }

    /// Starts a gateway with this policy and these components.
    pub async fn with(policy: &str, library: &Library<Component>) -> Self {
        Self::behind(policy, library, None).await
    }

    /// Starts a gateway with this policy and these components, whose listener speaks TLS.
    pub async fn behind(policy: &str, library: &Library<Component>, tls: Option<config::Tls>) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let beats = Arc::<Beats>::default();
        let state = Arc::new(Memory::new(10_000));
        let directory = Directory::in_memory().unwrap();
        let snapshot = build(policy, library, &state, &directory, &metrics, None)
            .unwrap_or_else(|problems| panic!("{}", lines(&problems)));
        let client = Client::new(&snapshot.limits, &snapshot.timeouts).unwrap();
        let (limits, timeouts) = (snapshot.limits.clone(), snapshot.timeouts.clone());
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        let jobs = Jobs::open(None, Arc::clone(&metrics)).unwrap();
        let gate = Gate { state: State::in_memory(state), rules: Arc::new(directory.clone()) };
        let gateway = Arc::new(Gateway {
            shed: Arc::new(Shed::new(&limits)),
            snapshot,
            client,
            gate,
            metrics,
            jobs,
            directory,
            probes: Arc::default(),
            traces: Tracer::default(),
        });
        let bound =
            listener::bind(&[config::Listener { tls, ..config::Listener::plain("127.0.0.1:0".parse().unwrap()) }])
                .unwrap();
        let (address, certificates) = (bound.addresses()[0], bound.certificates());
        let working = Arc::clone(&gateway);
        tokio::spawn(async move {
            let (client, snapshot) = (working.client.clone(), Arc::clone(&working.snapshot));
            working.jobs.run(Arc::clone(&working), client, snapshot).await;
        });
        let means = Means {
            client: gateway.client.clone(),
            metrics: Arc::clone(&gateway.metrics),
            directory: gateway.directory.clone(),
            beats: Arc::clone(&beats),
        };
        let finding = tokio::spawn(discovery::run(Arc::clone(&gateway.snapshot), means)).abort_handle();
        let (stop, stopping) = oneshot::channel::<()>();
        let serving = Arc::clone(&gateway);
        tokio::spawn(async move {
            let handler = move |request, peer| {
                let gateway = Arc::clone(&serving);
                async move { gateway.handle(request, peer).await }
            };
            let gauge = prometheus::IntGauge::new("connections", "connections").unwrap();
            let shutdown = async {
                let _ = stopping.await;
            };
            listener::serve(bound, handler, &limits, &timeouts, &gauge, shutdown).await;
            finding.abort();
        });
        Self { address, gateway, certificates, beats, _stop: stop }
    }

    /// Sends a request and reads the whole answer.
    pub async fn ask(&self, request: Request<Bytes>) -> Reply {
        caller::ask(self.address, request).await
    }

    /// Puts another policy in force.
    pub fn installs(&self, policy: &str, library: &Library<Component>) {
        let (state, before) = (Arc::new(Memory::new(10_000)), self.gateway.snapshot.load_full());
        let (directory, metrics) = (&self.gateway.directory, &self.gateway.metrics);
        let next = build(policy, library, &state, directory, metrics, Some(&before));
        self.gateway.snapshot.store(Arc::new(next.unwrap_or_else(|problems| panic!("{}", lines(&problems)))));
    }

    /// Posts JSON.
    pub async fn post(&self, path: &str, body: &serde_json::Value) -> Reply {
        self.ask(caller::post(path, body)).await
    }
}

/// Builds a snapshot from policy text.
pub fn build(
    policy: &str,
    library: &Library<Component>,
    state: &Arc<Memory>,
    directory: &Directory,
    metrics: &Metrics,
    previous: Option<&Snapshot>,
) -> Result<Snapshot, Vec<Problem>> {
    let sources = Sources::new([("policy.toml".to_owned(), policy.to_owned())]);
    let policy = config::load::parse(sources)?;
    Snapshot::build(&Build {
        config: &policy.config,
        sources: &policy.sources,
        library,
        state,
        directory,
        metrics: metrics.registry(),
        previous,
        generation: previous.map_or(1, |previous| previous.generation + 1),
    })
}

/// What is wrong with a policy, a line for each.
pub fn problems(policy: &str) -> String {
    let (state, directory) = (Arc::new(Memory::new(100)), Directory::in_memory().unwrap());
    let metrics = Metrics::new().unwrap();
    let built = build(policy, &Library::default(), &state, &directory, &metrics, None);
    lines(&built.err().unwrap_or_default())
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
