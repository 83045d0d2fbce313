// SPDX-License-Identifier: Apache-2.0
//! Filters, auth and limits on the way of a request, and what callers read when they are refused.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use serde_json::json;
use tokio::sync::Notify;

use crate::support::caller::{self, get};
use crate::support::fake::{self, Do, Fake};
use crate::support::rig::Rig;

const CHAIN: &str = r#"
[plugins.web]
plugin = "cors"
config = { origins = ["https://app.example"] }
[plugins.callers]
plugin = "api-key"
config = { keys = [{ subject = "alice", sha256 = "72ee9d4355ccb9d3a4c9dbf37382e38e75c1b1a225b5bd1f729ee91bbda30c20" }] }
[plugins.fair]
plugin = "token-bucket"
config.rules = [{ per = ["subject"], requests_per_minute = 2 }]
[vendors.echo]
adapter = "echo"
models = ["echo"]
[[routes]]
name = "ai"
path = "/v1"
filters = ["web"]
auth = "callers"
limits = ["fair"]
"#;

fn chat(key: &str) -> Request<Bytes> {
    let body = json!({"model": "echo", "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let request = Request::post("/v1/chat/completions").header("origin", "https://app.example");
    request.header("authorization", format!("Bearer {key}")).body(body.into()).unwrap()
}

#[tokio::test]
async fn a_call_passes_the_whole_chain_until_its_limit() {
    let rig = Rig::start(CHAIN).await;
    for _ in 0..2 {
        let reply = rig.ask(chat("alice-key")).await;
        assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
        assert_eq!(reply.header("access-control-allow-origin"), "https://app.example");
    }
    let reply = rig.ask(chat("alice-key")).await;
    assert_eq!((reply.status.as_u16(), reply.header("penstock-failure")), (429, "limited"), "{}", reply.text());
    assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(reply.header("access-control-allow-origin"), "https://app.example", "errors are for the browser, too");
}

#[tokio::test]
async fn a_wrong_key_is_refused_in_the_callers_dialect_and_before_the_body_is_read() {
    let rig = Rig::start(CHAIN).await;
    let reply = rig.ask(chat("other-key")).await;
    assert_eq!((reply.status.as_u16(), reply.header("penstock-failure")), (401, "unauthenticated"));
    assert!(reply.json()["error"]["message"].is_string(), "{}", reply.text());
    assert!(!reply.text().contains("other-key"));
    let request = Request::post("/v1/messages").header("x-api-key", "nobody").body("not json".into()).unwrap();
    let reply = rig.ask(request).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["type"]), (401, &json!("error")));
}

#[tokio::test]
async fn a_preflight_is_answered_without_a_key() {
    let rig = Rig::start(CHAIN).await;
    let request = Request::options("/v1/chat/completions").header("origin", "https://app.example");
    let request = request.header("access-control-request-method", "POST").body(Bytes::new()).unwrap();
    let reply = rig.ask(request).await;
    assert_eq!((reply.status.as_u16(), reply.header("access-control-allow-origin")), (204, "https://app.example"));
}

#[tokio::test]
async fn requests_that_make_no_sense_get_an_answer_that_does() {
    let rig = Rig::start("[vendors.echo]\nadapter = \"echo\"\n[[routes]]\nname = \"ai\"\npath = \"/v1\"\n").await;
    let post = |path: &str, body: &str| Request::post(path).body(Bytes::from(body.to_owned())).unwrap();
    let cases = [
        (get("/nowhere"), 404, "no-route"),
        (get("/v10/models"), 404, "no-route"),
        (get("/v1/chat/completions"), 404, "unknown-operation"),
        (post("/v1/chat/completions", "{"), 400, "bad-body"),
        (post("/v1/chat/completions", "[]"), 400, "bad-body"),
        (post("/v1/chat/completions", "{\"messages\":[]}"), 400, "bad-body"),
        (post("/v1/chat/completions", "{\"model\":\"a\",\"model\":\"b\"}"), 400, "bad-body"),
        (post("/v1/chat/completions", "{\"model\":\"no/such\",\"messages\":[]}"), 404, "unknown-model"),
        (post("/v1/chat/completions", "{\"model\":\"echo/e\",\"messages\":7}"), 400, "bad-body"),
        (post("/v1//chat/completions", "{}"), 400, "bad-head"),
    ];
    for (request, status, code) in cases {
        let what = format!("{} {:?}", request.uri(), request.body());
        let reply = rig.ask(request).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("penstock-failure")),
            (status, code),
            "{what}: {}",
            reply.text()
        );
        assert!(reply.json()["error"]["message"].as_str().unwrap().len() > 10, "{what}");
    }
}

#[tokio::test]
async fn the_key_of_a_vendor_reaches_the_vendor_and_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "vendor-secret-4711\n").unwrap();
    let fake = Fake::start(|_| fake::json("401 Unauthorized", r#"{"error":{"message":"Incorrect API key"}}"#)).await;
    let policy = format!(
        "[vendors.v]\nadapter = \"openai-compatible\"\nbase_url = \"{}\"\nkey = \"file:{}\"\nmodels = [\"m\"]\n\
         [[routes]]\nname = \"ai\"\npath = \"/\"\n",
        fake.url(),
        key.display()
    );
    let rig = Rig::start(&policy).await;
    let body = json!({"model": "m", "messages": []}).to_string();
    let request = Request::post("/chat/completions").header("authorization", "Bearer caller-secret-0815");
    let request = request.header("cookie", "a=b").body(body.into()).unwrap();
    let reply = rig.ask(request).await;
    let asked = fake.last();
    assert_eq!(asked.header("authorization"), Some("Bearer vendor-secret-4711"));
    assert_eq!(asked.header("cookie"), None, "what the adapter does not name stays here");
    assert!(!format!("{asked:?}").contains("caller-secret"), "the caller's credential is not the vendor's business");
    assert!(!format!("{reply:?}").contains("vendor-secret"));
    assert!(!rig.gateway.metrics.exposition().unwrap().contains("secret-"));
}

#[tokio::test]
async fn more_requests_than_there_may_be_are_refused_before_anything_is_read_and_those_that_ask_how_it_is_are_not() {
    let (asked, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let script = [vec![Do::Tell(Arc::clone(&asked)), Do::Await(Arc::clone(&answer))], fake::json("200 OK", "{}")];
    let fake = Fake::start(move |_| script.concat()).await;
    let rig = Rig::start(&format!(
        "[limits]\nrequests_max = 1\n[services.slow]\nendpoints = [\"{}\"]\n[vendors.echo]\nadapter = \"echo\"\nmodels = \
         [\"echo\"]\n[[routes]]\nname = \"slow\"\npath = \"/slow\"\nservice = \"slow\"\n[[routes]]\nname = \"ai\"\npath = \"/v1\"\n",
        fake.url()
    ))
    .await;
    let address = rig.address;
    let held = tokio::spawn(async move { caller::ask(address, get("/slow/a")).await });
    asked.notified().await;
    for (path, kind) in
        [("/v1/chat/completions", "/error/message"), ("/v1/messages", "/error/type"), ("/slow/b", "/error/code")]
    {
        let reply = rig.ask(Request::post(path).body("not json".into()).unwrap()).await;
        assert_eq!((reply.status.as_u16(), reply.header("penstock-failure")), (503, "overloaded"), "{path}");
        assert!((1..=2).contains(&reply.header("retry-after").parse::<u64>().unwrap()), "{:?}", reply.headers);
        assert!(reply.json().pointer(kind).is_some_and(serde_json::Value::is_string), "{path}: {}", reply.text());
    }
    assert_eq!(rig.ask(get("/healthz")).await.status, 200);
    assert_eq!(fake.asked().len(), 1);
    answer.notify_one();
    assert_eq!(held.await.unwrap().status, 200);
    let reply = rig
        .post("/v1/chat/completions", &json!({"model": "echo", "messages": [{"role": "user", "content": "hi"}]}))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}
