// SPDX-License-Identifier: Apache-2.0
//! Misbehaves on request: for the tests of the host, and for nothing else.
//!
//! It is built on the bare contract, since the SDK would not let it. The model of a call (for `configure` the member `at`
//! of the configuration) says what to do: see [`act`]. It exports the interfaces of every kind, so a test can make it a
//! plugin of any kind by a manifest of its own.

#![cfg(target_arch = "wasm32")] // it looks into the memory of its machine
#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "misbehaves on purpose; half of it is generated")]

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package testing:hostile;
        world hostile {
            include penstock:plugin/base@0.1.0;
            export penstock:plugin/adapter@0.1.0;
            export penstock:plugin/auth@0.1.0;
            export penstock:plugin/limits@0.1.0;
            export penstock:plugin/routing@0.1.0;
            export penstock:plugin/head-filter@0.1.0;
            export penstock:plugin/response-filter@0.1.0;
        }
    ",
    world: "hostile",
    generate_all,
});

use std::cell::{Cell, RefCell};

use exports::penstock::plugin::adapter::{
    self, Blob, Event, Exchange, ExchangeBorrow, Finish, Frame, Plan, Step, Upstream,
};
use exports::penstock::plugin::lifecycle::{Issue, Want};
use exports::penstock::plugin::routing::Share;
use exports::penstock::plugin::{auth, head_filter, lifecycle, limits, response_filter, routing};
use penstock::plugin::filter_types::{Edit, Reply, Verdict};
use penstock::plugin::log;
use penstock::plugin::metrics::Counter;
use penstock::plugin::requests::{Body, Framing, Placed, Value};
use penstock::plugin::types::{Call, Fault};

const TEXT: &[u8] = br#"{
    "kind": "adapter",
    "api": "0.1.0",
    "name": "hostile",
    "version": "0.1.0",
    "description": "Misbehaves on request",
    "licence": "Apache-2.0",
    "schema": {"type": "object", "properties": {"at": {"type": "string"}}, "additionalProperties": false},
    "secrets": ["key"],
    "dialects": ["openai-chat"],
    "operations": ["chat"]
}"#;

#[used]
#[unsafe(link_section = "penstock:plugin")]
static MANIFEST: [u8; TEXT.len()] = {
    let mut bytes = [0; TEXT.len()];
    bytes.copy_from_slice(TEXT);
    bytes
};

thread_local! {
    static HOARD: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

struct Hostile;
export!(Hostile);

/// What can be asked of every call.
fn act(what: &str) {
    CALLS.with(|calls| calls.set(calls.get() + 1));
    match what {
        "loop" => loop {
            std::hint::black_box(());
        },
        "hoard" => loop {
            let mut block = vec![0_u8; 1 << 20];
            block.fill(0xa5);
            HOARD.with(|hoard| hoard.borrow_mut().push(block));
        },
        // Stays within a ceiling of 16 MiB, and past half of it.
        "swell" => HOARD.with(|hoard| hoard.borrow_mut().push(vec![0xa5; 11 << 20])),
        "trap" => panic!("told to trap"),
        "overflow" => overflow(1),
        "sleep" => std::thread::sleep(std::time::Duration::from_secs(60)),
        "exit" => std::process::exit(3),
        "flood" => {
            for number in 0..100_000 {
                log::write(log::Level::Error, &format!("line {number}\r\nforged: yes"), &[]);
            }
        }
        "print" => {
            println!("printed\u{1b}[2J");
            eprint!("and not ended");
        }
        _ => {}
    }
}

#[inline(never)]
#[allow(unconditional_recursion, reason = "what it is for")]
fn overflow(depth: u64) {
    let frame = std::hint::black_box([depth; 64]);
    overflow(depth + frame[0]);
    std::hint::black_box(frame);
}

fn upstream(headers: Vec<Placed>, body: Body) -> Upstream {
    Upstream {
        method: "POST".to_owned(),
        endpoint: String::new(),
        path: "/v1/chat".to_owned(),
        query: Vec::new(),
        headers,
        body,
        framing: Framing::Sse,
        after_ms: 0,
        dropped: Vec::new(),
    }
}

fn placed(name: &str, value: Value) -> Placed {
    Placed { name: name.to_owned(), value }
}

/// A request, wrong in the way that was asked for.
fn request(what: &str) -> Upstream {
    let text = |name: &str, value: &str| upstream(vec![placed(name, Value::Text(value.to_owned()))], Body::None);
    match what {
        "crlf" => text("x-injected", "a\r\nx-forged: yes"),
        "host-header" => text("Host", "elsewhere.example"),
        "transfer-encoding" => text("transfer-encoding", "chunked"),
        "other-secret" => {
            upstream(vec![placed("x-key", Value::Secret((String::new(), "admin".to_owned())))], Body::None)
        }
        "key" => {
            upstream(vec![placed("authorization", Value::Secret(("Bearer ".to_owned(), "key".to_owned())))], Body::None)
        }
        "elsewhere" => Upstream { path: "//elsewhere.example/../..".to_owned(), ..text("x-a", "b") },
        "huge-body" => {
            // As much of a gigabyte as memory allows.
            let mut body = Vec::new();
            while body.len() < 1 << 30 && body.try_reserve_exact(1 << 20).is_ok() {
                body.resize(body.len() + (1 << 20), b'x');
            }
            upstream(Vec::new(), Body::Bytes(body))
        }
        "many-headers" => {
            upstream((0..10_000).map(|_| placed("x-a", Value::Text("b".to_owned()))).collect(), Body::None)
        }
        "remember" => text("x-calls", &CALLS.with(Cell::get).to_string()),
        "canary" => {
            HOARD.with(|hoard| hoard.borrow_mut().push(b"canary-4711".repeat(1 << 16)));
            text("x-a", "b")
        }
        "look-for-canary" => text("x-found", &leftovers().to_string()),
        _ => upstream(Vec::new(), Body::Splice(vec![("model".to_owned(), "\"hostile\"".to_owned())])),
    }
}

/// Bytes in fresh memory that are not zero.
fn leftovers() -> usize {
    let pages = core::arch::wasm32::memory_grow(0, 160);
    let fresh = unsafe { std::slice::from_raw_parts((pages * 65_536) as *const u8, 160 * 65_536) };
    std::hint::black_box(fresh).iter().filter(|byte| **byte != 0).count()
}

fn fault(message: &str) -> Fault {
    Fault { class: "invalid-request".to_owned(), message: message.to_owned(), code: None, retry_after_ms: None }
}

impl lifecycle::Guest for Hostile {
    fn configure(config: String) -> Result<Vec<Want>, Vec<Issue>> {
        let at = config.split('"').nth(3).unwrap_or_default();
        log::write(log::Level::Info, "configured", &[("at".to_owned(), at.to_owned())]);
        act(at);
        if at == "refuse" {
            let path = "keys[2].sha256".to_owned();
            return Err(vec![Issue { path, message: "is no digest: write 64 hexadecimal digits".to_owned() }]);
        }
        CALLS.with(|calls| calls.set(0));
        Counter::new("configured_total", "Instances", &[]).add(1, &[]);
        let want = |kind: &str, name: &str| Want { kind: kind.to_owned(), name: name.to_owned() };
        Ok(vec![want("header", "X-Wanted"), want("member", "model"), want("telepathy", "mood")])
    }
}

struct Call1 {
    what: String,
    frames: Cell<u32>,
}

impl adapter::Guest for Hostile {
    type Exchange = Call1;

    fn relay(call: Call, _: Vec<(String, String)>, _: Vec<(String, String)>) -> Result<Upstream, Fault> {
        act(call.model.rsplit_once("adapter-").map_or(&*call.model, |(_, what)| what));
        if call.model == "fault" { Err(fault("as asked")) } else { Ok(request(&call.model)) }
    }

    fn reject(status: u16, _: Vec<(String, String)>, body: Vec<u8>) -> Fault {
        act(&String::from_utf8_lossy(&body));
        fault(&format!("status {status}"))
    }
}

impl adapter::GuestExchange for Call1 {
    fn open(call: Call, _: Vec<(String, String)>, _: Vec<u8>, _: Vec<Blob>) -> Result<(Exchange, Plan), Fault> {
        act(&call.model);
        let plan = match call.model.as_str() {
            "fault" => return Err(fault("as asked")),
            "answer" => Plan::Answer(vec![
                Event::Text("hello".to_owned()),
                Event::Finish(Finish { reason: "stop".to_owned(), sequence: None }),
            ]),
            what => Plan::Ask(request(what)),
        };
        Ok((Exchange::new(Call1 { what: call.model, frames: Cell::new(0) }), plan))
    }

    fn frames(&self, batch: Vec<Frame>) -> Result<Step, Fault> {
        if let Some(what) = self.what.strip_prefix("mid-") {
            if self.frames.get() > 0 {
                act(what);
            }
        }
        let mut events = Vec::new();
        for frame in batch {
            self.frames.set(self.frames.get() + 1);
            events.push(Event::Text(String::from_utf8_lossy(&frame.data).into_owned()));
        }
        if self.what == "many-events" {
            events.extend((0..100_000).map(|_| Event::BlockEnd));
        }
        Ok(Step { events, next: None, cancel: None })
    }

    fn finish(&self, status: u16, _: Vec<(String, String)>, body: Vec<u8>) -> Result<Step, Fault> {
        let text = format!("{status} after {} frames and {} bytes", self.frames.get(), body.len());
        Ok(Step { events: vec![Event::Text(text)], next: (self.what == "again").then(|| request("")), cancel: None })
    }
}

impl Drop for Call1 {
    fn drop(&mut self) {
        if self.what == "drop-trap" {
            panic!("told to trap when dropped");
        }
    }
}

impl auth::Guest for Hostile {
    fn authenticate(call: Call, headers: Vec<(String, String)>) -> Result<auth::Grant, Fault> {
        // Auth sees no body, and so no model: what it does can be asked for by the header that it wants.
        let asked = headers.first().map_or("", |(_, value)| value);
        act(&call.model);
        act(asked);
        if asked == "refuse" {
            return Err(Fault { class: "authentication".to_owned(), ..fault("as asked") });
        }
        let subject = match (call.model.as_str(), asked) {
            ("nobody", _) => String::new(),
            (_, "greedy") => "greedy".to_owned(),
            _ => format!("{} headers", headers.len()),
        };
        Ok(auth::Grant { subject, tenant: None, attributes: Vec::new(), cache_ms: 0 })
    }
}

impl limits::Guest for Hostile {
    fn plan(call: Call) -> Result<Vec<limits::Check>, Fault> {
        act(call.model.rsplit_once("limits-").map_or(&*call.model, |(_, what)| what));
        let algorithm = if call.model == "odd" { "guess" } else { "token-bucket" };
        Ok(vec![limits::Check {
            key: "k".to_owned(),
            algorithm: algorithm.to_owned(),
            counted: "requests".to_owned(),
            limit: if call.model.contains("many-") { 1 << 40 } else { 1 },
            window_ms: 1000,
            burst: 0,
            label: "a label".to_owned(),
        }])
    }
}

impl routing::Guest for Hostile {
    fn rank(call: Call, targets: Vec<routing::Target>, seed: u64) -> Result<Vec<Vec<Share>>, Fault> {
        act(&call.model);
        let count = targets.len() as u32;
        let indices: Vec<u32> = match call.model.as_str() {
            "beyond" => vec![count],
            "twice" => vec![0, 0],
            _ => (0..count).map(|index| (index + seed as u32) % count).collect(),
        };
        Ok(indices.into_iter().map(|target| vec![Share { target, weight: 1 }]).collect())
    }
}

impl head_filter::Guest for Hostile {
    fn request_head(call: Call, method: String, path: String, _: Vec<(String, String)>) -> Result<Verdict, Fault> {
        act(&call.model);
        let value = if call.model == "crlf" { "a\r\nb: c".to_owned() } else { format!("{method} {path}") };
        let answer = (call.model == "answer").then(|| Reply { status: 204, headers: Vec::new(), body: Vec::new() });
        let answer = if call.model == "status" {
            Some(Reply { status: 99, headers: Vec::new(), body: Vec::new() })
        } else {
            answer
        };
        Ok(Verdict { request: vec![Edit::Set(("x-seen".to_owned(), value))], response: Vec::new(), answer })
    }
}

impl response_filter::Guest for Hostile {
    fn response_head(call: Call, status: u16, _: Vec<(String, String)>) -> Result<Vec<Edit>, Fault> {
        act(&call.model);
        Ok(vec![Edit::Add(("x-status".to_owned(), status.to_string())), Edit::Remove("server".to_owned())])
    }
}

const _: fn(&ExchangeBorrow<'_>) = |_| {};
