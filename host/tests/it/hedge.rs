// SPDX-License-Identifier: Apache-2.0
//! A second target is asked beside a slow one; who speaks first is passed on, and the other is cancelled.

use std::sync::Arc;
use std::time::Duration;

use penstock::directory::Directory;
use penstock::metrics::Metrics;
use penstock::state::Memory;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::support::caller::{self, Reply, post};
use crate::support::fake::{self, Do, Fake, chunk, stream_head};
use crate::support::program::Program;
use crate::support::rig::{Rig, build, library};

const CHAT: &str = "/v1/chat/completions";
const PRELUDE: &[u8] =
    b"data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";

/// A whole answer that says who gives it.
fn says(who: &str) -> String {
    let message = json!({"role": "assistant", "content": who});
    let usage = json!({"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16});
    let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
    json!({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage})
        .to_string()
}

fn whole(who: &str) -> Vec<Do> {
    fake::json("200 OK", &says(who))
}

/// The same as a stream.
fn streamed(who: &str) -> Vec<u8> {
    let delta = json!({"id": "c", "choices": [{"index": 0, "delta": {"content": who}, "finish_reason": "stop"}]});
    let usage = json!({"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16});
    let usage = json!({"id": "c", "choices": [], "usage": usage});
    format!("data: {delta}\n\ndata: {usage}\n\ndata: [DONE]\n\n").into_bytes()
}

fn error(status: &str) -> Vec<Do> {
    fake::json(status, r#"{"error":{"message":"no","type":"server_error"}}"#)
}

/// What a test and its upstreams tell each other.
#[derive(Default, Clone)]
struct Signals {
    asked: Arc<Notify>,
    go: Arc<Notify>,
    closed: Arc<Notify>,
}

impl Signals {
    /// Says that it was asked, says this, and then nothing until it is left.
    fn silent_after(&self, first: &[Do]) -> Vec<Do> {
        let end = Do::UntilClosed(Arc::clone(&self.closed));
        [vec![Do::Tell(Arc::clone(&self.asked))], first.to_vec(), vec![end]].concat()
    }

    /// Says that it was asked, and does this when the test says so.
    fn then(&self, rest: Vec<Do>) -> Vec<Do> {
        [vec![Do::Tell(Arc::clone(&self.asked)), Do::Await(Arc::clone(&self.go))], rest].concat()
    }
}

async fn fake(script: Vec<Do>) -> Fake {
    Fake::start(move |_| script.clone()).await
}

fn policy(a: &Fake, b: &Fake, hedge: &str, more: &str) -> String {
    format!(
        "{more}\n\
         [vendors.a]\nadapter = \"openai-compatible\"\nbase_url = \"{}\"\n\
         [vendors.b]\nadapter = \"openai-compatible\"\nbase_url = \"{}\"\n\
         [models.m]\ntargets = [{{ vendor = \"a\" }}, {{ vendor = \"b\" }}]\nhedge = {{ {hedge} }}\n\
         [[routes]]\nname = \"ai\"\npath = \"/v1\"\n",
        a.url(),
        b.url()
    )
}

fn chat(streaming: bool) -> Value {
    let options = json!({"include_usage": true});
    let mut body = json!({"model": "m", "stream": streaming, "messages": [{"role": "user", "content": "hi"}]});
    if streaming {
        body["stream_options"] = options;
    }
    body
}

fn ask(rig: &Rig, body: &Value) -> JoinHandle<Reply> {
    tokio::spawn(caller::ask(rig.address, post(CHAT, body)))
}

/// The value of a series; 0 if there is none.
fn metric(rig: &Rig, series: &str) -> u64 {
    let text = rig.gateway.metrics.exposition().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    line.unwrap_or_default()
}

/// Waits until a series has this value: a request ends a moment after its answer.
async fn counted(rig: &Rig, series: &str, value: u64) {
    for _ in 0..500 {
        if metric(rig, series) == value {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{series} is {}, not {value}", metric(rig, series));
}

fn hedges(outcome: &str) -> String {
    format!("penstock_hedges_total{{outcome=\"{outcome}\",route=\"ai\"}}")
}

fn tokens(vendor: &str) -> String {
    format!("penstock_tokens_total{{kind=\"input\",model=\"m\",route=\"ai\",vendor=\"{vendor}\"}}")
}

#[tokio::test]
async fn a_hedge_that_speaks_first_is_passed_on_and_the_slow_connection_closed() {
    for streaming in [false, true] {
        let slow = Signals::default();
        // What stands before the first word is no word.
        let begun = if streaming { vec![stream_head(), chunk(PRELUDE)] } else { Vec::new() };
        let first = fake(slow.silent_after(&begun)).await;
        let second = if streaming { fake(fake::stream(&streamed("b"))).await } else { fake(whole("b")).await };
        let rig = Rig::start(&policy(&first, &second, "after_ms = 50", "")).await;
        let reply = rig.post(CHAT, &chat(streaming)).await;
        let expected = if streaming { streamed("b") } else { says("b").into_bytes() };
        assert_eq!((reply.status.as_u16(), reply.text()), (200, String::from_utf8(expected).unwrap()));
        assert_eq!(reply.header("penstock-target"), "b/m");
        slow.closed.notified().await;
        counted(&rig, &hedges("won"), 1).await;
        assert_eq!((metric(&rig, &tokens("a")), metric(&rig, &tokens("b"))), (0, 11), "charged once, for who spoke");
        let outrun = "penstock_attempts_total{outcome=\"outrun\",vendor=\"a\"}";
        assert_eq!(metric(&rig, outrun), 1);
    }
}

#[tokio::test]
async fn a_first_target_that_speaks_after_all_is_passed_on_and_the_hedge_cancelled() {
    for streaming in [false, true] {
        let (slow, beside) = (Signals::default(), Signals::default());
        let words = if streaming { fake::stream(&streamed("a")) } else { whole("a") };
        let (first, second) = (fake(slow.then(words)).await, fake(beside.silent_after(&[])).await);
        let rig = Rig::start(&policy(&first, &second, "after_ms = 50", "")).await;
        let reply = ask(&rig, &chat(streaming));
        beside.asked.notified().await;
        slow.go.notify_one();
        let reply = reply.await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.header("penstock-target")), (200, "a/m"), "{}", reply.text());
        beside.closed.notified().await;
        counted(&rig, &hedges("lost"), 1).await;
        assert_eq!((metric(&rig, &tokens("a")), metric(&rig, &tokens("b"))), (11, 0));
    }
}

#[tokio::test]
async fn a_target_that_answers_in_time_has_nobody_beside_it() {
    let slow_body = says("a");
    let (begin, rest) = slow_body.split_at(20);
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", slow_body.len());
    let signals = Signals::default();
    let rest = vec![Do::Send(rest.as_bytes().to_vec())];
    let begun = [vec![Do::Send(format!("{head}{begin}").into_bytes())], signals.then(rest)].concat();
    for (script, waits) in [(whole("a"), false), (begun, true)] {
        let (first, second) = (fake(script).await, fake(whole("b")).await);
        let rig = Rig::start(&policy(&first, &second, "after_ms = 100, percent_max = 100", "")).await;
        let reply = ask(&rig, &chat(false));
        if waits {
            // A whole answer whose head is there has begun.
            signals.asked.notified().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            signals.go.notify_one();
        }
        assert_eq!(reply.await.unwrap().text(), says("a"));
        assert!(second.asked().is_empty());
    }
}

#[tokio::test]
async fn a_hedge_that_fails_does_not_fail_the_first() {
    for failure in ["500 Internal Server Error", "400 Bad Request", "401 Unauthorized"] {
        let slow = Signals::default();
        let (first, second) = (fake(slow.then(whole("a"))).await, fake(error(failure)).await);
        let rig = Rig::start(&policy(&first, &second, "after_ms = 50", "")).await;
        let reply = ask(&rig, &chat(false));
        while second.asked().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        slow.go.notify_one();
        let reply = reply.await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.text()), (200, says("a")), "{failure}");
        assert_eq!(reply.header("penstock-target"), "a/m", "{failure}");
        counted(&rig, &hedges("failed"), 1).await;
    }
}

#[tokio::test]
async fn when_the_first_fails_the_hedge_is_the_only_one() {
    let failures = [vec![Do::Close], error("500 Internal Server Error"), error("429 Too Many Requests")];
    for failure in failures {
        let (slow, beside) = (Signals::default(), Signals::default());
        let (first, second) = (fake(slow.then(failure)).await, fake(beside.then(whole("b"))).await);
        let rig = Rig::start(&policy(&first, &second, "after_ms = 50", "")).await;
        let reply = ask(&rig, &chat(false));
        beside.asked.notified().await;
        slow.go.notify_one();
        tokio::time::sleep(Duration::from_millis(100)).await;
        beside.go.notify_one();
        let reply = reply.await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.text()), (200, says("b")));
        assert_eq!((first.asked().len(), second.asked().len()), (1, 1));
        counted(&rig, &hedges("won"), 1).await;
    }
}

#[tokio::test]
async fn what_the_first_says_of_the_request_itself_is_told_at_once() {
    let (slow, beside) = (Signals::default(), Signals::default());
    let words = r#"{"error":{"message":"bad","type":"invalid_request_error","param":null,"code":null}}"#;
    let first = fake(slow.then(fake::json("400 Bad Request", words))).await;
    let second = fake(beside.silent_after(&[])).await;
    let rig = Rig::start(&policy(&first, &second, "after_ms = 50", "")).await;
    let reply = ask(&rig, &chat(false));
    beside.asked.notified().await;
    slow.go.notify_one();
    let reply = reply.await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.text()), (400, words.to_owned()));
    beside.closed.notified().await;
    counted(&rig, &hedges("lost"), 1).await;
}

#[tokio::test]
async fn when_both_fail_the_caller_reads_what_the_last_one_said_and_is_told_not_to_multiply_the_tries() {
    for first_is_last in [true, false] {
        let (slow, beside) = (Signals::default(), Signals::default());
        let first = fake(slow.then(error("500 Internal Server Error"))).await;
        let second = fake(beside.then(error("503 Service Unavailable"))).await;
        let rig = Rig::start(&policy(&first, &second, "after_ms = 50", "[timeouts]\nretry_wait_ms = 0")).await;
        let reply = ask(&rig, &chat(false));
        beside.asked.notified().await;
        let (one, other) = if first_is_last { (&beside, &slow) } else { (&slow, &beside) };
        one.go.notify_one();
        tokio::time::sleep(Duration::from_millis(100)).await;
        other.go.notify_one();
        let reply = reply.await.unwrap();
        let expected = if first_is_last { 500 } else { 503 };
        assert_eq!((reply.status.as_u16(), reply.header("x-should-retry")), (expected, "false"), "{}", reply.text());
        assert_eq!((first.asked().len(), second.asked().len()), (1, 1));
        counted(&rig, &hedges("failed"), 1).await;
        assert_eq!(metric(&rig, "penstock_failures_total{code=\"upstream-refused\",route=\"ai\"}"), 1);
    }
}

#[tokio::test]
async fn a_target_that_is_left_is_asked_when_both_have_failed() {
    let (slow, beside) = (Signals::default(), Signals::default());
    let first = fake(slow.then(vec![Do::Close])).await;
    let second = fake(beside.then(vec![Do::Close])).await;
    let third = fake(whole("c")).await;
    let policy = policy(&first, &second, "after_ms = 50", "")
        .replace("{ vendor = \"b\" }]", "{ vendor = \"b\" }, { vendor = \"c\" }]");
    let vendor = format!("[vendors.c]\nadapter = \"openai-compatible\"\nbase_url = \"{}\"\n", third.url());
    let rig = Rig::start(&format!("{vendor}{policy}")).await;
    let reply = ask(&rig, &chat(false));
    beside.asked.notified().await;
    slow.go.notify_one();
    beside.go.notify_one();
    assert_eq!(reply.await.unwrap().text(), says("c"));
    assert_eq!([&first, &second, &third].map(|fake| fake.asked().len()), [1, 1, 1]);
}

#[tokio::test]
async fn hedges_are_sent_as_far_as_their_share_goes() {
    let slow = Signals::default();
    let first = fake([vec![Do::Await(Arc::clone(&slow.go))], whole("a")].concat()).await;
    let second = fake(whole("b")).await;
    let rig = Rig::start(&policy(&first, &second, "after_ms = 20, percent_max = 1", "")).await;
    assert_eq!(rig.post(CHAT, &chat(false)).await.text(), says("b"));
    let reply = ask(&rig, &chat(false));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((first.asked().len(), second.asked().len()), (2, 1));
    slow.go.notify_waiters();
    assert_eq!(reply.await.unwrap().text(), says("a"));
    counted(&rig, &hedges("unaffordable"), 1).await;
}

#[tokio::test]
async fn who_is_not_well_or_has_no_room_is_not_asked_beside_another() {
    let limited = "[plugins.one]\nplugin = \"concurrency\"\nconfig.rules = [{ per = [\"vendor\"], calls = 1 }]\n";
    // A hedge that has lost gives its room back: the second round finds it free.
    let (slow, beside) = (Signals::default(), Signals::default());
    let first = fake(slow.then(whole("a"))).await;
    let second = fake(beside.silent_after(&[])).await;
    let with_limits = policy(&first, &second, "after_ms = 20, percent_max = 100", limited)
        .replace("[models.m]", "limits = [\"one\"]\n[models.m]");
    let rig = Rig::start(&with_limits).await;
    for round in 1..=2 {
        let reply = ask(&rig, &chat(false));
        beside.asked.notified().await;
        let other = ask(&rig, &chat(false));
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(second.asked().len(), round, "one at a time");
        slow.go.notify_waiters();
        for reply in [reply, other] {
            assert_eq!(reply.await.unwrap().text(), says("a"));
        }
        beside.closed.notified().await;
    }
    assert!(metric(&rig, &hedges("nobody")) >= 1);

    let slow = Signals::default();
    let (first, second) = (fake(slow.then(whole("a"))).await, fake(error("500 Internal Server Error")).await);
    let rig = Rig::start(&policy(&first, &second, "after_ms = 20, percent_max = 100", "")).await;
    let direct = json!({"model": "b/m", "messages": [{"role": "user", "content": "hi"}]});
    for _ in 0..5 {
        rig.post(CHAT, &direct).await;
    }
    let before = second.asked().len();
    let reply = ask(&rig, &chat(false));
    tokio::time::sleep(Duration::from_millis(150)).await;
    slow.go.notify_one();
    assert_eq!((reply.await.unwrap().text(), second.asked().len()), (says("a"), before));
}

#[tokio::test]
async fn a_target_that_is_outrun_is_not_held_to_have_failed() {
    let slow = Signals::default();
    let (first, second) = (fake(slow.silent_after(&[])).await, fake(whole("b")).await);
    let rig = Rig::start(&policy(&first, &second, "after_ms = 10, percent_max = 100", "")).await;
    for round in 1..=12 {
        assert_eq!(rig.post(CHAT, &chat(false)).await.text(), says("b"));
        assert_eq!(first.asked().len(), round, "asked first as ever");
    }
}

#[tokio::test]
async fn tries_and_time_of_the_request_hold_over_both() {
    let slow = Signals::default();
    let (first, second) = (fake(slow.silent_after(&[])).await, fake(slow.silent_after(&[])).await);
    let rig = Rig::start(&policy(&first, &second, "after_ms = 20", "[timeouts]\ntotal_ms = 300")).await;
    let reply = rig.post(CHAT, &chat(false)).await;
    assert_eq!((reply.status.as_u16(), reply.header("x-should-retry")), (504, "false"), "{}", reply.text());
    assert_eq!((first.asked().len(), second.asked().len()), (1, 1));
    counted(&rig, &hedges("abandoned"), 1).await;

    let one_try = policy(&first, &second, "after_ms = 20", "[limits]\nattempts_max = 1\n[timeouts]\ntotal_ms = 300");
    let reply = Rig::start(&one_try).await.post(CHAT, &chat(false)).await;
    assert_eq!((reply.status.as_u16(), second.asked().len()), (504, 1));
}

#[tokio::test]
async fn a_caller_who_hangs_up_cancels_both() {
    let (slow, beside) = (Signals::default(), Signals::default());
    let (first, second) = (fake(slow.silent_after(&[])).await, fake(beside.silent_after(&[])).await);
    let rig = Rig::start(&policy(&first, &second, "after_ms = 20", "")).await;
    let reply = ask(&rig, &chat(false));
    beside.asked.notified().await;
    reply.abort();
    slow.closed.notified().await;
    beside.closed.notified().await;
    counted(&rig, &hedges("abandoned"), 1).await;
}

#[tokio::test]
async fn dialects_of_both_targets_may_be_any() {
    let messages = r#"{"id":"y","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"other"}],"stop_reason":"end_turn","usage":{"input_tokens":11,"output_tokens":5}}"#;
    let events = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"y\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"usage\":{\"input_tokens\":11,\"output_tokens\":1}}}\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"other\"}}\n\n",
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":5}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );
    for (path, slow_is_other, streaming) in [
        (CHAT, true, false),
        (CHAT, true, true),
        (CHAT, false, false),
        (CHAT, false, true),
        ("/v1/messages", true, true),
        ("/v1/messages", false, true),
    ] {
        let slow = Signals::default();
        let first = fake(slow.silent_after(&[])).await;
        let second = match (slow_is_other, streaming) {
            (true, false) => fake(whole("other")).await,
            (true, true) => fake(fake::stream(&streamed("other"))).await,
            (false, false) => fake(fake::json("200 OK", messages)).await,
            (false, true) => fake(fake::stream(events.as_bytes())).await,
        };
        let policy = policy(&first, &second, "after_ms = 30", "");
        let (own, other) = ("adapter = \"openai-compatible\"\nbase_url", "adapter = \"anthropic\"\nbase_url");
        let policy = if slow_is_other {
            policy.replacen(own, other, 1)
        } else {
            policy.replace(own, other).replacen(other, own, 1)
        };
        let rig = Rig::start(&policy).await;
        let mut body = chat(streaming);
        body["max_tokens"] = json!(50);
        let reply = rig.post(path, &body).await;
        let text = reply.text();
        assert!(reply.status.is_success() && text.contains("other") && !reply.cut, "{path} {slow_is_other}: {text}");
        assert_eq!(reply.header("penstock-target"), "b/m");
        slow.closed.notified().await;
        counted(&rig, &tokens("b"), 11).await;
        assert_eq!(first.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_job_is_sent_once_however_slow_its_target_is() {
    let slow = Signals::default();
    let (first, second) = (fake(slow.then(whole("a"))).await, fake(whole("b")).await);
    let rig = Rig::start(&policy(&first, &second, "after_ms = 10, percent_max = 100", "")).await;
    let mut request = post(CHAT, &chat(false));
    request.headers_mut().insert("prefer", "respond-async".parse().unwrap());
    assert_eq!(rig.ask(request).await.status.as_u16(), 202);
    slow.asked.notified().await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    slow.go.notify_one();
    counted(&rig, &tokens("a"), 11).await;
    assert!(second.asked().is_empty());
}

#[tokio::test]
async fn a_route_has_hedges_for_models_that_do_not_say_so_and_the_access_log_tells_of_them() {
    let slow = Signals::default();
    let (first, second) = (fake(slow.silent_after(&[])).await, fake(whole("b")).await);
    let places = "[admin]\naddress = \"127.0.0.1:0\"\n[[listeners]]\naddress = \"127.0.0.1:0\"\n";
    let policy = policy(&first, &second, "", places).replace("hedge = {  }\n", "");
    let program = Program::start(&format!("{policy}hedge = {{ after_ms = 50 }}\n"));
    let reply = program.chat("m").await;
    assert_eq!(reply.text(), says("b"));
    let line = program.line(|line| line["target"] == "access");
    let told = (&line["hedge"], &line["attempts"], &line["vendor"]);
    assert_eq!(told, (&json!("won"), &json!(2), &json!("b")), "{line}");
}

#[test]
fn a_hedge_that_makes_no_sense_is_refused_with_its_place() {
    let service =
        "[services.s]\nendpoints = [\"http://127.0.0.1:1\"]\n[[routes]]\nname = \"s\"\npath = \"/\"\nservice = \"s\"\n";
    let model = "[vendors.e]\nadapter = \"echo\"\n[models.m]\ntargets = [{ vendor = \"e\" }]\n";
    let cases = [
        (format!("{service}hedge = {{ after_ms = 5 }}\n"), "requests for a plain HTTP service are sent once"),
        (format!("{model}hedge = {{ after_ms = 5, percent_max = 0 }}\n"), "percent_max = 0 is no share"),
        (format!("{model}hedge = {{ after_ms = 5, percent_max = 101 }}\n"), "percent_max = 101 is no share"),
        (format!("{model}hedge = {{ }}\n"), "after_ms"),
    ];
    let (state, metrics) = (Arc::new(Memory::new(100)), Metrics::new().unwrap());
    let directory = Directory::in_memory().unwrap();
    for (policy, expected) in cases {
        let built = build(&policy, library(), &state, &directory, &metrics, None);
        let problems = built.err().expect("the policy is refused");
        let told = problems.iter().map(ToString::to_string).collect::<String>();
        assert!(told.contains(expected) && told.contains("policy.toml:"), "{told}");
    }
}
