// SPDX-License-Identifier: Apache-2.0
//! The `penstock` program itself: what it announces, how it takes new files while it works, and how it stops.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::caller;
use crate::support::fake::{Do, Fake, chunk, last_chunk, stream_head};
use crate::support::plugins::built as component;
use crate::support::program::{PATIENCE, Program, SOON, penstock, prepared};

fn output(verb: &str, root: &Path) -> (Output, String) {
    let output = penstock(verb, root).output().unwrap();
    let text = String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned();
    (output, text)
}

fn policy(upstream: &str) -> String {
    format!(
        "[admin]\naddress = \"127.0.0.1:0\"\n[[listeners]]\naddress = \"127.0.0.1:0\"\n\
         [vendors.echo]\nadapter = \"echo\"\nmodels = [\"echo\"]\n\
         [vendors.late]\nadapter = \"ecko\"\noptional = true\n\
         [vendors.v]\nadapter = \"openai-compatible\"\nbase_url = \"{upstream}/v1\"\nmodels = [\"m\"]\n\
         [[routes]]\nname = \"ai\"\npath = \"/v1\"\n"
    )
}

const FIRST: &[u8] = b"data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Hi\"}}]}\n\n";
const REST: &[u8] =
    b"data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// An upstream whose streams end only when they are told to.
async fn held_upstream() -> (Fake, Arc<Notify>) {
    let release = Arc::new(Notify::new());
    let held = Arc::clone(&release);
    let script = move || vec![stream_head(), chunk(FIRST), Do::Await(Arc::clone(&held)), chunk(REST), last_chunk()];
    (Fake::start(move |_| script()).await, release)
}

fn stream_request() -> http::Request<bytes::Bytes> {
    caller::post("/v1/chat/completions", &json!({"model": "m", "stream": true, "messages": []}))
}

/// Another version of a component: the same with a custom section more.
fn version_of(bytes: &[u8], note: u8) -> Vec<u8> {
    [bytes, &[0, 6, 4, b'n', b'o', b't', b'e', note]].concat()
}

/// The same component under another name of the same length.
fn renamed(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    patched(bytes, &format!("\"name\":\"{from}\""), &format!("\"name\":\"{to}\""))
}

/// The same component with another text of the same length in its manifest, wherever that stands.
fn patched(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty(), "there is no manifest that says {from}");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

fn is(name: &str, digest: &str) -> impl Fn(&Value) -> bool {
    move |answer| {
        let mut plugins = answer["plugins"].as_array().unwrap().iter();
        plugins.any(|plugin| plugin["name"] == name && plugin["digest"] == digest)
    }
}

fn digest(bytes: &[u8]) -> String {
    penstock::library::store::digest_of(bytes)
}

/// Streams under way, half of them relayed, half of them translated by the plugin that is to be replaced.
async fn streams(program: &Program) -> Vec<(String, Incoming)> {
    let mut streams = Vec::new();
    for number in 0..50 {
        let path = if number % 2 == 0 { "/v1/chat/completions" } else { "/v1/messages" };
        let message = json!({"role": "user", "content": "hi"});
        let body = json!({"model": "m", "stream": true, "max_tokens": 9, "messages": [message]});
        let (status, _, mut body) = caller::begin(program.gateway, caller::post(path, &body)).await;
        assert_eq!(status, 200);
        let mut begun = String::new();
        while !begun.contains("Hi") {
            let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
            begun.push_str(std::str::from_utf8(&data).unwrap());
        }
        streams.push((begun, body));
    }
    streams
}

/// Asks without a pause until told to stop; answers with the number of requests, all of which succeeded.
fn caller_without_a_pause(gateway: SocketAddr, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<usize> {
    tokio::spawn(async move {
        let mut asked = 0;
        while !stop.load(Ordering::Relaxed) {
            let body = json!({"model": "echo", "messages": [{"role": "user", "content": "hello"}]});
            let reply = caller::ask(gateway, caller::post("/v1/chat/completions", &body)).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            assert_eq!(reply.json()["choices"][0]["message"]["content"], "You said: hello");
            asked += 1;
        }
        asked
    })
}

/// Asks a vendor until it answers, and fails if it does not soon.
async fn serves(program: &Program, model: &str) {
    let begun = Instant::now();
    while program.chat(model).await.status != 200 {
        assert!(begun.elapsed() < SOON, "{model} does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_come_change_break_and_roll_back_while_streams_run_and_requests_come() {
    let (fake, release) = held_upstream().await;
    let program = Program::start(&policy(&fake.url()));
    let streams = streams(&program).await;
    let stop = Arc::new(AtomicBool::new(false));
    let asking = caller_without_a_pause(program.gateway, Arc::clone(&stop));

    let echo = component("echo");
    program.plugin("ecko", &renamed(&echo, "echo", "ecko"));
    serves(&program, "late/x").await; // the policy has waited for the plugin
    fs::write(program.root.path().join("policies/more.toml"), "[vendors.new]\nadapter = \"ecko\"\n").unwrap();
    serves(&program, "new/x").await; // the plugin has waited for the policy

    for name in ["openai-compatible", "echo"] {
        let second = version_of(&component(name), b'2');
        program.plugin(name, &second);
        program.soon("a replaced plugin", "/v1/plugins", is(name, &digest(&second))).await;
    }
    let second = version_of(&echo, b'2');
    let core: &[u8] = b"\0asm\x01\0\0\0";
    let alien = patched(&echo, "\"api\":\"0.1.0\"", "\"api\":\"9.1.0\"");
    let stillborn = patched(&component("stillborn"), "\"name\":\"stillborn\"", "\"name\":\"echo\"     ");
    for (broken, code) in [
        (&second[..second.len() / 2], "truncated"),
        (core, "core-module"),
        (b"text", "not-a-component"),
        (&alien, "api-mismatch"),
        (&stillborn, "configure-trapped"),
    ] {
        program.plugin("echo", broken);
        program.soon(code, "/v1/plugins", |answer| answer.to_string().contains(code)).await;
        let listed = program.admin("GET", "/v1/plugins").await;
        assert!(is("echo", &digest(&second))(&listed), "{code}: {listed:#}");
    }
    program.admin("POST", "/v1/plugins/echo/rollback").await;
    assert!(is("echo", &digest(&echo))(&program.admin("GET", "/v1/plugins").await), "rolled back");

    stop.store(true, Ordering::Relaxed);
    assert!(asking.await.unwrap() > 50, "requests came all the time, and none failed");
    release.notify_waiters();
    for (number, (begun, body)) in streams.into_iter().enumerate() {
        let rest = body.collect().await.unwrap().to_bytes();
        let whole = [begun.as_bytes(), &rest].concat();
        if number % 2 == 0 {
            assert_eq!(whole, [FIRST, REST].concat());
        } else {
            assert!(String::from_utf8(whole).unwrap().ends_with("data: {\"type\":\"message_stop\"}\n\n"), "{number}");
        }
    }
}

#[tokio::test]
async fn a_signal_ends_it_when_what_runs_has_finished() {
    let (fake, release) = held_upstream().await;
    let mut program = Program::start(&policy(&fake.url()));
    let (_, _, mut body) = caller::begin(program.gateway, stream_request()).await;
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    program.signal(rustix::process::Signal::TERM);
    program.logged("draining");
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(program.gateway).await.is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it still accepts");
    }
    release.notify_waiters();
    let rest = body.collect().await.unwrap().to_bytes();
    assert_eq!([&*first, &*rest].concat(), [FIRST, REST].concat());
    assert_eq!(program.exit_code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (fake, _release) = held_upstream().await;
    let mut program = Program::start(&policy(&fake.url()));
    let _running = caller::begin(program.gateway, stream_request()).await;
    program.signal(rustix::process::Signal::TERM);
    program.logged("draining");
    program.signal(rustix::process::Signal::INT);
    assert_eq!(program.exit_code(), Some(1));
}

#[tokio::test]
async fn a_hang_up_signal_reads_everything_anew() {
    let program = Program::start(&policy("http://127.0.0.1:9"));
    program.signal(rustix::process::Signal::HUP);
    let installed = program.logged("installed");
    assert_eq!((installed["cause"].as_str(), installed["generation"].as_u64()), (Some("reload"), Some(2)));
    assert_eq!(program.chat("echo").await.status, 200);
}

#[test]
fn check_tells_the_places_of_what_is_wrong_and_writes_nothing() {
    let root = prepared(&policy("http://127.0.0.1:9"));
    let (good, text) = output("check", root.path());
    assert!(good.status.success() && text.starts_with("ok: 1 files, 1 routes, 3 vendors (left out: late)"), "{text}");
    let places: [(&str, &[&str]); 3] = [
        ("[vendors.x]\nadapter = \"ecko\"\n", &["more.toml:2:11: "]),
        (
            "[[routes]]\nname = \"r\"\npath = \"/x\"\nauth = \"no\"\n[vendors.x]\nadapter = \"ecko\"\n",
            &["more.toml:4:8: ", "more.toml:6:11: "],
        ),
        ("[vendors.x\n", &["more.toml:1:11: "]),
    ];
    for (more, places) in places {
        fs::write(root.path().join("policies/more.toml"), more).unwrap();
        let (bad, text) = output("check", root.path());
        assert_eq!(bad.status.code(), Some(1), "{text}");
        assert!(places.iter().all(|place| text.contains(place)), "{more}: {text}");
        assert_eq!(output("run", root.path()).0.status.code(), Some(1), "what check refuses does not run");
    }
    fs::remove_dir_all(root.path().join("state")).unwrap();
    output("check", root.path());
    assert!(!root.path().join("state").exists());
}

#[test]
fn a_token_that_others_can_read_keeps_it_from_starting() {
    let root = prepared(&policy("http://127.0.0.1:9"));
    let token: PathBuf = root.path().join("state/admin-token");
    fs::write(&token, "0".repeat(64)).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let (run, text) = output("run", root.path());
    assert_eq!(run.status.code(), Some(1));
    assert!(text.contains("admin-token") && text.contains("0644") && !text.contains("00000000"), "{text}");
}
