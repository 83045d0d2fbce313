// SPDX-License-Identifier: Apache-2.0
//! Jobs: accepted, worked on, looked at, called off, forgotten; and the vendor that the tests of jobs have.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::caller::{Reply, get};
use crate::support::fake::{self, Asked, Do, Fake};
use crate::support::rig::{Rig, painter_library};

/// Far more than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// What the vendor's key is.
pub const VENDOR_KEY: &str = "vendor-secret-4711";

/// What a vendor says of its work, one word after another; the last one for ever.
pub fn studio(words: &'static [&'static str]) -> impl Fn(&Asked) -> Vec<Do> + Send + Sync + 'static {
    let said = Mutex::new(0);
    move |asked| {
        if asked.line == "POST /tasks" {
            return fake::json("200 OK", r#"{"id":"t1","status":"PENDING"}"#);
        }
        if asked.line.ends_with("/cancel") {
            return fake::json("200 OK", "{}");
        }
        let mut said = said.lock().unwrap();
        let word = words[(*said).min(words.len() - 1)];
        *said += 1;
        if word.starts_with('{') {
            fake::json("200 OK", word)
        } else if let Some((status, body)) = word.split_once('|') {
            fake::json(status, body)
        } else {
            fake::json("200 OK", &format!(r#"{{"status":"{word}"}}"#))
        }
    }
}

/// How often a vendor was asked so.
pub fn count(fake: &Fake, line: &str) -> usize {
    fake.asked().iter().filter(|asked| asked.line == line).count()
}

/// Waits until something is so.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A policy with a vendor that works for long, and two callers. `more` stands at its begin.
pub fn policy(url: &str, more: &str) -> String {
    static KEY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("key"), VENDOR_KEY).unwrap();
        directory
    });
    let key = key.path().join("key");
    format!(
        r#"{more}
[plugins.callers]
plugin = "api-key"
[plugins.callers.config]
keys = [
    {{ subject = "alice", sha256 = "72ee9d4355ccb9d3a4c9dbf37382e38e75c1b1a225b5bd1f729ee91bbda30c20" }},
    {{ subject = "bob", sha256 = "9b94dc1a51a38769f135edf04033ad7f2f487b6c25929be7a861cfc1ab10cf98" }},
]
[vendors.echo]
adapter = "echo"
models = ["echo"]
[vendors.studio]
adapter = "painter"
base_url = "{url}"
key = "file:{}"
models = ["p"]
[vendors.plain]
adapter = "openai-compatible"
base_url = "{url}"
models = ["m"]
[[routes]]
name = "ai"
path = "/v1"
auth = "callers"
"#,
        key.display()
    )
}

/// A gateway before this vendor.
pub async fn rig(fake: &Fake, more: &str) -> Rig {
    Rig::with(&policy(&fake.url(), more), painter_library()).await
}

/// A request of alice.
pub fn alice(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Bytes> {
    of("alice", method, path, headers, body)
}

/// A request of someone.
pub fn of(who: &str, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Bytes> {
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    request = request.header("authorization", format!("Bearer {who}-key"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

/// A request for a picture.
pub fn picture(headers: &[(&str, &str)]) -> Request<Bytes> {
    let body = json!({"model": "p", "prompt": "a cat", "n": 1}).to_string();
    alice("POST", "/v1/images/generations", headers, body)
}

/// A request for a picture, to be made later.
pub fn later() -> Request<Bytes> {
    picture(&[("prefer", "respond-async")])
}

/// The id of a job that was accepted.
pub fn accepted(reply: &Reply) -> String {
    let job = reply.json();
    assert_eq!((reply.status.as_u16(), reply.header("preference-applied")), (202, "respond-async"), "{job}");
    let id = job["id"].as_str().unwrap().to_owned();
    assert_eq!(reply.header("location"), format!("/v1/jobs/{id}"));
    assert_eq!((&job["object"], &job["status"]), (&json!("job"), &json!("queued")));
    id
}

/// Looks at a job until it is over.
pub async fn ended(rig: &Rig, id: &str) -> Value {
    let begun = Instant::now();
    loop {
        let job = rig.ask(alice("GET", &format!("/v1/jobs/{id}"), &[], "")).await.json();
        if job["ended_at"].is_u64() {
            return job;
        }
        assert!(begun.elapsed() < PATIENCE, "{job}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub const PICTURE: &str = r#"{"status":"SUCCEEDED","pictures":[{"url":"https://pictures.example/1.png"}]}"#;

#[tokio::test]
async fn a_job_ends_with_the_answer_that_a_caller_who_waits_gets() {
    let fake = Fake::start(studio(&["PENDING", "RUNNING", PICTURE])).await;
    let rig = rig(&fake, "").await;
    let waited = rig.ask(picture(&[])).await;
    assert_eq!(waited.json()["data"][0]["url"], "https://pictures.example/1.png", "{}", waited.text());

    let headers = [("prefer", "wait=5, Respond-Async; q=1"), ("x-studio", "two"), ("x-api-key", "alice-key")];
    let reply = rig.ask(picture(&headers)).await;
    let id = accepted(&reply);
    let job = ended(&rig, &id).await;
    assert_eq!(
        (&job["status"], &job["operation"], &job["model"]),
        (&json!("succeeded"), &json!("images"), &json!("p"))
    );
    assert_eq!((&job["target"], &job["error"]), (&json!("studio/p"), &Value::Null));
    assert_eq!(job["result"]["data"], waited.json()["data"]);
    let whole = rig.ask(alice("GET", &format!("/v1/jobs/{id}/result"), &[], "")).await;
    assert_eq!((whole.status.as_u16(), &whole.json()["data"]), (200, &waited.json()["data"]));
    for name in ["content-type", "penstock-target"] {
        assert_eq!(whole.header(name), waited.header(name));
    }
    assert_eq!(whole.header("x-request-id"), job["request_id"].as_str().unwrap());
    let asked = fake.asked();
    let submitted: Vec<_> = asked.iter().filter(|asked| asked.line == "POST /tasks").collect();
    assert_eq!(submitted[1].header("x-studio"), Some("two"), "a header that the adapter wants is kept");
    assert_eq!(submitted[1].header("authorization"), Some("Bearer vendor-secret-4711"));
    assert_eq!(submitted[0].json(), submitted[1].json());
    let metrics = rig.gateway.metrics.exposition().unwrap();
    for line in [
        "penstock_jobs{status=\"succeeded\"} 1",
        "penstock_jobs{status=\"running\"} 0",
        "penstock_jobs_ended_total{operation=\"images\",status=\"succeeded\"} 1",
        "penstock_requests_total{operation=\"images\",route=\"ai\",status=\"202\",vendor=\"\"} 1",
        "penstock_requests_total{operation=\"images\",route=\"ai\",status=\"200\",vendor=\"studio\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn a_conversation_can_be_a_job_in_any_dialect_and_a_stream_cannot() {
    let rig = rig(&Fake::start(studio(&["PENDING"])).await, "").await;
    let prefer = [("prefer", "respond-async")];
    let message = json!({"role": "user", "content": "hello"});
    let body = json!({"model": "echo", "max_tokens": 50, "messages": [message]}).to_string();
    let id = accepted(&rig.ask(alice("POST", "/v1/messages", &prefer, body)).await);
    let job = ended(&rig, &id).await;
    assert_eq!(job["result"]["content"][0]["text"], "You said: hello", "{job}");
    let body = json!({"model": "echo", "stream": true, "messages": [message]}).to_string();
    let reply = rig.ask(alice("POST", "/v1/chat/completions", &prefer, body)).await;
    assert_eq!((reply.status.as_u16(), reply.header("preference-applied")), (200, ""));
    assert!(reply.text().contains("data: [DONE]"), "{}", reply.text());
}

#[tokio::test]
async fn what_fails_at_once_is_no_job() {
    let rig = rig(&Fake::start(studio(&["PENDING"])).await, "").await;
    let prefer = [("prefer", "respond-async")];
    let cases = [
        ("/v1/images/generations", r#"{"model":"none/such","prompt":"a"}"#, 404, "unknown-model"),
        ("/v1/images/generations", r#"{"model":"echo","prompt":"a"}"#, 400, "unsupported"),
        ("/v1/images/generations", "{", 400, "bad-body"),
        ("/v1/videos", r#"{"model":"p"}"#, 400, "bad-body"),
    ];
    for (path, body, status, code) in cases {
        let reply = rig.ask(alice("POST", path, &prefer, body)).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("penstock-failure")),
            (status, code),
            "{body}: {}",
            reply.text()
        );
    }
    let reply = rig.ask(of("mallory", "POST", "/v1/videos", &prefer, "{}")).await;
    assert_eq!(reply.status.as_u16(), 401);
    let list = rig.ask(alice("GET", "/v1/jobs", &[], "")).await.json();
    assert_eq!(list["data"], json!([]));
}

#[tokio::test]
async fn a_job_that_fails_has_the_error_of_its_dialect() {
    let error = r#"{"error":{"message":"no such thing","type":"invalid_request_error"}}"#;
    let fake = Fake::start(move |asked| match asked.line.as_str() {
        "POST /tasks" => fake::json("200 OK", r#"{"id":"t","status":"FAILED","code":"Bad","message":"not allowed"}"#),
        _ => fake::json("400 Bad Request", error),
    });
    let fake = fake.await;
    let rig = rig(&fake, "").await;
    let id = accepted(&rig.ask(later()).await);
    let job = ended(&rig, &id).await;
    assert_eq!((&job["status"], &job["result"]), (&json!("failed"), &Value::Null), "{job}");
    assert_eq!(
        (&job["error"]["message"], &job["error"]["code"]),
        (&json!("not allowed"), &json!("content_filter")),
        "{job}"
    );
    let reply = rig.ask(alice("GET", &format!("/v1/jobs/{id}/result"), &[], "")).await;
    assert_eq!((reply.status.as_u16(), reply.header("penstock-failure")), (400, "upstream-refused"));

    let body = json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}]}).to_string();
    let id = accepted(&rig.ask(alice("POST", "/v1/messages", &[("prefer", "respond-async")], body)).await);
    let job = ended(&rig, &id).await;
    assert_eq!(job["error"]["type"], "invalid_request_error", "{job}");
}

#[tokio::test]
async fn only_who_made_a_job_sees_it() {
    let fake = Fake::start(studio(&[PICTURE])).await;
    let more = "[[routes]]\nname = \"other\"\npath = \"/other\"\nauth = \"callers\"\n";
    let rig = rig(&fake, more).await;
    let ids = [accepted(&rig.ask(later()).await), accepted(&rig.ask(later()).await)];
    for id in &ids {
        ended(&rig, id).await;
    }
    let id = &ids[0];
    for (method, path) in [
        ("GET", format!("/v1/jobs/{id}")),
        ("GET", format!("/v1/jobs/{id}/result")),
        ("POST", format!("/v1/jobs/{id}/cancel")),
        ("DELETE", format!("/v1/jobs/{id}")),
        ("GET", format!("/v1/videos/{}", id.replace("job_", "video_"))),
    ] {
        let reply = rig.ask(of("bob", method, &path, &[], "")).await;
        assert_eq!((reply.status.as_u16(), reply.header("penstock-failure")), (404, "unknown-job"), "{method} {path}");
        let elsewhere = path.replace("/v1/", "/other/");
        assert_eq!(rig.ask(alice(method, &elsewhere, &[], "")).await.status, 404, "{method} {elsewhere}");
    }
    for path in ["/v1/jobs/job_0", "/v1/jobs/x", "/v1/jobs/job_/else", "/v1/videos/video_0"] {
        assert_eq!(rig.ask(alice("GET", path, &[], "")).await.status, 404, "{path}");
    }
    assert_eq!(rig.ask(of("bob", "GET", "/v1/jobs", &[], "")).await.json()["data"], json!([]));
    let page = rig.ask(alice("GET", "/v1/jobs?limit=1", &[], "")).await.json();
    assert_eq!((&page["data"][0]["id"], &page["has_more"]), (&json!(ids[1]), &json!(true)), "the newest first: {page}");
    let page = rig.ask(alice("GET", &format!("/v1/jobs?limit=1&after={}", ids[1]), &[], "")).await.json();
    assert_eq!((&page["data"][0]["id"], &page["has_more"]), (&json!(ids[0]), &json!(false)));

    let gone = rig.ask(alice("DELETE", &format!("/v1/jobs/{id}"), &[], "")).await;
    assert_eq!(gone.json()["deleted"], json!(true), "{}", gone.text());
    assert_eq!(rig.ask(alice("GET", &format!("/v1/jobs/{id}"), &[], "")).await.status, 404);
}

#[tokio::test]
async fn the_same_key_is_the_same_job_and_for_another_request_it_is_refused() {
    let fake = Fake::start(studio(&[PICTURE])).await;
    let rig = rig(&fake, "").await;
    let keyed = [("prefer", "respond-async"), ("idempotency-key", "k-1")];
    let replies: Vec<_> =
        [rig.ask(picture(&keyed)), rig.ask(picture(&keyed)), rig.ask(picture(&keyed))].into_iter().collect();
    let mut ids = Vec::new();
    for reply in replies {
        ids.push(reply.await.json()["id"].clone());
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let job = ended(&rig, ids[0].as_str().unwrap()).await;
    let again = rig.ask(picture(&keyed)).await;
    assert_eq!((again.status.as_u16(), &again.json()["id"]), (200, &job["id"]), "it is over");
    assert_eq!(again.json()["status"], "succeeded");
    let body = json!({"model": "p", "prompt": "a dog"}).to_string();
    let other = rig.ask(alice("POST", "/v1/images/generations", &keyed, body.clone())).await;
    assert_eq!((other.status.as_u16(), other.header("penstock-failure")), (422, "idempotency-key-reused"));
    let bobs = rig.ask(of("bob", "POST", "/v1/images/generations", &keyed, body)).await;
    assert_eq!(bobs.status.as_u16(), 202, "keys are of their callers: {}", bobs.text());
    until("two jobs", || count(&fake, "POST /tasks") == 2).await;
    let long = "k".repeat(300);
    let long = rig.ask(picture(&[("prefer", "respond-async"), ("idempotency-key", &long)])).await;
    assert_eq!(long.status.as_u16(), 400);
}

#[tokio::test]
async fn a_job_that_is_called_off_is_called_off_at_the_vendor() {
    let fake = Fake::start(studio(&["RUNNING"])).await;
    let rig = rig(&fake, "[jobs]\nconcurrent = 1\n").await;
    let running = accepted(&rig.ask(later()).await);
    let waiting = accepted(&rig.ask(later()).await);
    until("the first one runs", || count(&fake, "GET /tasks/t1") > 0).await;
    let shown = rig.ask(alice("GET", &format!("/v1/jobs/{running}"), &[], "")).await;
    assert_eq!(shown.json()["status"], "running");
    assert!(!shown.header("retry-after").is_empty());
    let early = rig.ask(alice("GET", &format!("/v1/jobs/{running}/result"), &[], "")).await;
    assert_eq!((early.status.as_u16(), early.header("penstock-failure")), (409, "job-without-answer"));

    let reply = rig.ask(alice("DELETE", &format!("/v1/jobs/{waiting}"), &[], "")).await;
    assert_eq!(reply.json()["status"], "cancelled", "one that is not over is called off: {}", reply.text());
    let reply = rig.ask(alice("POST", &format!("/v1/jobs/{running}/cancel"), &[], "")).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["status"]), (200, &json!("cancelled")));
    until("the vendor is told", || count(&fake, "POST /tasks/t1/cancel") == 1).await;
    let again = rig.ask(alice("POST", &format!("/v1/jobs/{running}/cancel"), &[], "")).await;
    assert_eq!((again.status.as_u16(), &again.json()["status"]), (200, &json!("cancelled")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((count(&fake, "POST /tasks"), count(&fake, "POST /tasks/t1/cancel")), (1, 1));
    let metrics = rig.gateway.metrics.exposition().unwrap();
    assert!(metrics.contains("penstock_jobs{status=\"cancelled\"} 2"), "{metrics}");
    assert!(metrics.contains("penstock_requests_inflight{route=\"ai\"} 0"), "the ledger is settled");
}

#[tokio::test]
async fn a_job_is_charged_to_its_caller_when_it_is_over() {
    let release = Arc::new(Notify::new());
    let held = Arc::clone(&release);
    let answer = r#"{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5000,"completion_tokens":4000,"total_tokens":9000}}"#;
    let fake = Fake::start(move |_| [vec![Do::Await(Arc::clone(&held))], fake::json("200 OK", answer)].concat()).await;
    let limits = "[plugins.fair]\nplugin = \"token-bucket\"\nconfig.rules = [{ per = [\"subject\"], tokens_per_minute = 5000 }]\n";
    let policy = policy(&fake.url(), limits) + "limits = [\"fair\"]\n";
    let rig = Rig::with(&policy, painter_library()).await;
    let chat = |model: &str, headers: &[(&str, &str)]| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "a"}]}).to_string();
        rig.ask(alice("POST", "/v1/chat/completions", headers, body))
    };
    let id = accepted(&chat("m", &[("prefer", "respond-async")]).await);
    assert_eq!(chat("echo", &[]).await.status.as_u16(), 200);
    release.notify_one();
    assert_eq!(ended(&rig, &id).await["status"], "succeeded");
    let refused = chat("echo", &[]).await;
    assert_eq!((refused.status.as_u16(), refused.header("penstock-failure")), (429, "limited"), "{}", refused.text());
    let metrics = rig.gateway.metrics.exposition().unwrap();
    assert!(
        metrics.contains(r#"penstock_tokens_total{kind="input",model="m",route="ai",vendor="plain"} 5000"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn there_is_room_for_so_many_jobs_and_bytes() {
    let fake = Fake::start(studio(&[PICTURE])).await;
    let rig = rig(&fake, "[jobs]\nmax = 1\nbytes_max = 500\n").await;
    let large = json!({"model": "p", "prompt": "a".repeat(500)}).to_string();
    let prefer = [("prefer", "respond-async")];
    let refused = rig.ask(alice("POST", "/v1/images/generations", &prefer, large)).await;
    assert_eq!((refused.status.as_u16(), refused.header("penstock-failure")), (503, "jobs-full"));
    assert!(refused.text().contains("jobs.bytes_max"), "{}", refused.text());
    let id = accepted(&rig.ask(later()).await);
    ended(&rig, &id).await;
    let refused = rig.ask(later()).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "60"), "an answer is not thrown away");
    rig.ask(alice("DELETE", &format!("/v1/jobs/{id}"), &[], "")).await;
    accepted(&rig.ask(later()).await);
}

#[tokio::test]
async fn a_job_that_takes_too_long_is_given_up_and_its_vendor_is_told() {
    let fake = Fake::start(studio(&["RUNNING"])).await;
    let rig = rig(&fake, "[jobs]\ndeadline_s = 1\n").await;
    let id = accepted(&rig.ask(later()).await);
    let job = ended(&rig, &id).await;
    assert_eq!(job["status"], "failed");
    assert!(job["error"]["message"].as_str().unwrap().contains("jobs.deadline_s"), "{job}");
    until("the vendor is told", || count(&fake, "POST /tasks/t1/cancel") == 1).await;
}

#[tokio::test]
async fn jobs_are_asked_about_where_only_other_dialects_are_spoken() {
    let fake = Fake::start(studio(&["PENDING"])).await;
    let policy = policy(&fake.url(), "") + "dialects = [\"anthropic-messages\"]\n";
    let rig = Rig::with(&policy, painter_library()).await;
    let body = json!({"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}]}).to_string();
    let id = accepted(&rig.ask(alice("POST", "/v1/messages", &[("prefer", "respond-async")], body)).await);
    assert_eq!(ended(&rig, &id).await["status"], "succeeded");
    let unknown = rig.ask(get("/v1/jobs/job_1")).await;
    assert_eq!((unknown.status.as_u16(), &unknown.json()["type"]), (401, &json!("error")), "{}", unknown.text());
}
