// SPDX-License-Identifier: Apache-2.0
//! The gateway as `penstock run` wires it, with a policy that has a route for each scenario. There is no admin API and no access log: the
//! baseline has none either.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;
use penstock::config::place::{Problem, Sources};
use penstock::config::{self, Away};
use penstock::directory::audit::Actor;
use penstock::directory::document::Kind;
use penstock::directory::settings::Role;
use penstock::directory::{Change, Directory};
use penstock::gateway::Gateway;
use penstock::jobs::Jobs;
use penstock::library::{Library, Refused};
use penstock::listener;
use penstock::metrics::Metrics;
use penstock::plugin::{Compiler, Component, Runtime, RuntimeOptions};
use penstock::shed::Shed;
use penstock::snapshot::{Build, Snapshot};
use penstock::stages::Gate;
use penstock::state::{Memory, Options, Redis, State};
use penstock::traces::Tracer;
use penstock::upstream::Client;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;
use tokio::sync::oneshot;

use crate::process::Ready;

/// Components that the policy names.
const COMPONENTS: [&str; 7] = ["api-key", "budget", "cors", "jwt", "openai-compatible", "token-bucket", "weighted"];

/// Id of the virtual key that the token of callers names.
const VIRTUAL_KEY: &str = "key";

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

[plugins.tokens]
plugin = "jwt"

[[plugins.tokens.config.issuers]]
issuer = "bench"
audiences = ["bench"]
keys = [{ kty = "EC", crv = "P-256", alg = "ES256", kid = "k", x = "KEY_X", y = "KEY_Y" }]
claims = { virtual_key = "vk" }

[plugins.money]
plugin = "budget"

[prices."a/bench-model"]
input = 1
output = 2

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

[[routes]]
name = "governed"
path = "/governed"
filters = ["cors"]
auth = "tokens"
limits = ["fair", "money"]
routing = "spread"
"#;

/// Serves for ever. With the address of a Redis counters are shared by it.
pub async fn serve(
    upstream: SocketAddr,
    redis: Option<String>,
    listening: oneshot::Sender<Ready>,
) -> anyhow::Result<()> {
    let digest = crate::scenarios::CALLER_KEY_SHA256;
    let issuer = Issuer::new()?;
    let policy = POLICY.replace("UPSTREAM", &upstream.to_string()).replace("SHA256", digest);
    let policy = policy.replace("KEY_X", &issuer.x).replace("KEY_Y", &issuer.y);
    let metrics = Arc::new(Metrics::new()?);
    let state = Arc::new(Memory::with_lasting(100_000, 10_000));
    let folder = tempfile::tempdir()?;
    let directory = Directory::open(folder.path(), None).map_err(|error| anyhow!(error))?;
    govern(&directory).await.map_err(|refused| anyhow!("{refused}"))?;
    let counters = counters(&state, folder.path(), redis).await?;
    let snapshot = snapshot(&policy, &state, &directory, &metrics)?;
    let client = Client::new(&snapshot.limits, &snapshot.timeouts)?;
    let (limits, timeouts) = (snapshot.limits.clone(), snapshot.timeouts.clone());
    let connections = metrics.connections();
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
    let jobs = Jobs::open(None, Arc::clone(&metrics)).map_err(|error| anyhow!(error))?;
    let gate = Gate { state: counters, rules: Arc::new(directory.clone()) };
    let gateway = Arc::new(Gateway {
        snapshot,
        client,
        gate,
        metrics,
        jobs,
        directory,
        probes: Arc::default(),
        traces: Tracer::default(),
        shed: Arc::new(Shed::new(&limits)),
    });
    let wanted = config::Listener::plain(SocketAddr::from(([127, 0, 0, 1], 0)).into());
    let bound = listener::bind(&[wanted]).map_err(|error| anyhow!(error))?;
    let address = *bound.addresses().first().context("one listener has one address")?;
    let credentials = crate::scenarios::GOVERNED.map(|scenario| (scenario, issuer.token.clone())).to_vec();
    let _ = listening.send(Ready { address, credentials });
    let handler = move |request, peer| {
        let gateway = Arc::clone(&gateway);
        async move { gateway.handle(request, peer).await }
    };
    listener::serve(bound, handler, &limits, &timeouts, &connections, std::future::pending::<()>()).await;
    Ok(())
}

/// The counters, with their journal as `penstock run` has it.
async fn counters(memory: &Arc<Memory>, folder: &Path, redis: Option<String>) -> anyhow::Result<Arc<State>> {
    let redis = redis.map(|url| Redis {
        url,
        user: None,
        password: None,
        ca: None,
        prefix: "bench".to_owned(),
        timeout: Duration::from_secs(1),
        away: Away::Closed,
        lease: Duration::from_secs(30),
        unsent_bytes_max: 1 << 30,
    });
    let options = Options {
        memory: Arc::clone(memory),
        folder: Some(folder.join("counters")),
        redis,
        session: "bench".to_owned(),
    };
    State::open(options).await.map_err(|error| anyhow!("the state of limits: {error}"))
}

/// Makes a virtual key with a limit and a budget, whose team has a budget, none of which is ever used up.
async fn govern(directory: &Directory) -> Result<(), Refused> {
    let budget = || json!({ "usd": 1_000_000, "window_s": 86_400 });
    let limit = json!({ "counted": "requests", "limit": 1_000_000_000, "window_s": 60 });
    let key = json!({ "name": "bench", "team": "red", "limits": ["many"], "budgets": ["own"], "models": ["spread"] });
    for (kind, id, settings) in [
        (Kind::Limit, "many", limit),
        (Kind::Budget, "own", budget()),
        (Kind::Budget, "common", budget()),
        (Kind::Team, "red", json!({ "budgets": ["common"] })),
        (Kind::VirtualKey, VIRTUAL_KEY, key),
    ] {
        let actor = Actor { name: "bench".to_owned(), role: Role::Admin };
        directory.change(actor, Change::Create { kind, id: Some(id.to_owned()), settings, secret: None }).await?;
    }
    Ok(())
}

/// Who signs the token that callers show.
struct Issuer {
    /// Coordinates of the public key, in base64url.
    x: String,
    y: String,
    token: String,
}

impl Issuer {
    fn new() -> anyhow::Result<Self> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| anyhow!("no key"))?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).map_err(|_| anyhow!("no key"))?;
        let until = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 86_400;
        let header = json!({ "alg": "ES256", "kid": "k" });
        let claims = json!({ "iss": "bench", "aud": "bench", "sub": "caller", "exp": until, "vk": VIRTUAL_KEY });
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = pair.sign(&random, signed.as_bytes()).map_err(|_| anyhow!("no signature"))?;
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        // 4, and the two coordinates (SEC 1, 2.3.3).
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        Ok(Self { x: URL_SAFE_NO_PAD.encode(x), y: URL_SAFE_NO_PAD.encode(y), token })
    }
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
