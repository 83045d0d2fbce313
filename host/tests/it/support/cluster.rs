// SPDX-License-Identifier: Apache-2.0
//! Gateways as processes on one Redis.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;

use super::caller::{self, Reply};
use super::plugins::built;
use super::program::{Program, SOON};
use super::redis::RedisServer;

/// After how long another node leads.
pub const LEASE: Duration = Duration::from_millis(1500);

/// What the nodes share at the begin.
pub const SHARED: &str = "[plugins.callers]\nplugin = \"api-key\"\n[vendors.echo]\nadapter = \"echo\"\nmodels = [\"echo\"]\n\
                          [[routes]]\nname = \"ai\"\npath = \"/v1\"\nauth = \"callers\"\n";

/// A Redis, and the master key of the nodes on it.
pub struct Nodes {
    /// The store.
    pub redis: RedisServer,
    /// A file with the master key.
    pub master: PathBuf,
    _folder: tempfile::TempDir,
}

impl Nodes {
    /// No node yet; none if the machine has no Redis.
    pub fn new(test: &str) -> Option<Self> {
        let redis = RedisServer::start(test)?;
        let folder = tempfile::tempdir().unwrap();
        let master = folder.path().join("master");
        fs::write(&master, "planted-master-key-0123456789-0123456789").unwrap();
        Some(Self { redis, master, _folder: folder })
    }

    /// The folders of a node that has nothing but its own file.
    pub fn empty(&self, name: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["policies", "plugins", "state"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        let own = format!(
            "[admin]\naddress = \"127.0.0.1:0\"\nmaster_key = \"file:{}\"\n[[listeners]]\naddress = \"127.0.0.1:0\"\n\
             [cluster]\nname = \"{name}\"\nredis = \"{}\"\nlease_ms = {}\n",
            self.master.display(),
            self.redis.url(),
            LEASE.as_millis()
        );
        fs::write(root.path().join("policies/node.toml"), own).unwrap();
        root
    }

    /// The folders of a node that has policies and plugins.
    pub fn full(&self, name: &str) -> tempfile::TempDir {
        let root = self.empty(name);
        fs::write(root.path().join("policies/main.toml"), SHARED).unwrap();
        for name in ["echo", "api-key"] {
            fs::write(root.path().join("plugins").join(format!("{name}.wasm")), built(name)).unwrap();
        }
        root
    }

    /// Three nodes, of which the first one has brought everything.
    pub fn three(&self) -> [Program; 3] {
        let first = Program::run(self.full("a"));
        [first, Program::run(self.empty("b")), Program::run(self.empty("c"))]
    }
}

/// Asks the admin API of a node with a body.
pub async fn admin(node: &Program, method: &str, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
    let token = fs::read_to_string(node.root.path().join("state/admin-token")).unwrap();
    let request = http::Request::builder().method(method).uri(format!("/api/v1/{path}")).header("host", "admin");
    let request = request.header("authorization", format!("Bearer {}", token.trim())).body(body.into()).unwrap();
    let reply = caller::ask(node.admin, request).await;
    let answer = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
    (reply.status.as_u16(), answer)
}

/// Makes something, and fails if that is refused.
pub async fn make(node: &Program, path: &str, settings: &Value) -> Value {
    let (status, answer) = admin(node, "POST", path, settings.to_string()).await;
    assert!(status < 300, "{path}: {answer}");
    answer
}

/// Asks a model with a key.
pub async fn chat(node: &Program, key: &str, model: &str) -> Reply {
    let body = serde_json::json!({"model": model, "messages": [{"role": "user", "content": "hello"}]});
    let mut request = caller::post("/v1/chat/completions", &body);
    request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    caller::ask(node.gateway, request).await
}

/// Waits until something is so, and answers how long that took; fails if it is not so soon.
pub async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) -> Duration {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < SOON, "{what}: not within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

/// The digest of the active version of a plugin.
pub async fn active(node: &Program, plugin: &str) -> String {
    let (_, answer) = admin(node, "GET", "plugins", "").await;
    let plugins = answer["plugins"].as_array().unwrap().iter();
    let found = plugins.filter(|found| found["name"] == plugin).find_map(|found| found["digest"].as_str());
    found.unwrap_or_default().to_owned()
}

/// The cluster as a node sees it.
pub async fn cluster(node: &Program) -> Value {
    admin(node, "GET", "cluster", "").await.1
}

/// A metric of a node.
pub async fn metric(node: &Program, name: &str) -> f64 {
    let token = fs::read_to_string(node.root.path().join("state/admin-token")).unwrap();
    let request = http::Request::get("/metrics").header("authorization", format!("Bearer {}", token.trim()));
    let reply = caller::ask(node.admin, request.body(Bytes::new()).unwrap()).await;
    let text = reply.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
    line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
}
