// SPDX-License-Identifier: Apache-2.0
//! Promises of the admin API, over real connections.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::config::place::Problem;
use crate::control::{Forge, Inputs, Places};
use crate::library::Facts;
use crate::library::store::digest_of;

/// Files of text in place of plugins, each is good: `name version`.
struct AnyForge;

impl Forge for AnyForge {
    type Component = ();
    type Snapshot = ();

    fn load(&self, bytes: &[u8]) -> Result<(Facts, Arc<()>), Refused> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (name, version) =
            text.split_once(' ').ok_or_else(|| Refused::new("not-a-component", "no blank", "put one"))?;
        let (name, version, kind, api) = (name.to_owned(), version.to_owned(), "auth".to_owned(), "0.1.0".to_owned());
        Ok((Facts { name, kind, version, api, digest: digest_of(bytes) }, Arc::new(())))
    }

    fn build(&self, _: Inputs<'_, (), ()>) -> Result<(), Vec<Problem>> {
        Ok(())
    }
}

struct Api {
    address: std::net::SocketAddr,
    admin: Arc<Admin>,
    token: String,
    state: tempfile::TempDir,
}

impl Api {
    async fn start(metrics_open: bool) -> Self {
        let state = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let places = Places { state: Some(state.path().to_owned()), ..Places::default() };
        let (control, _) = Control::start(AnyForge, &places, Arc::clone(&metrics)).unwrap();
        let (token, path) = Token::open(state.path()).unwrap();
        let draining = AtomicBool::new(false);
        let admin = Arc::new(Admin { control, metrics, token, metrics_open, component_bytes_max: 1000, draining });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::clone(&admin), 8));
        let token = std::fs::read_to_string(path).unwrap().trim().to_owned();
        Self { address, admin, token, state }
    }

    /// Status and body.
    async fn call(&self, head: &str, token: Option<&str>, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let length = body.len();
        let request = format!(
            "{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{authorization}content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    async fn json(&self, head: &str, body: &str) -> (u16, serde_json::Value) {
        let (status, body) = self.call(head, Some(&self.token), body).await;
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{head}: {error}: {body}")))
    }
}

fn is_kept(state: &Path, name: &str, content: &str) -> bool {
    state.join("plugins").join(name).join(format!("{}.wasm", digest_of(content.as_bytes()))).exists()
}

/// Methods that the document has for a path.
fn documented(path: &str) -> Vec<String> {
    let document: serde_json::Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
    document["paths"][path].as_object().unwrap().keys().map(|method| method.to_uppercase()).collect()
}

fn example(path: &str) -> String {
    path.replace("{name}", "x").replace("{number}", "1")
}

#[tokio::test]
async fn every_call_but_the_health_checks_needs_the_token() {
    for metrics_open in [false, true] {
        let api = Api::start(metrics_open).await;
        for Row(path, _, access) in rows() {
            let open = access == Access::Open || (access == Access::Metrics && metrics_open);
            for method in documented(path) {
                let head = format!("{method} {}", example(path));
                let wrong = "0".repeat(64);
                for token in [None, Some(""), Some("x"), Some(&*wrong), Some(&api.token[..63])] {
                    let (status, body) = api.call(&head, token, "").await;
                    assert_eq!(status == 401, !open, "{head} {token:?}: {status} {body}");
                    assert!(open || body.contains(r#""code":"unauthorized""#), "{body}");
                }
                assert_ne!(api.call(&head, Some(&api.token), "").await.0, 401, "{head}");
            }
        }
    }
}

#[tokio::test]
async fn the_document_and_the_router_say_the_same() {
    let api = Api::start(false).await;
    let (status, document) = api.json("GET /v1/openapi.json", "").await;
    assert_eq!(status, 200);
    let mut served: Vec<&str> = rows().into_iter().map(|Row(path, ..)| path).collect();
    let mut paths: Vec<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    served.sort_unstable();
    paths.sort_unstable();
    assert_eq!(served, paths);
    for path in paths {
        for method in ["GET", "POST", "DELETE", "PUT", "PATCH"] {
            let (status, _) = api.call(&format!("{method} {}", example(path)), Some(&api.token), "").await;
            assert_eq!(status != 405, documented(path).contains(&method.to_owned()), "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn a_plugin_is_uploaded_listed_rolled_back_and_removed() {
    let api = Api::start(false).await;
    for version in ["gate 1", "gate 2"] {
        let (status, answer) = api.json("POST /v1/plugins", version).await;
        assert_eq!(
            (status, answer["result"].as_str(), answer["plugin"]["name"].as_str()),
            (200, Some("installed"), Some("gate"))
        );
        assert!(is_kept(api.state.path(), "gate", version));
    }
    let (_, listed) = api.json("GET /v1/plugins", "").await;
    let plugin = &listed["plugins"][0];
    assert_eq!((plugin["version"].as_str(), plugin["source"].as_str()), (Some("2"), Some("uploaded")));
    assert_eq!(plugin["previous"][0].as_str(), Some(&*digest_of(b"gate 1")));
    let (status, answer) = api.json("POST /v1/plugins/gate/rollback", "").await;
    assert_eq!((status, answer["plugin"]["version"].as_str()), (200, Some("1")));
    let body = format!("{{\"digest\": \"{}\"}}", digest_of(b"gate 2"));
    assert_eq!(api.json("POST /v1/plugins/gate/activate", &body).await.1["plugin"]["version"].as_str(), Some("2"));
    let (_, stored) = api.json("POST /v1/plugins?activate=false", "gate 3").await;
    assert_eq!(stored["result"].as_str(), Some("stored"));
    let (_, generations) = api.json("GET /v1/generations", "").await;
    assert_eq!(generations["generations"].as_array().unwrap().len(), 5);
    assert_eq!(api.json("POST /v1/generations/2/rollback", "").await.1["generation"].as_u64(), Some(6));
    assert_eq!(api.json("GET /v1/plugins", "").await.1["plugins"][0]["version"].as_str(), Some("1"));
    assert_eq!(api.json("DELETE /v1/plugins/gate", "").await.0, 200);
    assert_eq!(api.json("GET /v1/plugins", "").await.1["plugins"].as_array().unwrap().len(), 0);
    assert!(!is_kept(api.state.path(), "gate", "gate 1"));
}

#[tokio::test]
async fn what_is_wrong_is_answered_as_json_with_a_code_and_a_cure() {
    let api = Api::start(false).await;
    let large = "x".repeat(1001);
    for (head, body, status, code) in [
        ("POST /v1/plugins", "garbage", 422, "not-a-component"),
        ("POST /v1/plugins", large.as_str(), 413, "too-large"),
        ("POST /v1/plugins?force=1", "a 1", 400, "bad-request"),
        ("POST /v1/plugins/x/activate", "{}", 400, "bad-request"),
        ("POST /v1/plugins/x/activate", r#"{"digest":"1"}"#, 404, "no-such-version"),
        ("POST /v1/plugins/..%2f..%2fx/rollback", "", 404, "no-such-version"),
        ("POST /v1/plugins/%ff/rollback", "", 400, "bad-request"),
        ("DELETE /v1/plugins/x", "", 404, "no-such-plugin"),
        ("POST /v1/generations/77/rollback", "", 404, "no-such-generation"),
        ("POST /v1/generations/x/rollback", "", 400, "bad-request"),
        ("POST /v1/policies/validate", "[vendors.x]\nadapter = 7\n", 422, "bad-policy"),
        ("POST /v1/policies/validate", "[[", 422, "bad-policy"),
        ("GET /v2", "", 404, "no-such-path"),
        ("PUT /v1/plugins", "", 405, "bad-method"),
    ] {
        let (found, answer) = api.json(head, body).await;
        assert_eq!((found, answer["error"]["code"].as_str()), (status, Some(code)), "{head}: {answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{answer}");
    }
    let (_, answer) = api.json("POST /v1/policies/validate", "[vendors.x]\nadapter = 7\n").await;
    assert_eq!(answer["error"]["problems"][0]["place"].as_str(), Some("policy.toml:2:11"));
}

#[tokio::test]
async fn a_policy_is_validated_as_text_and_as_files_without_being_applied() {
    let api = Api::start(false).await;
    let (status, answer) = api.json("POST /v1/policies/validate", "[vendors.x]\nadapter = \"y\"\n").await;
    assert_eq!((status, answer["result"].as_str(), answer["generation"].as_u64()), (200, Some("valid"), Some(1)));
    let body = r#"{"files":{"a.toml":"[limits]\nattempts_max = 1\n","b.toml":"[limits]\nattempts_max = 2\n"}}"#;
    let head = "POST /v1/policies/validate HTTP/1.1\r\ncontent-type: application/json\r\nx-rest:";
    let (status, answer) = api.json(head, body).await;
    assert_eq!((status, answer["error"]["problems"][0]["place"].as_str()), (422, Some("b.toml:2:1")), "{answer}");
}

#[tokio::test]
async fn readiness_ends_with_the_drain_and_metrics_tell_of_changes() {
    let api = Api::start(false).await;
    assert_eq!(api.call("GET /healthz", None, "").await.0, 200);
    assert_eq!(api.call("GET /readyz", None, "").await.0, 200);
    assert_eq!(api.json("POST /v1/reload", "").await.0, 200);
    let (_, text) = api.call("GET /metrics", Some(&api.token), "").await;
    assert!(text.contains("penstock_changes_total{cause=\"reload\",result=\"installed\"} 1"), "{text}");
    assert!(text.contains("penstock_generation 2"), "{text}");
    api.admin.draining.store(true, Ordering::Relaxed);
    assert_eq!(api.call("GET /readyz", None, "").await.0, 503);
    assert_eq!(api.call("GET /healthz", None, "").await.0, 200);
}
