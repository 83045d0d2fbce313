// SPDX-License-Identifier: Apache-2.0
//! No key is readable anywhere: keys are planted, everything is asked that can be asked, with the log at its most talkative,
//! and then every byte that the gateway has written or answered is searched for them.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::support::caller;
use crate::support::fake::{self, Fake};
use crate::support::plugins::built;
use crate::support::program::{PATIENCE, penstock, prepared};

const VENDOR_KEYS: [&str; 2] = ["sk-planted-first-0123456789", "sk-planted-second-0123456789"];

const POLICY: &str = r#"
[admin]
address = "127.0.0.1:0"
[[listeners]]
address = "127.0.0.1:0"
[plugins.callers]
plugin = "api-key"
[vendors.acme]
adapter = "openai-compatible"
base_url = "URL"
key = "env:PENSTOCK_TEST_NO_SUCH_KEY"
optional = true
models = ["m"]
[[routes]]
name = "ai"
path = "/v1"
auth = "callers"
"#;

/// A gateway whose log goes to a file.
struct Talkative {
    child: Child,
    root: tempfile::TempDir,
    gateway: SocketAddr,
    admin: SocketAddr,
    /// Everything that it has answered, but for the answers that show a new secret.
    heard: Vec<u8>,
}

impl Drop for Talkative {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Talkative {
    fn start(policy: &str) -> Self {
        let root = prepared(policy);
        fs::write(root.path().join("plugins/api-key.wasm"), built("api-key")).unwrap();
        let log = File::create(root.path().join("log")).unwrap();
        let mut command = penstock("run", root.path());
        let child = command.env("RUST_LOG", "trace").stderr(Stdio::from(log)).spawn().unwrap();
        let (gateway, admin) = (announced(root.path(), "serving http"), announced(root.path(), "the admin API is at"));
        Self { child, root, gateway, admin, heard: Vec::new() }
    }

    async fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let token = fs::read_to_string(self.root.path().join("state/admin-token")).unwrap();
        let request = Request::builder().method(method).uri(path).header("host", "admin");
        let request = request.header("authorization", format!("Bearer {}", token.trim()));
        let reply = caller::ask(self.admin, request.body(Bytes::copy_from_slice(body.as_bytes())).unwrap()).await;
        let mut answer: Value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
        let shown_once = method == "POST" && reply.status.is_success();
        if let (true, Some(members)) = (shown_once, answer.as_object()) {
            let mut rest = members.clone();
            rest.remove("key");
            rest.remove("token");
            self.heard.extend(Value::Object(rest).to_string().bytes());
        } else {
            self.heard.extend(&reply.body);
        }
        if answer.is_null() {
            answer = json!(reply.text());
        }
        (reply.status.as_u16(), answer)
    }

    async fn call(&mut self, path: &str, key: &str, body: &Value) -> u16 {
        let mut request = caller::post(path, body);
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        let reply = caller::ask(self.gateway, request).await;
        self.heard.extend(&reply.body);
        self.heard.extend(format!("{:?}", reply.headers).bytes());
        reply.status.as_u16()
    }
}

/// The address in the line of the log whose message begins so.
fn announced(root: &Path, message: &str) -> SocketAddr {
    let begun = Instant::now();
    loop {
        let log = fs::read_to_string(root.join("log")).unwrap();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut lines = lines.filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with(message)));
        if let Some(address) = lines.next().and_then(|line| line["address"].as_str()?.parse().ok()) {
            return address;
        }
        assert!(begun.elapsed() < PATIENCE, "the log does not say: {message}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn files(of: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn planted_keys_are_in_no_file_no_log_no_answer_no_metric_no_error_and_no_line_of_the_audit_log() {
    // A vendor that repeats the key in its refusal would be the vendor's leak; this one does not.
    let vendor = Fake::start(|_| fake::json("401 Unauthorized", r#"{"error":{"message":"bad key"}}"#)).await;
    let mut gateway = Talkative::start(&POLICY.replace("URL", &vendor.url()));
    let mut planted: Vec<String> = VENDOR_KEYS.iter().map(|key| (*key).to_owned()).collect();

    let new = |id: &str, key: &str| json!({"id": id, "vendor": "acme", "key_name": id, "api_key": key}).to_string();
    assert_eq!(gateway.ask("POST", "/api/v1/keys", &new("k1", VENDOR_KEYS[0])).await.0, 201);
    let rotation = json!({ "api_key": VENDOR_KEYS[1] }).to_string();
    assert_eq!(gateway.ask("POST", "/api/v1/keys/k1/rotate", &rotation).await.0, 200);
    for (path, body) in [
        ("/api/v1/virtual-keys", json!({"id": "vk", "name": "ann"})),
        ("/api/v1/virtual-keys/vk/rotate", json!({"overlap_s": 60})),
        ("/api/v1/admin-tokens", json!({"id": "t", "name": "bob", "role": "viewer"})),
    ] {
        let (status, answer) = gateway.ask("POST", path, &body.to_string()).await;
        assert!(status < 300, "{path}: {answer}");
        let secret = answer["key"].as_str().or(answer["token"].as_str()).unwrap();
        planted.push(secret.to_owned());
    }
    let (first, token) = (planted[2].clone(), planted[4].clone());

    misplaced(&mut gateway, &planted[1].clone(), &first).await;

    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(gateway.call("/v1/chat/completions", &first, &chat).await, 401, "the vendor refuses its key");
    gateway.call("/v1/chat/completions", &token, &chat).await;
    gateway.call("/v1/none", &first, &chat).await;
    let asked: Vec<_> =
        vendor.asked().iter().filter_map(|asked| asked.header("authorization").map(str::to_owned)).collect();
    assert!(asked.contains(&format!("Bearer {}", VENDOR_KEYS[1])), "the key is used");

    for path in [
        "keys",
        "keys/k1",
        "virtual-keys",
        "virtual-keys/vk",
        "admin-tokens",
        "audit?limit=1000",
        "usage",
        "features",
        "policies",
        "generations",
        "plugins",
        "jobs",
        "events",
        "openapi.json",
    ] {
        assert_eq!(gateway.ask("GET", &format!("/api/v1/{path}"), "").await.0, 200, "{path}");
    }
    assert_eq!(gateway.ask("GET", "/metrics", "").await.0, 200);
    tokio::time::sleep(Duration::from_millis(1200)).await; // usage is written once a second
    gateway.child.kill().unwrap();
    gateway.child.wait().unwrap();

    search(&gateway, planted);
}

/// Puts keys where they do not belong.
async fn misplaced(gateway: &mut Talkative, secret: &str, first: &str) {
    for (method, path, body) in [
        ("POST", "/api/v1/virtual-keys".to_owned(), json!({"name": 7, "models": secret})),
        (
            "POST",
            "/api/v1/keys".to_owned(),
            json!({"vendor": "acme", "key_name": "x", "tier": secret, "api_key": secret}),
        ),
        (
            "POST",
            "/api/v1/keys".to_owned(),
            json!({"vendor": "acme", "key_name": "x", "weight": secret, "api_key": secret}),
        ),
        ("GET", format!("/api/v1/keys/{secret}"), Value::Null),
        ("GET", format!("/api/v1/virtual-keys/{first}"), Value::Null),
        ("DELETE", format!("/api/v1/virtual-keys/{first}"), Value::Null),
        ("GET", format!("/api/v1/usage?by={secret}"), Value::Null),
        ("GET", format!("/api/v1/none/{secret}"), Value::Null),
    ] {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = gateway.ask(method, &path, &body).await;
        assert!((400..500).contains(&status), "{method} {path}: {status} {answer}");
    }
}

/// Searches every file and every answer.
fn search(gateway: &Talkative, mut planted: Vec<String>) {
    let state = gateway.root.path().join("state");
    planted.push(fs::read_to_string(state.join("admin-token")).unwrap().trim().to_owned());
    let master = fs::read_to_string(state.join("master-key")).unwrap().trim().to_owned();
    planted.push(master);
    let own = |name: &str| path_ends(name, &["admin-token", "master-key"]);
    let mut searched = 0;
    for path in files(gateway.root.path()).into_iter().filter(|path| !own(&path.to_string_lossy())) {
        let bytes = fs::read(&path).unwrap();
        searched += 1;
        for secret in &planted {
            assert!(!contains(&bytes, secret), "{} has {}…", path.display(), &secret[..12]);
        }
    }
    assert!(searched > 5 && fs::metadata(gateway.root.path().join("log")).unwrap().len() > 10_000, "the log talks");
    for secret in &planted {
        assert!(!contains(&gateway.heard, secret), "an answer has {}…", &secret[..12]);
    }
}

fn path_ends(path: &str, names: &[&str]) -> bool {
    names.iter().any(|name| path.ends_with(name))
}

fn contains(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}
