// SPDX-License-Identifier: Apache-2.0
//! Promises of the admin API, over real connections.

use std::path::Path;

use std::sync::atomic::Ordering;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::config::place::Problem;
use crate::control::{Forge, Inputs, Places};
use crate::directory::settings::Role;
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
        Ok((Facts { name, kind, version, api, digest: digest_of(bytes), seal: None }, Arc::new(())))
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
        let directory = Directory::open(state.path(), None).unwrap();
        let token = std::fs::read_to_string(state.path().join("admin-token")).unwrap().trim().to_owned();
        let admin = Arc::new(Admin {
            control,
            snapshot: Arc::new(ArcSwap::from_pointee(nothing(&directory, &metrics))),
            jobs: Jobs::open(None, Arc::clone(&metrics)).unwrap(),
            directory,
            metrics,
            probes: Arc::new(Probes { metrics_open, ..Probes::default() }),
            component_bytes_max: 1000,
            beats: Arc::default(),
            cluster: None,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::clone(&admin), 8));
        Self { address, admin, token, state }
    }

    /// A token of another role.
    async fn token(&self, role: &str) -> String {
        let body = json!({ "name": role, "role": role }).to_string();
        self.json("POST /api/v1/admin-tokens", &body).await.1["token"].as_str().unwrap().to_owned()
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

/// A snapshot of an empty policy.
fn nothing(directory: &Directory, metrics: &Metrics) -> Snapshot {
    let build = crate::snapshot::Build {
        config: &crate::config::Config::default(),
        sources: &crate::config::place::Sources::default(),
        library: &crate::library::Library::default(),
        state: &Arc::new(crate::state::Memory::new(10)),
        directory,
        metrics: metrics.registry(),
        previous: None,
        generation: 1,
    };
    Snapshot::build(&build).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// Methods that the document has for a path.
fn documented(path: &str) -> Vec<String> {
    openapi::document()["paths"][path].as_object().unwrap().keys().map(|method| method.to_uppercase()).collect()
}

fn example(path: &str) -> String {
    ["{name}", "{id}", "{feature}"]
        .iter()
        .fold(path.to_owned(), |path, part| path.replace(part, "x"))
        .replace("{number}", "1")
}

#[tokio::test]
async fn every_call_needs_a_token_of_its_role_but_the_health_checks() {
    for metrics_open in [false, true] {
        let api = Api::start(metrics_open).await;
        let (viewer, operator) = (api.token("viewer").await, api.token("operator").await);
        for Row { path, access, doc, .. } in rows() {
            let head = format!("{} {}", doc.method.to_uppercase(), example(path));
            let open = access == Access::Open && (!doc.looks || metrics_open);
            let wrong = "0".repeat(64);
            for token in [None, Some(""), Some("x"), Some(&*wrong), Some(&api.token[..63])] {
                let (status, body) = api.call(&head, token, "").await;
                assert_eq!(status == 401, !open, "{head} {token:?}: {status} {body}");
                assert!(open || body.contains(r#""code":"unauthorized""#), "{body}");
            }
            if path.ends_with("/events") {
                continue; // it goes on for a while
            }
            for (token, role) in [(&viewer, Role::Viewer), (&operator, Role::Operator), (&api.token, Role::Admin)] {
                let allowed = match access {
                    Access::Open => true,
                    Access::Role(needed) => role >= needed,
                };
                let status = api.call(&head, Some(token), "").await.0;
                assert_eq!((status == 403, status == 401), (!allowed, false), "{head} as {}: {status}", role.name());
            }
        }
    }
}

#[tokio::test]
async fn the_document_and_the_router_say_the_same_and_every_reference_leads_somewhere() {
    let api = Api::start(false).await;
    let (status, document) = api.json("GET /api/v1/openapi.json", "").await;
    assert_eq!(status, 200);
    for path in document["paths"].as_object().unwrap().keys() {
        for method in ["GET", "POST", "DELETE", "PUT", "PATCH"] {
            let (status, _) = api.call(&format!("{method} {}", example(path)), Some(&api.token), "").await;
            assert_eq!(status != 405, documented(path).contains(&method.to_owned()), "{method} {path}: {status}");
        }
    }
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    let mut ids: Vec<_> = rows().iter().map(|row| row.doc.id).collect();
    ids.sort_unstable();
    let before = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), before, "each call has an id of its own");
}

#[tokio::test]
async fn what_was_below_v1_is_still_there() {
    let api = Api::start(false).await;
    for path in ["/v1/plugins", "/v1/generations", "/v1/openapi.json"] {
        let (old, new) = (api.json(&format!("GET {path}"), "").await, api.json(&format!("GET /api{path}"), "").await);
        assert_eq!(old, new, "{path}");
    }
}

#[tokio::test]
async fn a_virtual_key_is_made_changed_rotated_and_deleted_with_a_line_of_the_audit_log_for_each() {
    let api = Api::start(false).await;
    assert_eq!(api.json("POST /api/v1/teams", r#"{"id":"red"}"#).await.0, 201);
    let (status, key) =
        api.json("POST /api/v1/virtual-keys", r#"{"name":"ann","team":"red","models":["big-*"]}"#).await;
    assert_eq!(status, 201, "{key}");
    let (id, secret) = (key["id"].as_str().unwrap(), key["key"].as_str().unwrap());
    let one = format!("/api/v1/virtual-keys/{id}");
    let (_, read) = api.json(&format!("GET {one}"), "").await;
    assert_eq!((read["name"].as_str(), read.get("key")), (Some("ann"), None), "the secret is shown once");
    let version = read["version"].as_u64().unwrap();
    let patch = |version: u64| format!("PATCH {one} HTTP/1.1\r\nif-match: \"{version}\"\r\nx-rest:");
    assert_eq!(api.json(&patch(version + 9), r#"{"enabled":false}"#).await.0, 412);
    let (status, changed) = api.json(&patch(version), r#"{"enabled":false,"team":null}"#).await;
    assert_eq!((status, &changed["enabled"], &changed["team"]), (200, &json!(false), &json!(null)));
    assert_eq!(api.json(&patch(version), r#"{"enabled":true}"#).await.0, 412, "somebody was faster");
    let (_, rotated) = api.json(&format!("POST {one}/rotate"), r#"{"overlap_s":60}"#).await;
    assert_ne!(rotated["key"].as_str().unwrap(), secret);
    assert_eq!(rotated["secrets"].as_array().unwrap().len(), 2);
    assert_eq!(api.json(&format!("DELETE {one}"), "").await, (200, json!({ "deleted": id })));
    assert_eq!(api.json(&format!("GET {one}"), "").await.0, 404);
    let (_, audit) = api.json(&format!("GET /api/v1/audit?id={id}"), "").await;
    let lines = audit["items"].as_array().unwrap();
    let actions: Vec<_> = lines.iter().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["delete", "rotate", "update", "create"]);
    assert_eq!((&lines[2]["before"]["enabled"], &lines[2]["after"]["enabled"]), (&json!(true), &json!(false)));
    assert_eq!(lines[0]["actor"], "admin-token");
    for secret in [secret, rotated["key"].as_str().unwrap()] {
        assert!(!audit.to_string().contains(secret));
    }
}

#[tokio::test]
async fn lists_come_in_pages() {
    let api = Api::start(false).await;
    for id in ["c", "a", "b"] {
        api.json("POST /api/v1/budgets", &format!(r#"{{"id":"{id}","usd":1}}"#)).await;
    }
    let (_, first) = api.json("GET /api/v1/budgets?limit=2", "").await;
    let ids = |page: &serde_json::Value| {
        page["items"].as_array().unwrap().iter().map(|item| item["id"].to_string()).collect::<String>()
    };
    assert_eq!((ids(&first), &first["next"]), (r#""a""b""#.to_owned(), &json!("b")));
    let (_, second) = api.json("GET /api/v1/budgets?limit=2&after=b", "").await;
    assert_eq!((ids(&second), &second["next"]), (r#""c""#.to_owned(), &json!(null)));
}

#[tokio::test]
async fn a_service_is_healthy_as_long_as_it_is_heard_of() {
    let api = Api::start(false).await;
    let body = r#"{"id":"s1","name":"search","url":"http://127.0.0.1:7000","ttl_s":60}"#;
    assert_eq!(api.json("POST /api/v1/services", body).await.0, 201);
    assert_eq!(api.json("POST /api/v1/services", body).await.0, 200, "it registers again");
    assert_eq!(api.json("GET /api/v1/services/s1/health", "").await.1["healthy"], true);
    let late = body.replace("s1", "s2").replace("60", "1");
    api.json("POST /api/v1/services", &late).await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(api.json("GET /api/v1/services/s2/health", "").await.1["healthy"], false);
    let (_, healthy) = api.json("GET /api/v1/services?healthy=true", "").await;
    assert_eq!(healthy["items"].as_array().unwrap().len(), 1);
    assert_eq!(api.json("POST /api/v1/services/s2/heartbeat", "").await.1["healthy"], true);
    assert_eq!(api.json("DELETE /api/v1/services/s2", "").await.0, 200);
    assert_eq!(api.json("POST /api/v1/services/s2/heartbeat", "").await.0, 404);
}

#[tokio::test]
async fn the_feed_tells_of_changes() {
    let api = Api::start(false).await;
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    let head = format!(
        "GET /api/v1/events HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\nauthorization: Bearer {}\r\n\r\n",
        api.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    api.json("POST /api/v1/teams", r#"{"id":"blue"}"#).await;
    let mut text = String::new();
    while !text.contains("event: change") || !text.contains(r#""id":"blue""#) {
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).await.unwrap();
        assert!(read > 0, "the feed has ended: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
}

#[tokio::test]
async fn a_plugin_is_uploaded_listed_rolled_back_and_removed() {
    let api = Api::start(false).await;
    for version in ["gate 1", "gate 2"] {
        let (status, answer) = api.json("POST /api/v1/plugins", version).await;
        assert_eq!(
            (status, answer["result"].as_str(), answer["plugin"]["name"].as_str()),
            (200, Some("installed"), Some("gate"))
        );
        assert!(is_kept(api.state.path(), "gate", version));
    }
    let (_, listed) = api.json("GET /api/v1/plugins", "").await;
    let plugin = &listed["plugins"][0];
    assert_eq!((plugin["version"].as_str(), plugin["source"].as_str()), (Some("2"), Some("uploaded")));
    assert_eq!(plugin["previous"][0].as_str(), Some(&*digest_of(b"gate 1")));
    let (status, answer) = api.json("POST /api/v1/plugins/gate/rollback", "").await;
    assert_eq!((status, answer["plugin"]["version"].as_str()), (200, Some("1")));
    let body = format!("{{\"digest\": \"{}\"}}", digest_of(b"gate 2"));
    assert_eq!(api.json("POST /api/v1/plugins/gate/activate", &body).await.1["plugin"]["version"].as_str(), Some("2"));
    let (_, stored) = api.json("POST /api/v1/plugins?activate=false", "gate 3").await;
    assert_eq!(stored["result"].as_str(), Some("stored"));
    let (_, generations) = api.json("GET /api/v1/generations", "").await;
    assert_eq!(generations["generations"].as_array().unwrap().len(), 5);
    assert_eq!(api.json("POST /api/v1/generations/2/rollback", "").await.1["generation"].as_u64(), Some(6));
    assert_eq!(api.json("GET /api/v1/plugins", "").await.1["plugins"][0]["version"].as_str(), Some("1"));
    assert_eq!(api.json("DELETE /api/v1/plugins/gate", "").await.0, 200);
    assert_eq!(api.json("GET /api/v1/plugins", "").await.1["plugins"].as_array().unwrap().len(), 0);
    assert!(!is_kept(api.state.path(), "gate", "gate 1"));
}

#[tokio::test]
async fn what_is_wrong_is_answered_as_json_with_a_code_and_a_cure() {
    let api = Api::start(false).await;
    let large = "x".repeat(1001);
    for (head, body, status, code) in [
        ("POST /api/v1/plugins", "garbage", 422, "not-a-component"),
        ("POST /api/v1/plugins", large.as_str(), 413, "too-large"),
        ("POST /api/v1/plugins?force=1", "a 1", 400, "bad-request"),
        ("POST /api/v1/plugins/x/activate", "{}", 400, "bad-request"),
        ("POST /api/v1/plugins/x/activate", r#"{"digest":"1"}"#, 404, "no-such-version"),
        ("POST /api/v1/plugins/..%2f..%2fx/rollback", "", 404, "no-such-version"),
        ("POST /api/v1/plugins/%ff/rollback", "", 400, "bad-request"),
        ("DELETE /api/v1/plugins/x", "", 404, "no-such-plugin"),
        ("POST /api/v1/generations/77/rollback", "", 404, "no-such-generation"),
        ("POST /api/v1/generations/x/rollback", "", 400, "bad-request"),
        ("POST /api/v1/policies/validate", "[vendors.x]\nadapter = 7\n", 422, "bad-policy"),
        ("POST /api/v1/policies/validate", "[[", 422, "bad-policy"),
        ("POST /api/v1/teams", "[]", 400, "bad-request"),
        ("POST /api/v1/teams", r#"{"id":"a/b"}"#, 400, "bad-request"),
        ("POST /api/v1/teams", r#"{"colour":"red"}"#, 400, "bad-request"),
        ("POST /api/v1/virtual-keys", r#"{"name":"a","team":"none"}"#, 409, "dangling"),
        ("POST /api/v1/keys", r#"{"vendor":"v","key_name":"k"}"#, 400, "bad-request"),
        ("GET /api/v1/teams?limit=0", "", 400, "bad-request"),
        ("GET /api/v1/teams?page=2", "", 400, "bad-request"),
        ("GET /api/v1/teams/none", "", 404, "not-found"),
        ("PATCH /api/v1/teams/none", "{}", 404, "not-found"),
        ("POST /api/v1/route/none", "{}", 404, "not-found"),
        ("POST /api/v1/route/chat", r#"{"width":0}"#, 400, "bad-request"),
        ("GET /v2", "", 404, "no-such-path"),
        ("PUT /api/v1/plugins", "", 405, "bad-method"),
    ] {
        let (found, answer) = api.json(head, body).await;
        assert_eq!((found, answer["error"]["code"].as_str()), (status, Some(code)), "{head}: {answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{answer}");
    }
    let (_, answer) = api.json("POST /api/v1/policies/validate", "[vendors.x]\nadapter = 7\n").await;
    assert_eq!(answer["error"]["problems"][0]["place"].as_str(), Some("policy.toml:2:11"));
}

#[tokio::test]
async fn a_policy_is_validated_as_text_and_as_files_without_being_applied() {
    let api = Api::start(false).await;
    let (status, answer) = api.json("POST /api/v1/policies/validate", "[vendors.x]\nadapter = \"y\"\n").await;
    assert_eq!((status, answer["result"].as_str(), answer["generation"].as_u64()), (200, Some("valid"), Some(1)));
    let body = r#"{"files":{"a.toml":"[limits]\nattempts_max = 1\n","b.toml":"[limits]\nattempts_max = 2\n"}}"#;
    let head = "POST /api/v1/policies/validate HTTP/1.1\r\ncontent-type: application/json\r\nx-rest:";
    let (status, answer) = api.json(head, body).await;
    assert_eq!((status, answer["error"]["problems"][0]["place"].as_str()), (422, Some("b.toml:2:1")), "{answer}");
}

#[tokio::test]
async fn readiness_ends_with_the_drain_and_metrics_tell_of_changes() {
    let api = Api::start(false).await;
    assert_eq!(api.call("GET /healthz", None, "").await.0, 200);
    assert_eq!(api.call("GET /readyz", None, "").await.0, 200);
    assert_eq!(api.json("POST /api/v1/reload", "").await.0, 200);
    let (_, text) = api.call("GET /metrics", Some(&api.token), "").await;
    assert!(text.contains("penstock_changes_total{cause=\"reload\",result=\"installed\"} 1"), "{text}");
    assert!(text.contains("penstock_generation 2"), "{text}");
    api.admin.probes.draining.store(true, Ordering::Relaxed);
    assert_eq!(api.call("GET /readyz", None, "").await.0, 503);
    assert_eq!(api.call("GET /healthz", None, "").await.0, 200);
}
