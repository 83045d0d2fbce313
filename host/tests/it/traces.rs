// SPDX-License-Identifier: Apache-2.0
//! Traces as a collector gets them: the tree of spans, what they say, and what they never say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Request;
use penstock::traces::otlp;
use prost::Message;
use serde_json::{Value, json};

use crate::net_proxies::proxy;
use crate::support::caller::{self, Reply, post};
use crate::support::fake::{self, Asked, Fake};
use crate::support::program::{PATIENCE, Program};

const PARENT: (&str, &str) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
const KEY: &str = "sk-planted-vendor-key-0123456789";
const PROMPT: &str = "planted-prompt-of-a-caller";
const ANSWER: &str = "planted-answer-of-a-vendor";

const STREAM: &str = "data: {\"id\":\"c-2\",\"model\":\"m-2024\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"planted-answer-of-a-vendor\"},\"finish_reason\":null}]}\n\n\
    data: {\"id\":\"c-2\",\"model\":\"m-2024\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n\
    data: {\"id\":\"c-2\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n";

/// A span as it was told, with its attributes as JSON.
#[derive(Debug)]
struct Told {
    message: otlp::SpanMessage,
    attributes: BTreeMap<String, Value>,
}

impl Told {
    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn id(&self) -> String {
        Self::hex(&self.message.span_id)
    }

    fn parent(&self) -> String {
        Self::hex(&self.message.parent_span_id)
    }
}

fn json_of(value: otlp::AnyValue) -> Value {
    match value.value.expect("a value") {
        otlp::Any::String(text) => json!(text),
        otlp::Any::Bool(is) => json!(is),
        otlp::Any::Int(number) => json!(number),
        otlp::Any::Double(number) => json!(number),
        otlp::Any::Array(array) => array.values.into_iter().map(json_of).collect(),
    }
}

fn attributes(pairs: Vec<otlp::KeyValue>) -> BTreeMap<String, Value> {
    pairs.into_iter().map(|pair| (pair.key, json_of(pair.value.expect("a value")))).collect()
}

/// Everything that a collector has been told.
fn told(collector: &Fake) -> Vec<Told> {
    let mut told = Vec::new();
    for asked in collector.asked() {
        assert_eq!(asked.line, "POST /v1/traces");
        assert_eq!(asked.header("content-type"), Some("application/x-protobuf"));
        let request = otlp::Request::decode(&*asked.body).expect("a request of OTLP");
        for resource in request.resource_spans {
            let who = attributes(resource.resource.expect("a resource").attributes);
            assert_eq!(who["service.name"], "gate-7");
            for spans in resource.scope_spans {
                let spans = spans.spans.into_iter();
                told.extend(spans.map(|message| Told { attributes: attributes(message.attributes.clone()), message }));
            }
        }
    }
    told
}

async fn told_at_least(collector: &Fake, requests: usize) -> Vec<Told> {
    let begun = Instant::now();
    loop {
        let told = told(collector);
        if told.iter().filter(|span| span.message.kind == 2).count() >= requests {
            return told;
        }
        assert!(begun.elapsed() < PATIENCE, "the collector was told {} spans", told.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn policy(collector: &str, upstream: &str, further: &str) -> String {
    format!(
        r#"
[admin]
address = "127.0.0.1:0"
metrics_open = true
[[listeners]]
address = "127.0.0.1:0"
[traces]
endpoint = "{collector}"
service_name = "gate-7"
interval_ms = 20
{further}
[secrets]
key = "file:KEYFILE"
[vendors.flaky]
adapter = "openai-compatible"
base_url = "{upstream}/flaky"
[vendors.acme]
adapter = "openai-compatible"
base_url = "{upstream}/acme"
key = "file:KEYFILE"
[models.m]
targets = [{{ vendor = "flaky" }}, {{ vendor = "acme", model = "m-1" }}]
[services.plain]
endpoints = ["{upstream}"]
[[routes]]
name = "ai"
path = "/v1"
[[routes]]
name = "files"
path = "/files"
service = "plain"
"#
    )
}

fn start(policy: &str) -> (Program, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, KEY).unwrap();
    (Program::start(&policy.replace("KEYFILE", &file.display().to_string())), folder)
}

fn vendor(asked: &Asked) -> Vec<fake::Do> {
    if asked.line.starts_with("GET") {
        return fake::whole("200 OK", "text/plain", b"a file");
    }
    if asked.line.contains("flaky") {
        return fake::json("503 Service Unavailable", r#"{"error":{"message":"later"}}"#);
    }
    if asked.json()["stream"] == true {
        return fake::stream(STREAM.as_bytes());
    }
    let body = json!({"id": "c-1", "object": "chat.completion", "model": "m-2024", "choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": ANSWER}}], "usage": {"prompt_tokens": 5, "completion_tokens": 2}});
    fake::json("200 OK", &body.to_string())
}

async fn chat(program: &Program, streaming: bool, headers: &[(&str, &str)]) -> Reply {
    let body = json!({"model": "m", "stream": streaming, "messages": [{"role": "user", "content": PROMPT}]});
    let mut request = post("/v1/chat/completions", &body);
    for (name, value) in headers {
        request.headers_mut().append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    caller::ask(program.gateway, request).await
}

#[tokio::test]
async fn a_request_is_a_tree_of_spans_that_goes_on_where_the_caller_began() {
    let (collector, upstream) = (Fake::start(|_| fake::whole("200 OK", "a/b", b"")).await, Fake::start(vendor).await);
    let (program, _key) = start(&policy(&collector.url(), &upstream.url(), ""));
    let parent = format!("00-{}-{}-01", PARENT.0, PARENT.1);
    let sent = [("traceparent", parent.as_str()), ("tracestate", "a=1,b=2"), ("baggage", "user=planted-baggage")];
    assert_eq!(chat(&program, false, &sent).await.status, 200);
    let spans = told_at_least(&collector, 1).await;
    assert!(
        spans.iter().all(|span| Told::hex(&span.message.trace_id) == PARENT.0 && span.message.trace_state == "a=1,b=2")
    );
    let root = spans.iter().find(|span| span.message.kind == 2).unwrap();
    assert_eq!((root.parent().as_str(), root.message.name.as_str()), (PARENT.1, "POST ai"));
    assert_eq!(root.attributes["http.response.status_code"], 200);
    assert_eq!(root.attributes["url.path"], "/v1/chat/completions");
    let children: Vec<_> = spans.iter().filter(|span| span.parent() == root.id()).collect();
    assert_eq!(children.len() + 1, spans.len(), "all are parts of the request");
    let names: Vec<_> = children.iter().map(|span| span.message.name.as_str()).collect();
    assert_eq!(names, ["filters", "auth", "body", "limits", "routing", "chat m", "chat m-1"]);
    for span in &spans {
        let (begin, end) = (span.message.start_time_unix_nano, span.message.end_time_unix_nano);
        let (first, last) = (root.message.start_time_unix_nano, root.message.end_time_unix_nano);
        assert!(first <= begin && begin <= end && end <= last, "{span:?}");
    }
    let (failed, good) = (children[5], children[6]);
    assert_eq!(failed.attributes["error.type"], "upstream-refused");
    assert_eq!((failed.message.kind, failed.message.status.as_ref().map(|status| status.code)), (3, Some(2)));
    for (name, value) in [
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.provider.name", json!("acme")),
        ("gen_ai.request.model", json!("m-1")),
        ("gen_ai.response.model", json!("m-2024")),
        ("gen_ai.response.id", json!("c-1")),
        ("gen_ai.response.finish_reasons", json!(["stop"])),
        ("gen_ai.usage.input_tokens", json!(5)),
        ("gen_ai.usage.output_tokens", json!(2)),
        ("server.address", json!("127.0.0.1")),
        ("server.port", json!(upstream.address.port())),
    ] {
        assert_eq!(good.attributes.get(name), Some(&value), "{name}: {good:?}");
    }
    let asked = upstream.asked();
    for (asked, span) in asked.iter().zip([failed, good]) {
        let goes_on = format!("00-{}-{}-01", PARENT.0, span.id());
        assert_eq!(asked.header("traceparent"), Some(goes_on.as_str()), "{}", asked.line);
        assert_eq!((asked.header("tracestate"), asked.header("baggage")), (Some("a=1,b=2"), None));
    }
    let line = program.line(|line| line["target"] == "access");
    assert_eq!(line["trace"], PARENT.0);
}

#[tokio::test]
async fn a_stream_tells_when_it_began_and_no_span_holds_a_word_or_a_key() {
    let (collector, upstream) = (Fake::start(|_| fake::whole("200 OK", "a/b", b"")).await, Fake::start(vendor).await);
    let headers = "[traces.headers]\nx-collector = \"file:KEYFILE\"";
    let (program, _key) = start(&policy(&collector.url(), &upstream.url(), headers));
    let reply = chat(&program, true, &[("authorization", "Bearer planted-key-of-a-caller")]).await;
    assert!(reply.text().contains(ANSWER) && reply.text().ends_with("data: [DONE]\n\n"), "{}", reply.text());
    let service = Request::get("/files/planted-path?q=planted-query").body("".into()).unwrap();
    assert_eq!(caller::ask(program.gateway, service).await.text(), "a file");
    let spans = told_at_least(&collector, 2).await;
    let good = spans.iter().find(|span| span.message.name == "chat m-1").unwrap();
    for (name, value) in [
        ("gen_ai.request.stream", json!(true)),
        ("gen_ai.response.id", json!("c-2")),
        ("gen_ai.response.finish_reasons", json!(["length"])),
        ("gen_ai.usage.input_tokens", json!(7)),
        ("gen_ai.usage.output_tokens", json!(3)),
    ] {
        assert_eq!(good.attributes.get(name), Some(&value), "{name}: {good:?}");
    }
    assert!(good.attributes["gen_ai.response.time_to_first_chunk"].as_f64().unwrap() > 0.0);
    assert_eq!(good.message.events[0].name, "gen_ai.first_chunk");
    let plain = spans.iter().find(|span| span.message.name == "plain").unwrap();
    assert_eq!((plain.attributes["peer.service"].clone(), plain.message.kind), (json!("plain"), 3));
    assert!(upstream.last().header("traceparent").is_some());
    for asked in collector.asked() {
        assert_eq!(asked.header("x-collector"), Some(KEY), "the collector's own header");
        let body = String::from_utf8_lossy(&asked.body).into_owned();
        assert!(!body.contains("planted"), "{body}");
    }
}

#[tokio::test]
async fn who_is_traced_is_the_callers_decision_or_a_share() {
    let (collector, upstream) = (Fake::start(|_| fake::whole("200 OK", "a/b", b"")).await, Fake::start(vendor).await);
    let (program, _key) = start(&policy(&collector.url(), &upstream.url(), "sample_ratio = 0.0"));
    let with_flags = |flags: &str| format!("00-{}-{}-{flags}", PARENT.0, PARENT.1);
    chat(&program, false, &[]).await;
    assert_eq!(upstream.last().header("traceparent"), None, "a request that is not traced sends nothing on");
    chat(&program, false, &[("traceparent", &with_flags("00"))]).await;
    chat(&program, false, &[("traceparent", &with_flags("01"))]).await;
    let spans = told_at_least(&collector, 1).await;
    assert_eq!(spans.iter().filter(|span| span.message.kind == 2).count(), 1);
}

#[tokio::test]
async fn a_collector_that_is_away_costs_traces_and_no_request() {
    let upstream = Fake::start(vendor).await;
    let further = "queue_max = 4\nbatch_spans_max = 8\ntimeout_ms = 200";
    let (program, _key) = start(&policy("http://127.0.0.1:9", &upstream.url(), further));
    let begun = Instant::now();
    for _ in 0..40 {
        assert_eq!(chat(&program, false, &[]).await.status, 200);
    }
    assert!(begun.elapsed() < PATIENCE);
    let metrics = caller::ask(program.gateway, caller::get("/metrics")).await.text();
    let dropped =
        metrics.lines().find_map(|line| line.strip_prefix("penstock_spans_total{outcome=\"dropped-queue\"} "));
    let dropped: u64 = dropped.expect("drops are counted").parse().unwrap();
    assert!(dropped > 100, "{dropped} of the spans of 40 requests, with room for 4 of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_told_yet_is_told_when_the_gateway_stops() {
    let (collector, upstream) = (Fake::start(|_| fake::whole("200 OK", "a/b", b"")).await, Fake::start(vendor).await);
    let policy = policy(&collector.url(), &upstream.url(), "").replace("interval_ms = 20", "interval_ms = 600000");
    let (mut program, _key) = start(&policy);
    chat(&program, false, &[]).await;
    assert!(collector.asked().is_empty());
    program.signal(rustix::process::Signal::TERM);
    assert_eq!(program.exit_code(), Some(0));
    assert_eq!(told(&collector).iter().filter(|span| span.message.kind == 2).count(), 1);
}

#[tokio::test]
async fn two_targets_at_a_time_have_a_span_each_and_the_collector_may_be_behind_a_proxy() {
    let upstream = Fake::start(|asked| match asked.line.contains("flaky") {
        true => vec![fake::Do::UntilClosed(Arc::default())],
        false => vendor(asked),
    });
    let (collector, upstream) = (Fake::start(|_| fake::whole("200 OK", "a/b", b"")).await, upstream.await);
    let connected = Arc::new(AtomicUsize::new(0));
    let file = tempfile::NamedTempFile::new().unwrap();
    let url = format!("http://ann:hunter%402@{}", proxy(Arc::clone(&connected)).await);
    std::fs::write(file.path(), url).unwrap();
    let further = format!("proxy = \"file:{}\"", file.path().display());
    let policy = policy(&collector.url(), &upstream.url(), &further);
    let (program, _key) = start(&policy.replace("[services.plain]", "hedge = { after_ms = 30 }\n[services.plain]"));
    assert_eq!(chat(&program, false, &[]).await.status, 200);
    let spans = told_at_least(&collector, 1).await;
    let tries: Vec<_> = spans.iter().filter(|span| span.message.kind == 3).collect();
    let [outrun, good] = &tries[..] else { panic!("two tries: {tries:?}") };
    assert_eq!([outrun, good].map(|span| span.message.name.as_str()), ["chat m", "chat m-1"]);
    assert_eq!(
        (outrun.attributes.get("penstock.outrun"), good.attributes.get("penstock.outrun")),
        (Some(&json!(true)), None)
    );
    assert!(!outrun.attributes.contains_key("error.type") && good.attributes["gen_ai.response.id"] == "c-1");
    for (asked, span) in upstream.asked().iter().zip([outrun, good]) {
        assert!(asked.header("traceparent").unwrap().contains(&span.id()), "{}", asked.line);
    }
    assert!(connected.load(Ordering::Relaxed) > 0);
}
