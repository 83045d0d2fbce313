// SPDX-License-Identifier: Apache-2.0
//! What a plugin that misbehaves can do: break its own call within its deadline, and nothing else. `plugins/testing`
//! has the guests that do it on request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use penstock::config::{Isolation, Sandbox};
use penstock::keys::Grants;
use penstock::plugin::types::{Broken, CallError, Candidate, Edit, Plan, Value as Placed, Whose};
use penstock::plugin::{Adapter, Auth, Component, Exchange, Limits, Plugin, Settings};
use penstock::state::Memory;
use penstock_dialects::framing::Frame;
use penstock_dialects::ir::{Event, FaultClass};

use crate::support::plugins::{adapter, built, call, granted, hostile, hostile_adapter, runtime, sandbox, settings};

/// Time that a call may take beyond its deadline on a machine that does other things.
const SLACK: Duration = Duration::from_millis(400);

fn fresh() -> Arc<Adapter> {
    adapter(hostile_adapter(), settings("test")).expect("configures")
}

fn loaded(sandbox: Sandbox) -> Arc<Component> {
    runtime(sandbox).load(&built("hostile")).expect("passes the gate")
}

fn relay(adapter: &Adapter, what: &str) -> Result<String, Broken> {
    match adapter.relay(&call(what), &[], &[]) {
        Ok(request) => Ok(request.headers.first().map_or(String::new(), |header| match &header.value {
            Placed::Text(text) => text.clone(),
            Placed::Secret { prefix, name } => format!("{prefix}<{name}>"),
        })),
        Err(CallError::Broken { reason, plugin }) => {
            assert_eq!(plugin, "test");
            Err(reason)
        }
        Err(CallError::Fault(fault)) => panic!("{fault:?}"),
    }
}

fn open(adapter: &Arc<Adapter>, what: &str) -> Exchange {
    adapter.open(&call(what), &[], b"{}", &[]).expect("opens").0
}

fn frame(exchange: &mut Exchange) -> Result<Vec<Event>, CallError> {
    exchange.frames(&[Frame { name: "", data: b"piece" }]).map(|step| step.events)
}

fn instances(adapter: &Arc<Adapter>) -> u32 {
    Plugin::Adapter(Arc::clone(adapter)).instances()
}

#[test]
fn a_call_that_breaks_gets_the_documented_error_in_time_and_the_next_one_works() {
    let deadline = Duration::from_millis(sandbox().adapter_ms);
    let adapter = fresh();
    for (what, expected) in [
        ("loop", Broken::Deadline(50)),
        ("hoard", Broken::Memory),
        ("trap", Broken::Trap("in adapter.relay: wasm trap: wasm `unreachable` instruction executed".into())),
        ("overflow", Broken::Trap("in adapter.relay: wasm trap: out of bounds memory access".into())),
        ("sleep", Broken::Trap("in adapter.relay: a plugin cannot wait for anything".into())),
        ("exit", Broken::Trap("in adapter.relay: it called exit".into())),
        ("huge-body", Broken::Output("more than 8388608 bytes in one call".into())),
    ] {
        let begin = Instant::now();
        assert_eq!(relay(&adapter, what), Err(expected), "{what}");
        assert!(begin.elapsed() < deadline + SLACK, "{what} took {:?}", begin.elapsed());
        assert_eq!(relay(&adapter, "remember").as_deref(), Ok("1"), "after {what} an instance serves that is new");
        assert_eq!(instances(&adapter), 1, "what {what} took is given back");
    }
}

#[test]
fn an_answer_that_is_not_acceptable_breaks_its_call_alone() {
    let settings = Settings { secrets: granted("key", "k-1"), ..settings("test") };
    let adapter = adapter(hostile_adapter(), settings).expect("configures");
    for (number, (what, words)) in (1_u32..).zip([
        ("crlf", "a value of x-injected that no header can have"),
        ("host-header", "the header host, which is the host's"),
        ("transfer-encoding", "the header transfer-encoding"),
        ("other-secret", "the secret \"admin\", which was not granted"),
        ("elsewhere", "the path"),
        ("many-headers", "10000 headers"),
    ]) {
        let Err(Broken::Output(why)) = relay(&adapter, what) else { panic!("{what} passes") };
        assert!(why.contains(words), "{why}");
        let calls = (2 * number).to_string();
        assert_eq!(relay(&adapter, "remember"), Ok(calls), "the instance has gone through {what}");
    }
    assert_eq!(relay(&adapter, "key").as_deref(), Ok("Bearer <key>"), "a granted secret is named, never written");
    let fault = adapter.relay(&call("fault"), &[], &[]).expect_err("a fault");
    assert!(matches!(fault, CallError::Fault(fault) if fault.class == FaultClass::InvalidRequest));
}

#[test]
fn an_exchange_lives_between_its_calls_and_is_given_back() {
    let sandbox = Sandbox { exchanges_max: 1, instances_max: 1, ..sandbox() };
    let adapter = adapter(&loaded(sandbox), settings("test")).expect("configures");
    for _ in 0..100 {
        let (mut exchange, plan) =
            adapter.open(&call("again"), &[], b"{}", &[]).expect("the one before was given back");
        assert!(matches!(plan, Plan::Ask(_)));
        assert_eq!(frame(&mut exchange), Ok(vec![Event::Text("piece".into())]));
        let step = exchange.finish(200, &[], b"four").expect("finishes");
        assert_eq!(step.events, [Event::Text("200 after 1 frames and 4 bytes".into())]);
        assert!(step.next.is_some());
        let full = adapter.open(&call(""), &[], b"{}", &[]).err();
        assert!(matches!(full, Some(CallError::Broken { reason: Broken::Exhausted, .. })), "{full:?}");
        assert!(relay(&adapter, "").is_ok(), "a call that begins no exchange has room");
    }
    let answered = adapter.open(&call("answer"), &[], b"{}", &[]).expect("opens").1;
    assert!(matches!(answered, Plan::Answer(events) if events.len() == 2));
    assert!(matches!(adapter.open(&call("fault"), &[], b"{}", &[]), Err(CallError::Fault(_))));
    assert!(adapter.open(&call(""), &[], b"{}", &[]).is_ok(), "a fault holds no room");
}

#[test]
fn a_trap_in_a_stream_ends_the_streams_of_its_instance_and_no_other() {
    let adapter = fresh();
    let mut bystander = open(&adapter, "");
    let mut breaker = open(&adapter, "mid-trap");
    // Another worker has an instance of its own, unless its number leads to ours.
    let mut elsewhere = std::thread::scope(|scope| {
        loop {
            let opened = scope.spawn(|| open(&adapter, "")).join().expect("no panic");
            if instances(&adapter) == 2 {
                break opened;
            }
        }
    });
    assert!(frame(&mut breaker).is_ok());
    assert!(matches!(frame(&mut breaker), Err(CallError::Broken { reason: Broken::Trap(_), .. })));
    assert!(matches!(frame(&mut breaker), Err(CallError::Broken { .. })), "it stays broken");
    assert!(matches!(frame(&mut bystander), Err(CallError::Broken { .. })), "it lived in the same instance");
    assert!(frame(&mut elsewhere).is_ok(), "another instance is untouched");
    assert!(frame(&mut open(&adapter, "")).is_ok(), "the next one works");
    drop((bystander, breaker, elsewhere));
}

#[test]
fn a_stream_past_its_deadline_or_too_long_an_answer_breaks() {
    let adapter = fresh();
    let mut looping = open(&adapter, "mid-loop");
    assert!(frame(&mut looping).is_ok());
    let begin = Instant::now();
    assert!(matches!(frame(&mut looping), Err(CallError::Broken { reason: Broken::Deadline(50), .. })));
    assert!(begin.elapsed() < Duration::from_millis(50) + SLACK, "{:?}", begin.elapsed());
    let many = frame(&mut open(&adapter, "many-events"));
    assert!(matches!(many, Err(CallError::Broken { reason: Broken::Output(_), .. })), "{many:?}");
    drop(open(&adapter, "drop-trap"));
    assert!(relay(&adapter, "").is_ok(), "a destructor that traps costs an instance, not more");
}

#[test]
fn an_instance_that_has_grown_or_served_long_is_replaced_but_not_under_its_exchanges() {
    let adapter = fresh();
    let mut old = open(&adapter, "");
    assert_eq!(relay(&adapter, "remember").as_deref(), Ok("2"));
    assert_eq!(relay(&adapter, "swell").as_deref(), Ok(""));
    assert_eq!(relay(&adapter, "remember").as_deref(), Ok("1"), "past the high-water mark");
    assert_eq!(instances(&adapter), 2);
    assert!(frame(&mut old).is_ok(), "its exchange goes on");
    drop(old);
    assert_eq!(instances(&adapter), 1, "and takes it along when it ends");

    let sandbox = Sandbox { calls_max: 3, ..sandbox() };
    let adapter = crate::support::plugins::adapter(&loaded(sandbox), settings("test")).expect("configures");
    let served: Vec<_> = (0..7).map(|_| relay(&adapter, "remember").expect("serves")).collect();
    assert_eq!(served, ["1", "2", "3", "1", "2", "3", "1"]);
}

#[test]
fn isolation_gives_each_call_and_each_exchange_an_instance_of_its_own() {
    let settings = Settings { isolation: Isolation::Request, ..settings("test") };
    let adapter = adapter(hostile_adapter(), settings).expect("configures");
    for _ in 0..3 {
        assert_eq!(relay(&adapter, "remember").as_deref(), Ok("1"));
        assert_eq!(instances(&adapter), 0);
    }
    let mut exchanges: Vec<_> = (0..4).map(|_| open(&adapter, "mid-trap")).collect();
    assert_eq!(instances(&adapter), 4);
    assert_eq!(relay(&adapter, ""), Err(Broken::Exhausted), "sandbox.instances_max is 4");
    assert!(exchanges.iter_mut().all(|exchange| frame(exchange).is_ok()));
    assert!(frame(&mut exchanges[0]).is_err());
    drop(exchanges);
    assert_eq!(instances(&adapter), 0);
}

#[test]
fn a_plugin_that_breaks_time_and_again_rests() {
    let adapter = fresh();
    for _ in 0..8 {
        assert_eq!(relay(&adapter, "loop"), Err(Broken::Deadline(50)));
    }
    let begin = Instant::now();
    let Err(Broken::Trap(rests)) = relay(&adapter, "loop") else { panic!("it does not rest") };
    assert!(rests.contains("rests for 500 ms"), "{rests}");
    assert!(begin.elapsed() < Duration::from_millis(40), "failing costs nothing now: {:?}", begin.elapsed());
    while relay(&adapter, "").is_err() {
        assert!(begin.elapsed() < Duration::from_secs(5), "it must come back");
        std::thread::yield_now();
    }
    assert_eq!(relay(&adapter, "loop"), Err(Broken::Deadline(50)), "one success heals");
    assert!(relay(&adapter, "").is_ok());
}

#[test]
fn workers_side_by_side_lose_no_call_but_those_that_trap() {
    let adapter = fresh();
    let (served, broken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (adapter, served, broken) = (&adapter, &served, &broken);
            scope.spawn(move || {
                for number in 0..500 {
                    let traps = (number + worker) % 20 == 0;
                    match relay(adapter, if traps { "trap" } else { "" }) {
                        Ok(_) if !traps => served.fetch_add(1, Ordering::Relaxed),
                        Err(Broken::Trap(_)) if traps => broken.fetch_add(1, Ordering::Relaxed),
                        other => panic!("worker {worker}, call {number}: {other:?}"),
                    };
                }
            });
        }
    });
    assert_eq!((served.into_inner(), broken.into_inner()), (1900, 100));
    assert!(instances(&adapter) <= 4);
}

#[test]
fn nothing_of_one_plugin_is_found_in_the_memory_of_another() {
    let component = hostile_adapter();
    for _ in 0..20 {
        let writer = adapter(component, settings("test")).expect("configures");
        assert!(relay(&writer, "canary").is_ok());
        drop(writer);
        let reader = adapter(component, settings("test")).expect("configures");
        assert_eq!(relay(&reader, "look-for-canary").as_deref(), Ok("0"), "bytes that are not zero in fresh memory");
    }
}

#[test]
fn a_flood_of_log_lines_harms_nobody() {
    let adapter = fresh();
    let begin = Instant::now();
    let flooded = relay(&adapter, "flood");
    assert!(matches!(flooded, Ok(_) | Err(Broken::Deadline(_))), "{flooded:?}");
    assert!(begin.elapsed() < Duration::from_millis(50) + SLACK, "{:?}", begin.elapsed());
    let printed = relay(&adapter, "print");
    assert!(printed.is_ok(), "{printed:?}");
}

#[test]
fn a_plugin_wants_what_it_says_and_its_metrics_count() {
    let registry = prometheus::Registry::new();
    let adapter = adapter(hostile_adapter(), Settings { metrics: registry.clone(), ..settings("wants-it") });
    let adapter = adapter.expect("configures");
    assert_eq!(adapter.wants().headers, ["x-wanted"]);
    assert_eq!(adapter.wants().members, ["model"]);
    assert!(adapter.speaks("openai-chat") && !adapter.speaks("anthropic-messages"));
    assert!(adapter.serves("chat") && !adapter.serves("embeddings"));
    let families = registry.gather();
    let names: Vec<_> = families.iter().map(|family| family.name().to_owned()).collect();
    assert_eq!(names, ["penstock_plugin_wants_it_configured_total"]);
}

fn policy(kind: &str) -> Plugin {
    let component = runtime(sandbox()).load(&hostile(kind)).expect("passes the gate");
    component.configure(settings("test")).expect("configures")
}

#[test]
fn all_plugins_together_have_a_ceiling_of_memory_and_give_back_what_they_had() {
    // Its deadline is not what is to stop it, on whatever machine.
    let sandbox =
        Sandbox { memory_bytes_max: 64 << 20, memory_sum_bytes_max: 24 << 20, policy_ms: 10_000, ..sandbox() };
    let component = runtime(sandbox).load(&hostile("limits")).expect("passes the gate");
    let limits = |name: &str| match component.configure(settings(name)) {
        Ok(Plugin::Limits(limits)) => limits,
        _ => panic!("no limits"),
    };
    let plan = |limits: &Limits, what: &str| limits.plan(Whose::Callers, &call(what), &Arc::default()).map(drop);
    let (one, other) = (limits("one"), limits("other"));
    // Fewer than make it rest.
    for _ in 0..6 {
        match plan(&one, "hoard") {
            Err(CallError::Broken { reason: Broken::Crowded, .. }) => {}
            result => panic!("{result:?}"),
        }
        assert!(plan(&other, "").is_ok(), "the neighbour goes on");
    }
    let Plugin::Limits(again) = component.configure(settings("again")).expect("there is room again") else { return };
    assert!(plan(&again, "").is_ok());
}

#[test]
fn an_operator_reads_where_a_plugin_broke_and_what_it_had_said() {
    let component = runtime(sandbox()).load(&hostile("limits")).expect("passes the gate");
    let plugin = component.configure(settings("told")).expect("configures");
    assert_eq!((plugin.condition().broken, plugin.condition().rests), (0, false));
    let Plugin::Limits(limits) = &plugin else { panic!("no limits") };
    for _ in 0..8 {
        assert!(limits.plan(Whose::Callers, &call("trap"), &Arc::default()).is_err());
    }
    let condition = plugin.condition();
    assert_eq!((condition.broken, condition.rests), (8, true));
    let last = &condition.breaks[0];
    assert_eq!((last.call.as_str(), last.how), ("limits.plan", "trap"));
    assert!(last.stack.iter().any(|name| name.contains("hostile")), "{last:?}");
    assert!(last.last_lines.iter().any(|line| line.contains("told to trap")), "{last:?}");
}

#[test]
fn policies_answer_and_break_alike() {
    let broken = |result: Result<(), CallError>| match result {
        Err(CallError::Broken { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let Plugin::Auth(auth) = policy("auth") else { panic!("no auth") };
    let ask = |call: &penstock::plugin::types::Call<'_>, headers: &[(&str, &str)]| {
        auth.authenticate(call, headers, Instant::now()).grant
    };
    let grant = ask(&call(""), &[("x-wanted", "1")]).expect("a grant");
    assert_eq!(grant.subject, "1 headers");
    assert_eq!(broken(ask(&call("loop"), &[]).map(drop)), Broken::Deadline(5));
    assert!(matches!(broken(ask(&call("nobody"), &[]).map(drop)), Broken::Output(_)));

    let Plugin::Limits(limits) = policy("limits") else { panic!("no limits") };
    assert_eq!(
        limits.plan(Whose::Callers, &call(""), &Arc::default()).expect("checks")[0].charge.algorithm.name(),
        "token-bucket"
    );
    assert!(matches!(broken(limits.plan(Whose::Callers, &call("odd"), &Arc::default()).map(drop)), Broken::Output(_)));

    let Plugin::Routing(routing) = policy("routing") else { panic!("no routing") };
    let candidate = |id| Candidate {
        id,
        vendor: "v",
        model: "m",
        weight: 1,
        priority: 0,
        healthy: true,
        latency_ms: 0,
        inflight: 0,
        facts: &[],
    };
    let candidates = ["a", "b", "c"].map(candidate);
    let order = routing.rank(&call(""), &[], &candidates, 1).expect("an order");
    assert_eq!(order.drawn(|_| 0), [1, 2, 0]);
    for wrong in ["beyond", "twice"] {
        assert!(
            matches!(broken(routing.rank(&call(wrong), &[], &candidates, 1).map(drop)), Broken::Output(_)),
            "{wrong}"
        );
    }

    let Plugin::Filter(filter) = policy("filter") else { panic!("no filter") };
    let verdict = filter.request_head(&call(""), "GET", "/a", &[]).expect("a verdict");
    assert_eq!(verdict.request, [Edit::Set("x-seen".parse().unwrap(), "GET /a".parse().unwrap())]);
    for wrong in ["crlf", "status"] {
        let verdict = filter.request_head(&call(wrong), "GET", "/a", &[]).map(drop);
        assert!(matches!(broken(verdict), Broken::Output(_)), "{wrong}");
    }
    let edits = filter.response_head(&call(""), 404, &[]).expect("edits").expect("it looks at answers");
    assert_eq!(edits[0], Edit::Add("x-status".parse().unwrap(), "404".parse().unwrap()));
}

fn curious(name: &str, secrets: Grants, state: &Arc<Memory>) -> Arc<Auth> {
    let component = runtime(sandbox()).load(&built("curious")).expect("passes the gate");
    let settings = Settings { secrets, state: Arc::clone(state), ..settings(name) };
    match component.configure(settings).expect("configures") {
        Plugin::Auth(auth) => auth,
        _ => panic!("no auth"),
    }
}

fn ask(auth: &Auth, what: &str, with: &str) -> String {
    match auth.authenticate(&call(""), &[("x-do", what), ("x-with", with)], Instant::now()).grant {
        Ok(grant) => grant.subject,
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_secret_can_be_used_and_never_read() {
    let key = "Jefe";
    let auth = curious("curious", granted("granted", key), &Arc::new(Memory::new(10)));
    // RFC 4231, test case 2.
    let tag = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    let derived = "a0f6ae9b5ba4a4ff33a8b3a93f7c4ab4f3a30a6c8f4a7be6a07b7f7e2ea9e3e5";
    assert_eq!(ask(&auth, "open", "granted"), "true");
    assert_eq!(ask(&auth, "open", "admin"), "false", "what was not granted is not there");
    assert_eq!(ask(&auth, "equals", key), "true");
    assert_eq!(ask(&auth, "equals", "Jef"), "false");
    assert_eq!(ask(&auth, "hmac", "what do ya want for nothing?"), tag);
    assert_ne!(ask(&auth, "derive", "20260101"), derived);
    assert_eq!(ask(&auth, "derive", "20260101").len(), 64);
    assert_eq!(ask(&auth, "derived-equals", key), "false");
    assert_eq!(ask(&auth, "environment", ""), "[] []", "no environment to look into");
    for what in ["open", "equals", "hmac", "derive", "derived-equals", "environment", "hoard-handles", "nonsense"] {
        for with in ["", "granted", "x"] {
            let answer = ask(&auth, what, with);
            assert!(!answer.contains(key), "{what}: {answer}");
        }
    }
    assert_eq!(ask(&auth, "open", "granted"), "true", "the next call works");
}

#[test]
fn state_outlives_instances_and_belongs_to_one_plugin() {
    let state = Arc::new(Memory::new(1000));
    let one = curious("one", granted("granted", "k"), &state);
    assert_eq!(ask(&one, "put", "value"), "Ok(())");
    assert_eq!(ask(&one, "add", ""), "Ok(2)");
    assert!(ask(&one, "hoard-handles", "").contains("trapped"), "and the instance is gone");
    assert_eq!(ask(&one, "get", ""), "Ok(Some(\"value\"))");
    assert_eq!(ask(&one, "add", ""), "Ok(4)");
    let other = curious("other", granted("granted", "k"), &state);
    assert_eq!(ask(&other, "get", ""), "Ok(None)");
    assert!(ask(&other, "put-much", "").contains("TooLarge(65536)") || ask(&other, "put-much", "").contains("65536"));
}

/// Not a test of anything: prints what a crossing costs. `cargo test --release … -- --ignored --nocapture costs`.
#[test]
#[ignore = "a measurement, not a promise"]
fn costs_of_a_crossing() {
    let measure = |name: &str, run: &mut dyn FnMut()| {
        let best = (0..50).map(|_| {
            let begin = Instant::now();
            (0..200).for_each(|_| run());
            begin.elapsed()
        });
        println!("{name:>28} {:6.2} us", best.min().unwrap_or_default().as_secs_f64() * 5e3);
    };
    let headers = [("authorization", "Bearer sk-1234567890123456789012345678"), ("x-wanted", "yes")];
    let members = [("model", "\"gpt-4o-mini\"")];
    let adapter = fresh();
    measure("adapter.relay", &mut || drop(adapter.relay(&call("m"), &headers, &members)));
    measure("adapter.open + drop, 4 kB", &mut || drop(adapter.open(&call("m"), &headers, &[b'x'; 4096], &[])));
    let mut exchange = open(&adapter, "");
    measure("exchange.frames, 1 of 5 B", &mut || drop(frame(&mut exchange)));
    let frames = [Frame { name: "", data: b"piece" }; 16];
    measure("exchange.frames, 16 of 5 B", &mut || drop(exchange.frames(&frames)));
    measure("adapter.reject", &mut || drop(adapter.reject(500, &headers, b"{}")));
    let Plugin::Auth(auth) = policy("auth") else { return };
    measure("auth.authenticate", &mut || drop(auth.authenticate(&call(""), &headers, Instant::now())));
    let Plugin::Limits(limits) = policy("limits") else { return };
    measure("limits.plan", &mut || drop(limits.plan(Whose::Callers, &call(""), &Arc::default())));
    let Plugin::Routing(routing) = policy("routing") else { return };
    let candidate = |id| Candidate {
        id,
        vendor: "v",
        model: "m",
        weight: 1,
        priority: 0,
        healthy: true,
        latency_ms: 0,
        inflight: 0,
        facts: &[],
    };
    let candidates = ["a", "b", "c"].map(candidate);
    measure("routing.rank of 3", &mut || drop(routing.rank(&call(""), &[], &candidates, 1)));
    let Plugin::Filter(filter) = policy("filter") else { return };
    measure("filter.request_head", &mut || drop(filter.request_head(&call(""), "POST", "/v1/chat", &headers)));
    let isolated = Settings { isolation: Isolation::Request, ..settings("test") };
    let isolated = crate::support::plugins::adapter(hostile_adapter(), isolated).expect("configures");
    measure("adapter.relay, isolated", &mut || drop(isolated.relay(&call("m"), &headers, &members)));
}
