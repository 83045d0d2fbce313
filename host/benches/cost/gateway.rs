// SPDX-License-Identifier: Apache-2.0
//! The gateway as `penstock run` wires it, with a policy that has a route for each scenario. There is no admin API and no access log: the
//! baseline has none either.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use penstock::config;
use penstock::config::place::{Problem, Sources};
use penstock::directory::Directory;
use penstock::gateway::Gateway;
use penstock::jobs::Jobs;
use penstock::library::Library;
use penstock::listener;
use penstock::metrics::Metrics;
use penstock::plugin::{Compiler, Component, Runtime, RuntimeOptions};
use penstock::snapshot::{Build, Snapshot};
use penstock::stages::Gate;
use penstock::state::{Memory, State};
use penstock::traces::Tracer;
use penstock::upstream::Client;
use tokio::sync::oneshot;

/// Components that the policy names.
const COMPONENTS: [&str; 5] = ["api-key", "cors", "openai-compatible", "token-bucket", "weighted"];

/// How long a call into a plugin may take, in milliseconds.
const PATIENCE_MS: u64 = 2_000;

/// The policy; `UPSTREAM` stands for the upstream's address. The digest is that of [`crate::scenarios::CALLER_KEY`].
const POLICY: &str = r#"
[plugins]
cors = { plugin = "cors", config = { origins = ["https://app.example"] } }
spread = { plugin = "weighted" }

[plugins.callers]
plugin = "api-key"
config = { keys = [{ subject = "bench", sha256 = "SHA256" }] }

[plugins.fair]
plugin = "token-bucket"
config = { rules = [{ per = ["subject"], requests_per_minute = 1000000000, tokens_per_minute = 1000000000000 }] }

[vendors]
a = { adapter = "openai-compatible", base_url = "http://UPSTREAM/v1", key = "env:PENSTOCK_BENCH_KEY", models = ["m"] }
b = { adapter = "openai-compatible", base_url = "http://UPSTREAM/v1", key = "env:PENSTOCK_BENCH_KEY" }

[models.spread]
targets = [{ vendor = "a", model = "bench-model", weight = 3 }, { vendor = "b", model = "bench-model" }]

[services]
plain = { endpoints = ["http://UPSTREAM"] }

[[routes]]
name = "plain"
path = "/plain"
service = "plain"
strip_prefix = true

[[routes]]
name = "open"
path = "/open"

[[routes]]
name = "full"
path = "/full"
filters = ["cors"]
auth = "callers"
limits = ["fair"]
routing = "spread"
"#;

/// Serves for ever.
pub async fn serve(upstream: SocketAddr, listening: oneshot::Sender<SocketAddr>) -> anyhow::Result<()> {
    let digest = crate::scenarios::CALLER_KEY_SHA256;
    let policy = POLICY.replace("UPSTREAM", &upstream.to_string()).replace("SHA256", digest);
    let metrics = Arc::new(Metrics::new()?);
    let state = Arc::new(Memory::new(100_000));
    let directory = Directory::in_memory().map_err(|error| anyhow!(error))?;
    let snapshot = snapshot(&policy, &state, &directory, &metrics)?;
    let client = Client::new(&snapshot.limits, &snapshot.timeouts)?;
    let (limits, timeouts) = (snapshot.limits.clone(), snapshot.timeouts.clone());
    let connections = metrics.connections();
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
    let jobs = Jobs::open(None, Arc::clone(&metrics)).map_err(|error| anyhow!(error))?;
    let gate = Gate { state: State::in_memory(state), rules: Arc::new(directory.clone()) };
    let gateway = Arc::new(Gateway {
        snapshot,
        client,
        gate,
        metrics,
        jobs,
        directory,
        probes: Arc::default(),
        traces: Tracer::default(),
    });
    let wanted = config::Listener { address: "127.0.0.1:0".parse()?, tls: None };
    let bound = listener::bind(&[wanted]).map_err(|error| anyhow!(error))?;
    let address = *bound.addresses().first().context("one listener has one address")?;
    let _ = listening.send(address);
    let handler = move |request, peer| {
        let gateway = Arc::clone(&gateway);
        async move { gateway.handle(request, peer).await }
    };
    listener::serve(bound, handler, &limits, &timeouts, &connections, std::future::pending()).await;
    Ok(())
}

fn snapshot(policy: &str, state: &Arc<Memory>, directory: &Directory, metrics: &Metrics) -> anyhow::Result<Snapshot> {
    let library = library(metrics)?;
    let sources = Sources::new([("bench.toml".to_owned(), policy.to_owned())]);
    let policy = config::load::parse(sources).map_err(|problems| all(&problems))?;
    Snapshot::build(&Build {
        config: &policy.config,
        sources: &policy.sources,
        library: &library,
        state,
        directory,
        metrics: metrics.registry(),
        previous: None,
        generation: 1,
    })
    .map_err(|problems| all(&problems))
}

fn all(problems: &[Problem]) -> anyhow::Error {
    anyhow!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

fn library(metrics: &Metrics) -> anyhow::Result<Library<Component>> {
    let directory: PathBuf = std::env::var_os("PENSTOCK_PLUGINS")
        .context("PENSTOCK_PLUGINS names no folder of components; `cargo xtask bench` sets it")?
        .into();
    // A thread that the machine's other work keeps from running must not miss the deadline of its call.
    let sandbox = config::Sandbox { adapter_ms: PATIENCE_MS, policy_ms: PATIENCE_MS, ..config::Sandbox::default() };
    let runtime = Runtime::new(RuntimeOptions {
        sandbox,
        cache_dir: Some(directory.join("cache")),
        compiler: Compiler::InProcess,
        self_test: None,
    })?;
    runtime.count_in(metrics.registry())?;
    let mut components = BTreeMap::new();
    for name in COMPONENTS {
        let path = directory.join(format!("{name}.wasm"));
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let component = runtime.load(&bytes).map_err(|refusal| anyhow!("{name}: {refusal}"))?;
        components.insert(name.to_owned(), component);
    }
    Ok(Library { components, ..Library::default() })
}
