// SPDX-License-Identifier: Apache-2.0
//! Jobs of a gateway that is killed without a warning and started again.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::jobs::{PATIENCE, PICTURE, VENDOR_KEY, accepted, alice, count, later, picture, policy, studio, until};
use crate::jobs_reports::verify;
use crate::support::caller;
use crate::support::fake::{self, Do, Fake};
use crate::support::plugins::built;
use crate::support::program::{Program, prepared};

fn start(fake: &Fake, more: &str) -> Program {
    let ends = "[admin]\naddress = \"127.0.0.1:0\"\n[[listeners]]\naddress = \"127.0.0.1:0\"\n";
    let root = prepared(&policy(&fake.url(), &format!("{ends}{more}")));
    for name in ["painter", "api-key"] {
        fs::write(root.path().join("plugins").join(format!("{name}.wasm")), built(name)).unwrap();
    }
    Program::run(root)
}

async fn ask(program: &Program, request: Request<Bytes>) -> caller::Reply {
    caller::ask(program.gateway, request).await
}

async fn ended(program: &Program, id: &str) -> Value {
    let begun = Instant::now();
    loop {
        let job = ask(program, alice("GET", &format!("/v1/jobs/{id}"), &[], "")).await.json();
        if job["ended_at"].is_u64() {
            return job;
        }
        assert!(begun.elapsed() < PATIENCE, "{job}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_survives_a_kill_and_its_vendor_is_asked_once() {
    let polls = Arc::new(AtomicUsize::new(0));
    let released = Arc::new(AtomicUsize::new(0));
    let (asked, release) = (Arc::clone(&polls), Arc::clone(&released));
    let fake = Fake::start(move |request| match request.line.as_str() {
        "POST /tasks" => fake::json("200 OK", r#"{"id":"t1","status":"PENDING"}"#),
        _ => {
            asked.fetch_add(1, Ordering::Relaxed);
            let done = release.load(Ordering::Relaxed) > 0;
            fake::json("200 OK", if done { PICTURE } else { r#"{"status":"PENDING"}"# })
        }
    });
    let fake = fake.await;
    let hooks = Fake::start(|_| fake::json("200 OK", "{}")).await;
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "shared").unwrap();
    let rules =
        format!("[jobs]\nwebhooks = [\"{}\"]\nwebhook_secret = \"file:{}\"\n", hooks.url(), secret.path().display());
    let mut program = start(&fake, &rules);
    let url = format!("{}/done", hooks.url());
    let headers = [("prefer", "respond-async"), ("penstock-webhook", &*url), ("idempotency-key", "k")];
    let id = accepted(&ask(&program, picture(&headers)).await);
    until("the vendor works", || polls.load(Ordering::Relaxed) > 1).await;
    program.kill();

    let file = program.root.path().join("state/jobs.redb");
    let bytes = fs::read(&file).unwrap();
    for secret in ["alice-key", VENDOR_KEY, "Bearer"] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} is in the store");
    }
    assert!(bytes.windows(5).any(|window| window == b"a cat"), "the looking for words finds words");

    let before = polls.load(Ordering::Relaxed);
    program.again();
    until("it is asked on", || polls.load(Ordering::Relaxed) > before).await;
    let again = ask(&program, picture(&headers)).await;
    assert_eq!((again.status.as_u16(), &again.json()["id"]), (202, &json!(id)), "its key is known");
    released.store(1, Ordering::Relaxed);
    let job = ended(&program, &id).await;
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(job["result"]["data"][0]["url"], "https://pictures.example/1.png");
    assert_eq!(count(&fake, "POST /tasks"), 1, "exactly one submit");
    assert_eq!(count(&fake, "POST /tasks/t1/cancel"), 0, "nobody called it off");
    until("the end is reported", || hooks.asked().len() == 1).await;
    verify(&hooks.last(), b"shared");

    program.kill();
    program.again();
    let reply = ask(&program, alice("GET", &format!("/v1/jobs/{id}/result"), &[], "")).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["data"]),
        (200, &job["result"]["data"]),
        "the answer is kept, too"
    );
    assert_eq!(hooks.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_on_its_way_is_not_sent_twice_and_says_so() {
    let fake = Fake::start(|_| vec![Do::Await(Arc::new(Notify::new()))]).await;
    let mut program = start(&fake, "[jobs]\nconcurrent = 2\n");
    let picture = accepted(&ask(&program, later()).await);
    let message = json!({"role": "user", "content": "hi"});
    let chat = json!({"model": "m", "messages": [message]}).to_string();
    let prefer = [("prefer", "respond-async")];
    let chat = accepted(&ask(&program, alice("POST", "/v1/chat/completions", &prefer, chat)).await);
    until("both are on their way", || fake.asked().len() == 2).await;
    let body = json!({"model": "echo", "messages": [message]}).to_string();
    let waiting = accepted(&ask(&program, alice("POST", "/v1/chat/completions", &prefer, body)).await);
    program.kill();
    program.again();
    let job = ended(&program, &picture).await;
    assert_eq!(job["status"], "failed", "{job}");
    assert!(job["error"]["message"].as_str().unwrap().contains("not sent a second time"), "{job}");
    let reply = ask(&program, alice("GET", &format!("/v1/jobs/{picture}/result"), &[], "")).await;
    assert_eq!((reply.status.as_u16(), reply.header("penstock-failure")), (502, "job-interrupted"));
    assert_eq!(count(&fake, "POST /tasks"), 1);
    assert_eq!(ended(&program, &waiting).await["status"], "succeeded", "one that had not begun begins");
    until("what leaves nothing behind is asked again", || count(&fake, "POST /chat/completions") == 2).await;
    let shown = ask(&program, alice("GET", &format!("/v1/jobs/{chat}"), &[], "")).await.json();
    assert_eq!(shown["status"], "running", "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vendor_that_is_gone_after_the_restart_fails_its_jobs() {
    let fake = Fake::start(studio(&["PENDING"])).await;
    let mut program = start(&fake, "");
    let id = accepted(&ask(&program, later()).await);
    until("the vendor works", || count(&fake, "GET /tasks/t1") > 0).await;
    program.kill();
    let file = program.root.path().join("policies/main.toml");
    let policy = fs::read_to_string(&file).unwrap().replace("[vendors.studio]", "[vendors.elsewhere]");
    fs::write(&file, policy).unwrap();
    program.again();
    let job = ended(&program, &id).await;
    let message = job["error"]["message"].as_str().unwrap();
    assert!(message.contains("studio/p has begun the job"), "{job}");
    assert_eq!(count(&fake, "POST /tasks"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_told_to_stop_calls_nothing_off() {
    let fake = Fake::start(studio(&["PENDING"])).await;
    let mut program = start(&fake, "");
    accepted(&ask(&program, later()).await);
    until("the vendor works", || count(&fake, "GET /tasks/t1") > 0).await;
    program.signal(rustix::process::Signal::TERM);
    assert_eq!(program.exit_code(), Some(0));
    program.again();
    let polled = count(&fake, "GET /tasks/t1");
    until("it is asked on", || count(&fake, "GET /tasks/t1") > polled).await;
    assert_eq!((count(&fake, "POST /tasks"), count(&fake, "POST /tasks/t1/cancel")), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_for_its_turn_after_the_restart_is_called_off_at_once() {
    let submitted = AtomicUsize::new(0);
    let fake = Fake::start(move |asked| match asked.line.as_str() {
        "POST /tasks" => {
            let number = submitted.fetch_add(1, Ordering::Relaxed) + 1;
            fake::json("200 OK", &format!(r#"{{"id":"t{number}","status":"PENDING"}}"#))
        }
        _ => fake::json("200 OK", r#"{"status":"PENDING"}"#),
    });
    let fake = fake.await;
    let mut program = start(&fake, "[jobs]\nconcurrent = 2\n");
    accepted(&ask(&program, later()).await);
    until("the vendor works on the first", || count(&fake, "GET /tasks/t1") > 0).await;
    let second = accepted(&ask(&program, later()).await);
    until("the vendor works on the second", || count(&fake, "GET /tasks/t2") > 0).await;
    program.kill();
    let file = program.root.path().join("policies/main.toml");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("concurrent = 2", "concurrent = 1")).unwrap();
    program.again();
    let polled = count(&fake, "GET /tasks/t1");
    until("the first goes on", || count(&fake, "GET /tasks/t1") > polled).await;
    let reply = ask(&program, alice("POST", &format!("/v1/jobs/{second}/cancel"), &[], "")).await;
    assert_eq!(reply.json()["status"], "cancelled");
    until("the vendor is told", || count(&fake, "POST /tasks/t2/cancel") == 1).await;
    assert_eq!((count(&fake, "POST /tasks"), count(&fake, "POST /tasks/t1/cancel")), (2, 0));
}
