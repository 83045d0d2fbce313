// SPDX-License-Identifier: Apache-2.0
//! Services whose endpoints are found: by DNS, Consul, Kubernetes and the registry, each a small server on loopback that says what a test
//! wants. Whatever a source does, requests are answered as long as an endpoint is there.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use penstock::directory::Change;
use penstock::directory::audit::Actor;
use penstock::directory::document::Kind;
use penstock::directory::settings::Role;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::caller::get;
use crate::support::dns::{Dns, Zone};
use crate::support::fake::{self, Fake};
use crate::support::rig::{Rig, library};
use crate::support::sources::{Api, Consul};

/// A service whose endpoints are found in this way.
fn policy(discover: &str, more: &str) -> String {
    format!(
        "[services.s]\n{more}\n[services.s.discover]\nrefresh_ms_min = 100\n{discover}\n\
         [[routes]]\nname = \"plain\"\npath = \"/\"\nservice = \"s\"\n"
    )
}

/// An upstream at 127.0.0.`last` that answers with this number; all of them have one port.
async fn numbered(last: u8, port: u16) -> u16 {
    let listener = TcpListener::bind((format!("127.0.0.{last}"), port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(Fake::on(listener, move |_| fake::whole("200 OK", "text/plain", last.to_string().as_bytes())));
    port
}

/// Who answers, of so many requests; a request that fails is told as what it is.
async fn who(rig: &Rig, requests: usize) -> BTreeSet<String> {
    let mut who = BTreeSet::new();
    for _ in 0..requests {
        let reply = rig.ask(get("/x")).await;
        who.insert(if reply.status == 200 { reply.text() } else { reply.status.to_string() });
    }
    who
}

fn set(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

/// Waits until exactly these answer.
async fn until(rig: &Rig, wanted: &[&str]) {
    let begun = Instant::now();
    loop {
        let found = who(rig, 8).await;
        if found == set(wanted) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{found:?} instead of {wanted:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn metric(rig: &Rig, line: &str) -> Option<u64> {
    let text = rig.gateway.metrics.exposition().unwrap();
    let line = text.lines().find_map(|found| found.strip_prefix(line));
    line.and_then(|value| value.trim().parse().ok())
}

fn discoveries(rig: &Rig, outcome: &str) -> u64 {
    metric(rig, &format!("penstock_discoveries_total{{outcome=\"{outcome}\",service=\"s\"}}")).unwrap_or(0)
}

/// Requests without a pause until it is dropped; answers that are not 200 are counted.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    failed: Arc<Mutex<Vec<String>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(rig: &Rig) -> Self {
        let (stop, sent, failed) = (Arc::default(), Arc::default(), Arc::default());
        let mut load = Self { stop, sent, failed, tasks: Vec::new() };
        for number in 0..4 {
            let (stop, sent, failed) = (Arc::clone(&load.stop), Arc::clone(&load.sent), Arc::clone(&load.failed));
            let address = rig.address;
            load.tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let body = if number % 2 == 0 { Bytes::new() } else { Bytes::from_static(b"some text") };
                    let request = Request::post("/x").body(body).unwrap();
                    let reply = crate::support::caller::ask(address, request).await;
                    sent.fetch_add(1, Ordering::Relaxed);
                    if reply.status != 200 || reply.cut {
                        failed.lock().unwrap().push(format!("{} {}", reply.status, reply.text()));
                    }
                }
            }));
        }
        load
    }

    async fn none_failed(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let failed = self.failed.lock().unwrap();
        assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed.first());
        assert!(self.sent.load(Ordering::Relaxed) > 50);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_a_name_are_endpoints_and_change_with_it_under_load() {
    let port = numbered(1, 0).await;
    numbered(2, port).await;
    numbered(3, port).await;
    let dns = Dns::start(Zone::new().a("api.test", 0, &[1, 2])).await;
    let discover = format!("dns = \"api.test:{port}\"\nservers = [\"{}\"]", dns.address);
    let rig = Rig::start(&policy(&discover, "[services.s.breaker]\nslow_start_ms = 0\n")).await;
    assert_eq!(who(&rig, 8).await, set(&["1", "2"]), "the first request waits for the first answer");
    let load = Load::start(&rig);
    dns.says(Zone::new().a("api.test", 0, &[2, 3]));
    until(&rig, &["2", "3"]).await;
    // The source is away, then says nothing, then garbage: who was there stays.
    dns.is_silent(true);
    tokio::time::sleep(Duration::from_millis(300)).await;
    until(&rig, &["2", "3"]).await;
    dns.is_silent(false);
    dns.says(Zone::new());
    let begun = Instant::now();
    while discoveries(&rig, "empty") < 2 {
        assert!(begun.elapsed() < Duration::from_secs(15), "nothing was told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until(&rig, &["2", "3"]).await;
    dns.is_garbage(true);
    while discoveries(&rig, "failed") < 1 {
        assert!(begun.elapsed() < Duration::from_secs(25), "nothing was told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until(&rig, &["2", "3"]).await;
    dns.is_garbage(false);
    dns.says(Zone::new().a("api.test", 0, &[1]));
    until(&rig, &["1"]).await;
    load.none_failed().await;
}

#[tokio::test]
async fn a_name_is_not_asked_again_before_its_ttl_is_over_and_is_what_upstreams_are_told() {
    let fake = Fake::start(|_| fake::whole("200 OK", "text/plain", b"here")).await;
    let dns = Dns::start(Zone::new().a("api.test", 30, &[1])).await;
    let discover =
        format!("dns = \"api.test:{}\"\npath = \"/base\"\nservers = [\"{}\"]", fake.address.port(), dns.address);
    let rig = Rig::start(&policy(&discover, "")).await;
    assert_eq!(who(&rig, 2).await, set(&["here"]));
    let asked = dns.asked();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(dns.asked(), asked, "the answer holds for 30 s");
    let last = fake.last();
    let host = format!("api.test:{}", fake.address.port());
    assert_eq!((last.line.as_str(), last.header("host")), ("GET /base/x", Some(host.as_str())));
}

#[tokio::test]
async fn service_records_say_port_weight_and_priority() {
    let ports = [numbered(1, 0).await, numbered(2, 0).await, numbered(3, 0).await];
    let zone = || Zone::new().a("one.test", 0, &[1]).a("two.test", 0, &[2]).a("three.test", 0, &[3]);
    let dns = Dns::start(
        zone()
            .srv("_http._tcp.test", (1, 300, ports[0], "one.test"))
            .srv("_http._tcp.test", (1, 100, ports[1], "two.test"))
            .srv("_http._tcp.test", (2, 100, ports[2], "three.test")),
    )
    .await;
    let discover = format!("srv = \"_http._tcp.test\"\nservers = [\"{}\"]", dns.address);
    let rig = Rig::start(&policy(&discover, "balance = \"weighted\"\n[services.s.breaker]\nslow_start_ms = 0\n")).await;
    let mut ones = 0;
    for _ in 0..200 {
        let text = rig.ask(get("/x")).await.text();
        assert!(text == "1" || text == "2", "{text}: the higher priority number waits");
        ones += usize::from(text == "1");
    }
    assert!((110..190).contains(&ones), "{ones}");
    dns.says(zone().srv("_http._tcp.test", (2, 100, ports[2], "three.test")));
    until(&rig, &["3"]).await;
}

#[tokio::test]
async fn an_answer_that_does_not_fit_into_a_datagram_is_asked_for_again() {
    let port = numbered(1, 0).await;
    let dns = Dns::start(Zone::new().a("api.test", 0, &[1])).await;
    dns.is_long(true);
    let discover = format!("dns = \"api.test:{port}\"\nservers = [\"{}\"]", dns.address);
    let rig = Rig::start(&policy(&discover, "")).await;
    assert_eq!(who(&rig, 2).await, set(&["1"]));
    assert!(dns.asked_by_tcp() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_in_consul_are_followed_by_blocking_queries() {
    let ports = [numbered(1, 0).await, numbered(2, 0).await, numbered(3, 0).await];
    let at = |number: usize| (format!("127.0.0.{number}"), ports[number - 1]);
    let consul = Consul::start(&[at(1), at(2)]).await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "canary-consul-token\n").unwrap();
    let discover = format!(
        "consul = {{ url = \"{}\", service = \"web app\", tag = \"v1\", token = \"file:{}\" }}",
        consul.url(),
        token.path().display()
    );
    let rig = Rig::start(&policy(&discover, "[services.s.breaker]\nslow_start_ms = 0\n")).await;
    assert_eq!(who(&rig, 8).await, set(&["1", "2"]));
    let load = Load::start(&rig);
    consul.says(&[at(2), at(3)]);
    until(&rig, &["2", "3"]).await;
    let asked = consul.asked();
    assert!(asked[0].0.starts_with("/v1/health/service/web%20app?passing=1&tag=v1"), "{asked:?}");
    assert!(asked.iter().skip(1).all(|(path, _)| path.contains("index=") && path.contains("wait=")), "{asked:?}");
    assert!(asked.iter().all(|(_, token)| token == "canary-consul-token"));
    assert!(asked.len() < 8, "an answer comes when something has changed, not before: {}", asked.len());
    for fault in ["500", "garbage", "close"] {
        consul.has(fault);
        let failed = discoveries(&rig, "failed");
        consul.says(&[at(1)]); // ends the wait; the next question meets the fault
        let begun = Instant::now();
        while discoveries(&rig, "failed") == failed {
            assert!(begun.elapsed() < Duration::from_secs(10), "{fault}: nothing was told");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        consul.has("");
        until(&rig, &["1"]).await;
        consul.says(&[]);
        tokio::time::sleep(Duration::from_millis(300)).await;
        until(&rig, &["1"]).await;
        consul.says(&[at(2), at(3)]);
        until(&rig, &["2", "3"]).await;
    }
    load.none_failed().await;
    assert!(!rig.gateway.metrics.exposition().unwrap().contains("canary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_slices_in_kubernetes_are_listed_and_watched() {
    let port = numbered(1, 0).await;
    for last in 2..=4 {
        numbered(last, port).await;
    }
    let api = Api::start(port, &[("a", &[1]), ("b", &[2])]).await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "canary-account").unwrap();
    let discover = format!(
        "kubernetes = {{ namespace = \"shop\", service = \"cart\", port = \"http\", url = \"{}\", token = \"file:{}\" }}",
        api.url(),
        token.path().display()
    );
    let rig = Rig::start(&policy(&discover, "[services.s.breaker]\nslow_start_ms = 0\n")).await;
    assert_eq!(who(&rig, 8).await, set(&["1", "2"]));
    let load = Load::start(&rig);
    api.modify("a", &[1, 3]);
    until(&rig, &["1", "2", "3"]).await;
    api.unready("a", 1);
    until(&rig, &["2", "3"]).await;
    api.delete("b");
    until(&rig, &["3"]).await;
    api.forget(&[("c", &[1, 4])]); // 410 Gone: another list
    until(&rig, &["1", "4"]).await;
    api.cut();
    api.modify("c", &[4, 2]);
    until(&rig, &["2", "4"]).await;
    api.garbage();
    api.modify("c", &[1, 2]);
    until(&rig, &["1", "2"]).await;
    api.delete("c");
    tokio::time::sleep(Duration::from_millis(400)).await;
    until(&rig, &["1", "2"]).await;
    load.none_failed().await;
    let asked = api.asked();
    let list =
        "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dcart";
    assert_eq!(asked[0].0, list);
    assert!(asked[1].0.starts_with(&format!("{list}&watch=true&")), "{asked:?}");
    assert!(asked.iter().all(|(_, token)| token == "Bearer canary-account"), "{asked:?}");
}

#[tokio::test]
async fn services_that_register_themselves_are_asked_while_they_are_heard_of() {
    let ports = [numbered(1, 0).await, numbered(2, 0).await];
    let rig = Rig::start(&policy("registry = \"web\"", "[services.s.breaker]\nslow_start_ms = 0\n")).await;
    for (number, port) in ports.iter().enumerate() {
        let (id, url) = (format!("s{number}"), format!("http://127.0.0.{}:{port}", number + 1));
        let settings = json!({ "name": "web", "url": url, "ttl_s": 2 });
        let change = Change::Put { kind: Kind::Service, id: id.clone(), settings, expected: None };
        let actor = Actor { name: "test".to_owned(), role: Role::Admin };
        rig.gateway.directory.change(actor, change).await.unwrap();
        rig.beats.beat(&id);
    }
    until(&rig, &["1", "2"]).await;
    let begun = Instant::now();
    while who(&rig, 6).await != set(&["2"]) {
        rig.beats.beat("s1");
        assert!(begun.elapsed() < Duration::from_secs(10), "the silent one is still asked");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert_eq!(who(&rig, 6).await, set(&["2"]), "the last one stays, however silent");
    rig.beats.beat("s0");
    until(&rig, &["1"]).await;
}

#[tokio::test]
async fn a_reload_keeps_what_was_found_and_a_change_of_the_source_finds_anew() {
    let port = numbered(1, 0).await;
    numbered(2, port).await;
    let dns = Dns::start(Zone::new().a("one.test", 30, &[1]).a("two.test", 30, &[2])).await;
    let of = |name: &str| policy(&format!("dns = \"{name}:{port}\"\nservers = [\"{}\"]", dns.address), "");
    let rig = Rig::start(&of("one.test")).await;
    assert_eq!(who(&rig, 2).await, set(&["1"]));
    let asked = dns.asked();
    rig.installs(&of("one.test"), library());
    assert_eq!(who(&rig, 2).await, set(&["1"]));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(dns.asked(), asked, "nothing was asked anew");
    rig.installs(&of("two.test"), library());
    assert_eq!(who(&rig, 2).await, set(&["2"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_its_probes_is_passed_over_until_it_is_well() {
    let is_ill = Arc::new(AtomicBool::new(false));
    let ill = Arc::clone(&is_ill);
    let one = Fake::start(move |asked| {
        let status = if asked.line.ends_with("/healthz") && ill.load(Ordering::Relaxed) { "500 No" } else { "200 OK" };
        fake::whole(status, "text/plain", b"1")
    })
    .await;
    let two = Fake::start(|_| fake::whole("200 OK", "text/plain", b"2")).await;
    let policy = format!(
        "[services.s]\nendpoints = [\"{}\", {{ url = \"{}\", weight = 2 }}]\n[services.s.breaker]\nslow_start_ms = 0\n\
         [services.s.probe]\npath = \"/healthz\"\nevery_ms = 100\ntimeout_ms = 1000\n\
         [[routes]]\nname = \"plain\"\npath = \"/\"\nservice = \"s\"\n",
        one.url(),
        two.url()
    );
    let rig = Rig::start(&policy).await;
    assert_eq!(who(&rig, 8).await, set(&["1", "2"]));
    is_ill.store(true, Ordering::Relaxed);
    until(&rig, &["2"]).await;
    is_ill.store(false, Ordering::Relaxed);
    until(&rig, &["1", "2"]).await;
}

#[tokio::test]
async fn a_body_goes_to_the_next_endpoint_when_the_first_cannot_be_reached() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let fake = Fake::start(|asked| fake::whole("200 OK", "text/plain", &asked.body.clone())).await;
    let policy = format!(
        "[services.s]\nendpoints = [\"{dead}\", \"{}\"]\n[[routes]]\nname = \"plain\"\npath = \"/\"\nservice = \"s\"\n",
        fake.url()
    );
    let rig = Rig::start(&policy).await;
    for number in 0..8 {
        let text = format!("body {number}");
        let reply = rig.ask(Request::post("/x").body(Bytes::from(text.clone())).unwrap()).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, text));
    }
}

#[tokio::test]
async fn requests_that_are_alike_go_to_the_same_endpoint() {
    let mut urls = Vec::new();
    for number in 0..4_u8 {
        let fake = Fake::start(move |_| fake::whole("200 OK", "text/plain", &[b'0' + number])).await;
        urls.push(fake.url());
    }
    let policy = format!(
        "[services.s]\nendpoints = {urls:?}\nbalance = \"hash\"\nhash = \"header:x-user\"\n\
         [[routes]]\nname = \"plain\"\npath = \"/\"\nservice = \"s\"\n"
    );
    let rig = Rig::start(&policy).await;
    let mut used = BTreeSet::new();
    for user in 0..16 {
        let mut answers = BTreeSet::new();
        for _ in 0..4 {
            let request = Request::get("/x").header("x-user", user.to_string()).body(Bytes::new()).unwrap();
            answers.insert(rig.ask(request).await.text());
        }
        assert_eq!(answers.len(), 1, "{user}");
        used.extend(answers);
    }
    assert!(used.len() > 2, "{used:?}");
}

#[test]
fn what_is_wrong_with_a_service_is_told_with_its_place() {
    let cases = [
        ("[services.s.discover]\n", "does not say where to ask"),
        ("[services.s.discover]\ndns = \"a:1\"\nsrv = \"b\"\n", "more than one place"),
        ("[services.s.discover]\ndns = \"a\"\n", "has no port"),
        ("[services.s.discover]\nsrv = \"a:1\"\n", "says the port itself"),
        ("[services.s.discover]\ndns = \"a:1\"\nrefresh_ms_min = 1\n", "refresh_ms_min"),
        ("endpoints = [\"http://x\"]\n[services.s.discover]\ndns = \"a:1\"\n", "no place beside"),
        ("proxy = \"http://p:1\"\n[services.s.discover]\ndns = \"a:1\"\n", "no place beside"),
        ("endpoints = [\"http://x\"]\nhash = \"client\"\n", "balance"),
        ("endpoints = [\"http://x\"]\nbalance = \"hash\"\nhash = \"ip\"\n", "nothing to go by"),
        ("endpoints = [\"http://x\"]\n[services.s.probe]\npath = \"x\"\n", "no path"),
        ("[services.s.discover]\nconsul = { url = \"x\", service = \"s\" }\n", "URL"),
        ("[services.s.discover]\nconsul = { url = \"http://x\", service = \"s\", token = \"sk-planted\" }\n", "named"),
    ];
    for (service, wanted) in cases {
        let problems = crate::support::rig::problems(&format!("[services.s]\n{service}"));
        assert!(problems.contains(wanted) && problems.contains("policy.toml:"), "{service}: {problems}");
        assert!(!problems.contains("sk-planted"));
    }
}
