// SPDX-License-Identifier: Apache-2.0
//! A Consul and a Kubernetes API server on loopback, as far as a gateway sees of them: the one answers blocking queries, the other lists
//! and watches.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::fake::{Asked, read};

/// Paths and credentials of what was asked.
type Log = Arc<Mutex<Vec<(String, String)>>>;

fn note(log: &Log, asked: &Asked, credential: &str) -> String {
    let path = asked.line.trim_start_matches("GET ").to_owned();
    let credential = asked.header(credential).unwrap_or_default().to_owned();
    log.lock().unwrap().push((path.clone(), credential));
    path
}

fn whole(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// An index, and the instances that pass by then.
type Said = Arc<watch::Sender<(u64, Vec<(String, u16)>)>>;

/// A Consul.
pub struct Consul {
    address: SocketAddr,
    said: Said,
    fault: Arc<Mutex<String>>,
    log: Log,
}

impl Consul {
    /// Listens; these instances pass their checks.
    pub async fn start(instances: &[(String, u16)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let said: Said = Arc::new(watch::Sender::new((7, instances.to_vec())));
        let (fault, log): (Arc<Mutex<String>>, Log) = (Arc::default(), Arc::default());
        let consul = Self { address, said: Arc::clone(&said), fault: Arc::clone(&fault), log: Arc::clone(&log) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Self::converse(stream, Arc::clone(&said), Arc::clone(&fault), Arc::clone(&log)));
            }
        });
        consul
    }

    async fn converse(mut stream: TcpStream, said: Said, fault: Arc<Mutex<String>>, log: Log) {
        let mut buffer = Vec::new();
        while let Some(asked) = read(&mut stream, &mut buffer).await {
            let path = note(&log, &asked, "x-consul-token");
            let index = path.split_once("index=").map_or("", |(_, rest)| rest);
            let index: u64 = index.split('&').next().unwrap_or_default().parse().unwrap_or(0);
            let mut news = said.subscribe();
            let wait = tokio::time::timeout(Duration::from_secs(20), news.wait_for(|(now, _)| *now > index));
            drop(wait.await);
            let (index, instances) = said.borrow().clone();
            let fault = fault.lock().unwrap().clone();
            let answer = match fault.as_str() {
                "500" => whole("500 Internal Server Error", "", "no leader"),
                "garbage" => whole("200 OK", "x-consul-index: 9\r\n", "[{\"Node\":"),
                "close" => return,
                _ => {
                    let instance = |(host, port): &(String, u16)| {
                        json!({ "Node": { "Node": "n", "Address": "192.0.2.1" }, "Checks": [],
                                "Service": { "Service": "web", "Address": host, "Port": port,
                                             "Weights": { "Passing": 1, "Warning": 1 } } })
                    };
                    let list = Value::Array(instances.iter().map(instance).collect()).to_string();
                    whole("200 OK", &format!("x-consul-index: {index}\r\n"), &list)
                }
            };
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }

    /// Base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on these pass; whoever waits is told.
    pub fn says(&self, instances: &[(String, u16)]) {
        self.said.send_modify(|said| *said = (said.0 + 1, instances.to_vec()));
    }

    /// From now on answers are `500`, `garbage`, `close` or, with nothing, good.
    pub fn has(&self, fault: &str) {
        fault.clone_into(&mut self.fault.lock().unwrap());
    }

    /// What it was asked.
    pub fn asked(&self) -> Vec<(String, String)> {
        self.log.lock().unwrap().clone()
    }
}

/// A slice: endpoints by the last byte of their address, with whether they are ready.
type Slices = BTreeMap<String, BTreeMap<u8, bool>>;

struct Cluster {
    slices: Mutex<Slices>,
    /// What watches are told: version and line. Earlier ones than the first are forgotten.
    events: watch::Sender<Vec<(u64, String)>>,
    /// Watches of a lower number end at once.
    cut: watch::Sender<u64>,
    port: u16,
    log: Log,
}

/// A Kubernetes API server with the slices of one service.
pub struct Api {
    address: SocketAddr,
    cluster: Arc<Cluster>,
}

impl Api {
    /// Listens. Every endpoint has this port.
    pub async fn start(port: u16, slices: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let slices = Mutex::new(slices_of(slices));
        let (events, cut) = (watch::Sender::new(vec![(10, String::new())]), watch::Sender::new(0));
        let cluster = Arc::new(Cluster { slices, events, cut, port, log: Log::default() });
        let serving = Arc::clone(&cluster);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&serving).converse(stream));
            }
        });
        Self { address, cluster }
    }

    /// Base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The endpoints of a slice are these.
    pub fn modify(&self, name: &str, lasts: &[u8]) {
        let ready = lasts.iter().map(|last| (*last, true)).collect();
        self.cluster.slices.lock().unwrap().insert(name.to_owned(), ready);
        self.cluster.tell("MODIFIED", name);
    }

    /// An endpoint is ready no more: it terminates.
    pub fn unready(&self, name: &str, last: u8) {
        self.cluster.slices.lock().unwrap().get_mut(name).unwrap().insert(last, false);
        self.cluster.tell("MODIFIED", name);
    }

    /// A slice is gone.
    pub fn delete(&self, name: &str) {
        self.cluster.tell("DELETED", name);
        self.cluster.slices.lock().unwrap().remove(name);
    }

    /// There are these slices, and how they came about is forgotten.
    pub fn forget(&self, slices: &[(&str, &[u8])]) {
        *self.cluster.slices.lock().unwrap() = slices_of(slices);
        self.cluster.events.send_modify(|events| {
            let version = events.last().unwrap().0 + 10;
            *events = vec![(version, String::new())];
        });
    }

    /// The connections of watches are cut.
    pub fn cut(&self) {
        self.cluster.cut.send_modify(|number| *number += 1);
    }

    /// Watches are told something that is no event.
    pub fn garbage(&self) {
        self.cluster.push(|_| "{\"type\":\"MODIFIED\",\"object\":".to_owned());
    }

    /// What it was asked.
    pub fn asked(&self) -> Vec<(String, String)> {
        self.cluster.log.lock().unwrap().clone()
    }
}

fn slices_of(slices: &[(&str, &[u8])]) -> Slices {
    let ready = |lasts: &[u8]| lasts.iter().map(|last| (*last, true)).collect();
    slices.iter().map(|(name, lasts)| ((*name).to_owned(), ready(lasts))).collect()
}

impl Cluster {
    fn object(&self, name: &str, version: u64) -> Value {
        let slices = self.slices.lock().unwrap();
        let endpoints: Vec<_> = slices[name]
            .iter()
            .map(|(last, ready)| {
                json!({ "addresses": [format!("127.0.0.{last}")],
                        "conditions": { "ready": ready, "serving": true, "terminating": !ready } })
            })
            .collect();
        json!({ "metadata": { "name": name, "resourceVersion": version.to_string() }, "addressType": "IPv4",
                "endpoints": endpoints, "ports": [{ "name": "metrics", "port": 1, "protocol": "TCP" },
                                                  { "name": "http", "port": self.port, "protocol": "TCP" }] })
    }

    fn push(&self, line: impl FnOnce(u64) -> String) {
        self.events.send_modify(|events| {
            let version = events.last().unwrap().0 + 1;
            events.push((version, line(version)));
        });
    }

    fn tell(&self, kind: &str, name: &str) {
        self.push(|version| json!({ "type": kind, "object": self.object(name, version) }).to_string());
    }

    async fn converse(self: Arc<Self>, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        while let Some(asked) = read(&mut stream, &mut buffer).await {
            let path = note(&self.log, &asked, "authorization");
            let Some((_, version)) = path.split_once("resourceVersion=") else {
                let version = self.events.borrow().last().unwrap().0;
                let names: Vec<_> = self.slices.lock().unwrap().keys().cloned().collect();
                let items: Vec<_> = names.iter().map(|name| self.object(name, version)).collect();
                let metadata = json!({ "resourceVersion": version.to_string() });
                let list = json!({ "kind": "EndpointSliceList", "metadata": metadata, "items": items });
                stream.write_all(&whole("200 OK", "", &list.to_string())).await.unwrap();
                continue;
            };
            let seen: u64 = version.split('&').next().unwrap().parse().unwrap();
            self.watch(&mut stream, seen).await;
            return;
        }
    }

    async fn watch(&self, stream: &mut TcpStream, mut seen: u64) {
        let (mut events, mut cut) = (self.events.subscribe(), self.cut.subscribe());
        cut.mark_unchanged();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        loop {
            let all = events.borrow_and_update().clone();
            if seen < all[0].0 {
                let gone = json!({ "type": "ERROR", "object": { "kind": "Status", "code": 410, "reason": "Expired" } });
                let line = format!("{gone}\n");
                let _ = stream.write_all(format!("{:x}\r\n{line}\r\n0\r\n\r\n", line.len()).as_bytes()).await;
                return;
            }
            let before = seen;
            for (version, line) in all.iter().filter(|(version, _)| *version > before) {
                seen = *version;
                let line = format!("{line}\n");
                // In two pieces: an event may come in any number of them.
                let (first, second) = line.split_at(line.len() / 2);
                for piece in [first, second] {
                    let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
                    if stream.write_all(chunk.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
            tokio::select! {
                _ = events.changed() => {}
                _ = cut.changed() => return,
            }
        }
    }
}
