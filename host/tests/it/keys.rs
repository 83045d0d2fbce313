// SPDX-License-Identifier: Apache-2.0
//! Virtual keys and keys of vendors on the way of a request.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use penstock::directory::audit::Actor;
use penstock::directory::document::Kind;
use penstock::directory::settings::Role;
use penstock::directory::{Change, Directory};
use penstock::keys::Secret;
use penstock::state::Memory;
use serde_json::{Value, json};

use crate::support::fake::{self, Fake};
use crate::support::rig::{Rig, build, library};

const POLICY: &str = r#"
[plugins.callers]
plugin = "api-key"
[vendors.echo]
adapter = "echo"
models = ["echo", "other"]
[[routes]]
name = "ai"
path = "/v1"
auth = "callers"
"#;

async fn change(directory: &Directory, change: Change) -> Option<String> {
    let actor = Actor { name: "test".to_owned(), role: Role::Admin };
    let changed = directory.change(actor, change).await.unwrap();
    changed.minted.map(|secret| String::from_utf8(secret.expose().to_vec()).unwrap())
}

async fn make(directory: &Directory, kind: Kind, id: &str, settings: Value) -> String {
    let id = Some(id.to_owned());
    change(directory, Change::Create { kind, id, settings, secret: None }).await.unwrap_or_default()
}

async fn set(directory: &Directory, id: &str, patch: Value) {
    let Value::Object(patch) = patch else { panic!("an object") };
    let (kind, id) = (Kind::VirtualKey, id.to_owned());
    change(directory, Change::Patch { kind, id, patch, secret: None, expected: None }).await;
}

fn chat(key: &str, model: &str) -> Request<Bytes> {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let request = Request::post("/v1/chat/completions").header("authorization", format!("Bearer {key}"));
    request.body(body.into()).unwrap()
}

fn get(key: &str, path: &str) -> Request<Bytes> {
    Request::get(path).header("x-api-key", key).body(Bytes::new()).unwrap()
}

#[tokio::test]
async fn a_virtual_key_is_let_in_and_refused_the_moment_that_it_is_taken_back() {
    let rig = Rig::start(POLICY).await;
    let directory = &rig.gateway.directory;
    let key = make(directory, Kind::VirtualKey, "k", json!({"name": "ann"})).await;
    let status = async |key: &str| {
        let reply = rig.ask(chat(key, "echo")).await;
        (reply.status.as_u16(), reply.header("penstock-failure").to_owned(), reply.text())
    };
    assert_eq!(status(&key).await.0, 200);
    assert_eq!(status(&key[..20]).await.0, 401);
    for (patch, word) in
        [(json!({"enabled": false}), "disabled"), (json!({"enabled": true, "expires_unix_s": 9}), "expired")]
    {
        set(directory, "k", patch).await;
        let (status, code, text) = status(&key).await;
        assert_eq!((status, code.as_str()), (401, "unauthenticated"));
        assert!(text.contains(word) && !text.contains(&key), "{text}");
    }
    set(directory, "k", json!({"expires_unix_s": null})).await;
    let rotate =
        Change::Rotate { kind: Kind::VirtualKey, id: "k".to_owned(), secret: None, overlap_s: 60, expected: None };
    let second = change(directory, rotate).await.unwrap();
    assert_eq!((status(&key).await.0, status(&second).await.0), (200, 200), "both are good for a while");
    change(directory, Change::Delete { kind: Kind::VirtualKey, id: "k".to_owned(), expected: None }).await;
    assert_eq!((status(&key).await.0, status(&second).await.0), (401, 401));
}

#[tokio::test]
async fn a_key_may_use_what_its_lists_and_those_of_its_team_have() {
    let rig = Rig::start(POLICY).await;
    let directory = &rig.gateway.directory;
    make(directory, Kind::Team, "red", json!({"operations": ["chat", "embeddings"]})).await;
    let key = make(directory, Kind::VirtualKey, "k", json!({"name": "ann", "team": "red", "models": ["ech*"]})).await;
    assert_eq!(rig.ask(chat(&key, "echo")).await.status.as_u16(), 200);
    for model in ["other", "echo/other", "none"] {
        let reply = rig.ask(chat(&key, model)).await;
        let is_named_so = model.starts_with("ech");
        if is_named_so {
            assert_ne!(reply.header("penstock-failure"), "forbidden", "the list is by the names that callers use");
            continue;
        }
        assert_eq!((reply.status.as_u16(), reply.header("penstock-failure")), (403, "forbidden"), "{model}");
        assert!(reply.text().contains("may not use the model"), "{}", reply.text());
    }
    let listed = rig.ask(get(&key, "/v1/models")).await.json();
    let names: Vec<_> = listed["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["echo"], "only what the key may use is listed");
    assert_eq!(rig.ask(get(&key, "/v1/models/other")).await.status.as_u16(), 404);
    set(directory, "k", json!({"operations": ["embeddings"]})).await;
    let reply = rig.ask(chat(&key, "echo")).await;
    assert_eq!((reply.status.as_u16(), reply.header("penstock-failure")), (403, "forbidden"));
    assert!(reply.text().contains("may not ask for chat"), "{}", reply.text());
}

#[tokio::test]
async fn a_key_is_told_what_it_may_do_and_what_it_has_used() {
    let rig = Rig::start(POLICY).await;
    let directory = &rig.gateway.directory;
    make(directory, Kind::Limit, "plan", json!({"counted": "requests", "limit": 60, "burst": 10, "default": true}))
        .await;
    make(directory, Kind::Budget, "purse", json!({"usd": 2.5, "window_s": 86400})).await;
    let settings =
        json!({"name": "ann", "subject": "ann", "budgets": ["purse"], "models": ["echo"], "metadata": {"a": "b"}});
    let key = make(directory, Kind::VirtualKey, "k", settings).await;
    assert_eq!(rig.ask(get("nobody", "/v1/me")).await.status.as_u16(), 401);
    rig.ask(chat(&key, "echo")).await;
    let reply = rig.ask(get(&key, "/v1/me")).await;
    let me = reply.json();
    assert_eq!((reply.status.as_u16(), &me["subject"], &me["key"]["id"]), (200, &json!("ann"), &json!("k")));
    assert_eq!((&me["key"]["limits"][0]["id"], &me["key"]["limits"][0]["burst"]), (&json!("plan"), &json!(10)));
    assert_eq!((&me["key"]["budgets"][0]["usd"], &me["key"]["metadata"]["a"]), (&json!(2.5), &json!("b")));
    assert_eq!(me["key"]["used_today"]["requests"], 1);
    assert!(!reply.text().contains(&key));
    let rows = directory.used(0, 1 << 40).await.unwrap();
    assert!(rows.iter().any(|row| row.key == "k" && row.vendor == "echo" && row.input_tokens > 0), "{rows:?}");
}

#[tokio::test]
async fn health_checks_are_answered_where_no_route_serves_them() {
    let rig = Rig::start(POLICY).await;
    for (path, status) in [("/healthz", 200), ("/health", 200), ("/readyz", 200), ("/metrics", 401), ("/other", 404)] {
        assert_eq!(rig.ask(get("", path)).await.status.as_u16(), status, "{path}");
    }
    let rig = Rig::start(&format!("{POLICY}\n[[routes]]\nname = \"all\"\npath = \"/\"\nauth = \"callers\"\n")).await;
    assert_eq!(rig.ask(get("", "/healthz")).await.status.as_u16(), 401, "a route that claims the path comes first");
}

const LIMITED: &str = r#"
[plugins.callers]
plugin = "api-key"
[plugins.bucket]
plugin = "token-bucket"
[plugins.budget]
plugin = "budget"
[plugins.at-once]
plugin = "concurrency"
[vendors.echo]
adapter = "echo"
models = ["echo"]
[prices."echo/echo"]
request = 1.0
[[routes]]
name = "ai"
path = "/v1"
auth = "callers"
limits = ["bucket", "budget", "at-once"]
"#;

#[tokio::test]
async fn limits_and_budgets_of_a_key_hold_for_it_alone_and_those_of_a_team_for_all_of_its_keys() {
    let rig = Rig::start(LIMITED).await;
    let directory = &rig.gateway.directory;
    make(directory, Kind::Limit, "plan", json!({"counted": "requests", "limit": 2, "window_s": 3600, "default": true}))
        .await;
    make(directory, Kind::Limit, "wide", json!({"counted": "requests", "limit": 100, "algorithm": "fixed-window"}))
        .await;
    make(directory, Kind::Budget, "purse", json!({"usd": 3.5})).await;
    make(directory, Kind::Team, "red", json!({"budgets": ["purse"]})).await;
    let ask = async |key: &str| {
        let reply = rig.ask(chat(key, "echo")).await;
        (reply.status.as_u16(), reply.text())
    };
    let (one, other) = (
        make(directory, Kind::VirtualKey, "one", json!({"name": "one"})).await,
        make(directory, Kind::VirtualKey, "other", json!({"name": "other"})).await,
    );
    for key in [&one, &other] {
        assert_eq!((ask(key).await.0, ask(key).await.0), (200, 200));
        assert_eq!(ask(key).await.0, 429, "the default plan");
    }
    let red = json!({"name": "red", "team": "red", "limits": ["wide"]});
    let (first, second) = (
        make(directory, Kind::VirtualKey, "first", red.clone()).await,
        make(directory, Kind::VirtualKey, "second", red).await,
    );
    for key in [&first, &second, &first] {
        let (status, text) = ask(key).await;
        assert_eq!(status, 200, "{text}");
    }
    let me = rig.ask(get(&second, "/v1/me")).await.json();
    let left = me["left"].as_array().unwrap();
    let of = |counted: &str| left.iter().find(|left| left["counted"] == counted).unwrap_or_else(|| panic!("{me:#}"));
    assert_eq!((&of("usd")["left"], &of("usd")["of"]), (&json!(0.5), &json!(3.5)), "three dollars are spent");
    assert_eq!(of("requests")["left"], 99, "its own, not that of the other key");
    ask(&second).await;
    let (status, text) = ask(&second).await;
    assert!(status == 429 && text.contains("budget"), "{status} {text}");
}

const POOLED: &str = r#"
[vendors.acme]
adapter = "openai-compatible"
base_url = "URL"
key = "env:PENSTOCK_TEST_NO_SUCH_KEY"
optional = true
models = ["m"]
[[routes]]
name = "ai"
path = "/v1"
"#;

#[tokio::test]
async fn a_vendor_comes_alive_by_a_key_and_the_next_key_is_tried_when_one_is_refused() {
    let answer = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}"#;
    let vendor = Fake::start(move |asked| match asked.header("authorization") {
        Some("Bearer sk-good") => fake::json("200 OK", answer),
        Some("Bearer sk-poor") => fake::json("402 Payment Required", r#"{"error":{"message":"no money"}}"#),
        _ => fake::json("401 Unauthorized", r#"{"error":{"message":"bad key"}}"#),
    })
    .await;
    let rig = Rig::start(&POOLED.replace("URL", &vendor.url())).await;
    let ask = async || rig.ask(chat("", "m")).await;
    assert_eq!(ask().await.status.as_u16(), 404, "the vendor has no key");
    let directory = &rig.gateway.directory;
    for (id, key, tier) in
        [("one", "sk-bad", "primary"), ("two", "sk-poor", "secondary"), ("three", "sk-good", "backup")]
    {
        let settings = json!({"vendor": "acme", "key_name": id, "tier": tier});
        let secret = Some(Secret::new(key.as_bytes().to_vec()));
        change(directory, Change::Create { kind: Kind::VendorKey, id: Some(id.to_owned()), settings, secret }).await;
    }
    let (state, metrics) = (Arc::new(Memory::new(100)), &rig.gateway.metrics);
    let before = rig.gateway.snapshot.load_full();
    let policy = POOLED.replace("URL", &vendor.url());
    let next = build(&policy, library(), &state, directory, metrics, Some(&before)).unwrap();
    rig.gateway.snapshot.store(next.into());
    let reply = ask().await;
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    let keys = |from: usize| {
        let asked = vendor.asked();
        asked[from..].iter().map(|asked| asked.header("authorization").unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(0), ["Bearer sk-bad", "Bearer sk-poor", "Bearer sk-good"], "all within one request");
    assert_eq!(ask().await.status.as_u16(), 200);
    assert_eq!(keys(3), ["Bearer sk-good"], "what was refused is left alone for a while");
}
