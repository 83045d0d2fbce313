// SPDX-License-Identifier: Apache-2.0
//! Limits and budgets of the gateway: what callers read of them, what they cost, and that they outlive a kill.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::caller::{self, Reply, begin, post};
use crate::support::fake::{self, Do, Fake, chunk, stream_head};
use crate::support::plugins::built;
use crate::support::program::{Program, prepared};
use crate::support::redis::RedisServer;
use crate::support::rig::Rig;

const ENDS: &str = "[admin]\naddress = \"127.0.0.1:0\"\n[[listeners]]\naddress = \"127.0.0.1:0\"\n";
/// What each answer of a fake vendor has used.
const TOKENS: u64 = 30;

fn answer() -> Vec<Do> {
    let body = json!({
        "id": "x", "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": TOKENS},
    });
    fake::json("200 OK", &body.to_string())
}

fn refusal() -> Vec<Do> {
    fake::json("500 Internal Server Error", r#"{"error":{"message":"no","type":"server_error"}}"#)
}

/// A route with one limits plugin before one vendor, whose tokens cost a thousandth of a dollar each.
fn policy(url: &str, plugin: &str, rule: &str) -> String {
    format!(
        "[plugins.limit]\nplugin = \"{plugin}\"\nconfig.rules = [{{ {rule} }}]\n\
         [vendors.v]\nadapter = \"openai-compatible\"\nbase_url = \"{url}\"\nmodels = [\"m\"]\n\
         [prices.\"v/m\"]\ninput = 1000\noutput = 1000\n\
         [[routes]]\nname = \"ai\"\npath = \"/v1\"\nlimits = [\"limit\"]\n"
    )
}

fn chat(max_tokens: u64, streaming: bool) -> Value {
    json!({"model": "m", "max_tokens": max_tokens, "stream": streaming, "messages": [{"role": "user", "content": "hi"}]})
}

async fn ask(rig: &Rig, max_tokens: u64) -> Reply {
    rig.post("/v1/chat/completions", &chat(max_tokens, false)).await
}

fn standing(reply: &Reply) -> [&str; 3] {
    ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"].map(|name| reply.header(name))
}

#[tokio::test]
async fn an_answer_says_what_is_left_and_a_refusal_when_to_come_again() {
    let fake = Fake::start(|_| answer()).await;
    let rule = "per = [\"subject\"], requests_per_minute = 60, burst = 10";
    let rig = Rig::start(&policy(&fake.url(), "token-bucket", rule)).await;
    for left in (0..10).rev() {
        let reply = ask(&rig, 9).await;
        assert_eq!((reply.status.as_u16(), standing(&reply)[..2].to_vec()), (200, vec!["60", &*left.to_string()]));
    }
    let reply = ask(&rig, 9).await;
    assert_eq!((reply.status.as_u16(), reply.header("penstock-failure")), (429, "limited"));
    assert_eq!((standing(&reply), reply.header("retry-after")), (["60", "0", "1"], "1"), "{}", reply.text());
    assert_eq!(fake.asked().len(), 10);
}

#[tokio::test]
async fn a_budget_is_charged_with_what_a_call_has_cost_and_reserves_what_it_may_cost() {
    let fake = Fake::start(|_| answer()).await;
    // 30 tokens cost 0.03; an answer of at most 40 tokens may cost some 0.065 with its question.
    let rig = Rig::start(&policy(&fake.url(), "budget", "usd = 0.15, window = \"month\"")).await;
    for call in 0..3 {
        assert_eq!(ask(&rig, 40).await.status.as_u16(), 200, "{call}");
    }
    let reply = ask(&rig, 40).await;
    assert_eq!(reply.status.as_u16(), 429, "0.06 is left, and it may cost more");
    assert!(reply.text().contains("the budget of 0.15 USD per month"), "{}", reply.text());
    assert!(reply.header("retry-after").parse::<u64>().unwrap() > 0);
    assert_eq!(standing(&reply), [""; 3], "money is not said in these headers");
    assert_eq!(ask(&rig, 10).await.status.as_u16(), 200, "a short answer has room");
}

#[tokio::test]
async fn a_call_that_no_vendor_served_costs_nothing() {
    let fake = Fake::start(|_| refusal()).await;
    let rig = Rig::start(&policy(&fake.url(), "budget", "usd = 0.1, tokens = 100, window = \"total\"")).await;
    for _ in 0..5 {
        assert_eq!(ask(&rig, 60).await.header("penstock-failure"), "upstream-refused");
    }
    let unknown = rig.post("/v1/chat/completions", &json!({"model": "no", "messages": []})).await;
    assert_eq!(unknown.status.as_u16(), 404);
}

#[tokio::test]
async fn who_hangs_up_pays_what_was_reserved_and_who_reads_to_the_end_what_was_used() {
    let event = |json: &str| chunk(format!("data: {json}\n\n").as_bytes());
    let gone = Arc::new(Notify::new());
    let tell = Arc::clone(&gone);
    let delta = r#"{"id":"x","choices":[{"index":0,"delta":{"content":"a"}}]}"#;
    let fake = Fake::start(move |_| vec![stream_head(), event(delta), Do::UntilClosed(Arc::clone(&tell))]).await;
    let rig = Rig::start(&policy(&fake.url(), "budget", "tokens = 200, window = \"hour\"")).await;
    let (status, _, mut body) = begin(rig.address, post("/v1/chat/completions", &chat(100, true))).await;
    assert_eq!(status.as_u16(), 200);
    body.frame().await.unwrap().unwrap();
    drop(body);
    gone.notified().await;
    let again = begin(rig.address, post("/v1/chat/completions", &chat(100, true))).await;
    assert_eq!(again.0.as_u16(), 429, "the first one took 100 tokens and those of its question");
}

#[tokio::test]
async fn calls_at_a_time_end_with_their_answers() {
    let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&asked), Arc::clone(&go));
    let script = move || [vec![Do::Tell(Arc::clone(&tell)), Do::Await(Arc::clone(&wait))], answer()].concat();
    let fake = Fake::start(move |_| script()).await;
    let rig = Rig::start(&policy(&fake.url(), "concurrency", "calls = 1")).await;
    let first = tokio::spawn(caller::ask(rig.address, post("/v1/chat/completions", &chat(9, false))));
    asked.notified().await;
    let refused = ask(&rig, 9).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "1"), "{}", refused.text());
    go.notify_one();
    assert_eq!(first.await.unwrap().status.as_u16(), 200);
    go.notify_one();
    assert_eq!(ask(&rig, 9).await.status.as_u16(), 200);
}

#[tokio::test]
async fn an_exhausted_vendor_is_passed_over_and_the_call_refused_when_none_is_left() {
    let (west, east) = (Fake::start(|_| answer()).await, Fake::start(|_| answer()).await);
    let policy = format!(
        "[plugins.quota]\nplugin = \"budget\"\nconfig.rules = [{{ per = [\"vendor\", \"model\"], requests = 2, window = \"day\" }}]\n\
         [vendors.west]\nadapter = \"openai-compatible\"\nbase_url = \"{}\"\nlimits = [\"quota\"]\n\
         [vendors.east]\nadapter = \"openai-compatible\"\nbase_url = \"{}\"\nlimits = [\"quota\"]\n\
         [models.m]\ntargets = [{{ vendor = \"west\" }}, {{ vendor = \"east\" }}]\n\
         [[routes]]\nname = \"ai\"\npath = \"/v1\"\n",
        west.url(),
        east.url()
    );
    let rig = Rig::start(&policy).await;
    for target in ["west/m", "west/m", "east/m", "east/m"] {
        assert_eq!(ask(&rig, 9).await.header("penstock-target"), target);
    }
    let reply = ask(&rig, 9).await;
    assert_eq!((reply.status.as_u16(), reply.header("penstock-failure")), (429, "limited"), "{}", reply.text());
    assert_eq!((west.asked().len(), east.asked().len()), (2, 2));
}

fn start(fake: &Fake, plugin: &str, rule: &str, more: &str) -> Program {
    let root = prepared(&format!("{ENDS}{more}{}", policy(&fake.url(), plugin, rule)));
    fs::write(root.path().join("plugins").join(format!("{plugin}.wasm")), built(plugin)).unwrap();
    Program::run(root)
}

/// Callers that ask until the gateway is killed: how many have read a whole answer, and how many have asked.
async fn killed_under_load(program: &mut Program) -> (u64, u64) {
    let (read, sent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let address = program.gateway;
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let (read, sent) = (Arc::clone(&read), Arc::clone(&sent));
            tokio::spawn(async move {
                loop {
                    sent.fetch_add(1, Ordering::SeqCst);
                    let reply = caller::ask(address, post("/v1/chat/completions", &chat(9, false))).await;
                    if reply.cut || reply.status.as_u16() != 200 {
                        return;
                    }
                    read.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    while read.load(Ordering::SeqCst) < 300 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    program.kill();
    for caller in callers {
        // A caller whose connection was refused has panicked.
        let _ = caller.await;
    }
    (read.load(Ordering::SeqCst), sent.load(Ordering::SeqCst))
}

/// What the budget has counted, before the call that asks.
async fn used(program: &Program) -> u64 {
    let reply = program.chat("m").await;
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    reply.header("ratelimit-limit").parse::<u64>().unwrap()
        - reply.header("ratelimit-remaining").parse::<u64>().unwrap()
        - 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_has_counted_every_answer_that_was_read_and_none_twice() {
    let fake = Fake::start(|_| answer()).await;
    let mut program = start(&fake, "budget", "requests = 1_000_000, window = \"total\"", "");
    let mut before = 0;
    for _ in 0..2 {
        let (read, sent) = killed_under_load(&mut program).await;
        program.again();
        let now = used(&program).await;
        let counted = now - before;
        assert!((read..=sent).contains(&counted), "{counted} were counted of {read} that were read and {sent} sent");
        before = now + 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_shared_store_a_killed_gateway_has_counted_every_answer_that_was_read() {
    let Some(mut server) = RedisServer::start("with_a_shared_store_a_killed_gateway") else { return };
    let fake = Fake::start(|_| answer()).await;
    let more = format!("[state]\nredis = \"{}\"\naway = \"open\"\ntimeout_ms = 1000\n", server.url());
    let mut program = start(&fake, "budget", "requests = 1_000_000, window = \"total\"", &more);
    let mut before = 0;
    for store_is_there in [true, false] {
        if !store_is_there {
            server.kill();
        }
        let (read, sent) = killed_under_load(&mut program).await;
        if !store_is_there {
            server.again();
        }
        program.again();
        let now = used(&program).await;
        let counted = now - before;
        assert!((read..=sent).contains(&counted), "{counted} were counted of {read} that were read and {sent} sent");
        before = now + 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_on_one_store_hold_one_limit_and_refuse_as_declared_when_it_is_away() {
    let Some(server) = RedisServer::start("two_gateways_on_one_store") else { return };
    let fake = Fake::start(|_| answer()).await;
    let more = format!("[state]\nredis = \"{}\"\naway = \"closed\"\ntimeout_ms = 1000\n", server.url());
    let programs = [0, 1].map(|_| start(&fake, "budget", "requests = 100, window = \"day\"", &more));
    let callers: Vec<_> = (0..64)
        .map(|caller| {
            let address = programs[caller % 2].gateway;
            tokio::spawn(async move {
                let mut served = 0;
                while caller::ask(address, post("/v1/chat/completions", &chat(9, false))).await.status.is_success() {
                    served += 1;
                }
                served
            })
        })
        .collect();
    let mut served = 0;
    for caller in callers {
        served += caller.await.unwrap();
    }
    assert_eq!(served, 100);
    server.freeze();
    let refused = programs[0].chat("m").await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("penstock-failure")),
        (503, "state-away"),
        "{}",
        refused.text()
    );
    server.thaw();
    programs[0].logged("the shared state is away");
    programs[0].logged("the shared state is there");
    assert_eq!(programs[0].chat("m").await.header("penstock-failure"), "limited");
}
