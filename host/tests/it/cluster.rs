// SPDX-License-Identifier: Apache-2.0
//! Three gateways as processes on one Redis: what is changed on one is in force on all, one of them leads, and none needs
//! Redis to serve.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use penstock::library::store::digest_of;
use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::caller;
use crate::support::cluster::{LEASE, Nodes, active, admin, chat, cluster, make, metric, until};
use crate::support::plugins::built;
use crate::support::program::{Program, SOON};

/// What a change takes at most on a machine that does nothing else.
const IN_TIME: Duration = Duration::from_secs(1);
/// A busy machine may take longer to compile a plugin; the log of the test says how long.
const ON_A_BUSY_MACHINE: Duration = Duration::from_secs(10);

/// Another version of a component: the same with a custom section more.
fn version_of(bytes: &[u8], note: u8) -> Vec<u8> {
    [bytes, &[0, 6, 4, b'n', b'o', b't', b'e', note]].concat()
}

/// Asks without a pause until told to stop; answers with the number of requests, all of which succeeded.
fn load(gateway: SocketAddr, key: &str, stop: &Arc<AtomicBool>) -> JoinHandle<usize> {
    let (key, stop) = (key.to_owned(), Arc::clone(stop));
    tokio::spawn(async move {
        let mut asked = 0;
        while !stop.load(Ordering::Relaxed) {
            let body = json!({"model": "echo", "messages": [{"role": "user", "content": "hello"}]});
            let mut request = caller::post("/v1/chat/completions", &body);
            request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
            let reply = caller::ask(gateway, request).await;
            assert_eq!(reply.status, 200, "request {asked}: {}", reply.text());
            asked += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        asked
    })
}

/// Past the test runner, which shows what a test prints only if it fails.
fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

async fn key(node: &Program, id: &str) -> String {
    make(node, "virtual-keys", &json!({"id": id, "name": id})).await["key"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_on_one_node_is_in_force_on_all_and_no_request_fails() {
    let Some(nodes) = Nodes::new("a_change_on_one_node") else { return };
    let three = nodes.three();
    let first = key(&three[0], "first").await;
    for node in &three {
        until("the first key works", || async { chat(node, &first, "echo").await.status == 200 }).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = three.iter().map(|node| load(node.gateway, &first, &stop)).collect();

    let made = Instant::now();
    let second = key(&three[1], "second").await;
    for node in &three {
        until("a new key works", || async { chat(node, &second, "echo").await.status == 200 }).await;
    }
    let keys = made.elapsed();
    let (status, answer) = admin(&three[2], "POST", "virtual-keys", r#"{"id": "second", "name": "twice"}"#).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("exists")));

    let plugin = version_of(&built("echo"), b'1');
    let digest = digest_of(&plugin);
    let (status, answer) = admin(&three[1], "POST", "plugins", plugin.clone()).await;
    assert_eq!(status, 200, "{answer}");
    let pushed = Instant::now();
    for node in &three {
        until("a plugin is active", || async { active(node, "echo").await == digest }).await;
    }
    let plugins = pushed.elapsed();

    let dropped = Instant::now();
    let text = "[models.fancy]\ntargets = [{ vendor = \"echo\", model = \"echo\" }]\n";
    fs::write(three[2].root.path().join("policies/more.toml"), text).unwrap();
    for node in &three {
        until("a policy file holds", || async { chat(node, &first, "fancy").await.status == 200 }).await;
    }
    let policies = dropped.elapsed();

    let revoked = Instant::now();
    assert_eq!(admin(&three[0], "DELETE", "virtual-keys/second", "").await.0, 200);
    for node in &three {
        until("a deleted key is refused", || async { chat(node, &second, "echo").await.status == 401 }).await;
    }
    let revoked = revoked.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for caller in callers {
        asked += caller.await.unwrap();
    }
    say(&format!(
        "on all three nodes: a key after {keys:?}, a plugin after {plugins:?}, a policy file after {policies:?}, a key \
         deleted after {revoked:?}; {asked} requests meanwhile, 0 failed"
    ));
    assert!(keys < IN_TIME && revoked < IN_TIME && plugins < ON_A_BUSY_MACHINE && policies < ON_A_BUSY_MACHINE);

    removed_and_new(&nodes, &three, &first, &digest, asked).await;
}

/// What is removed on one node is gone on all; a new node starts from what the others have.
async fn removed_and_new(nodes: &Nodes, three: &[Program; 3], key: &str, digest: &str, asked: usize) {
    let fourth = Program::run(nodes.empty("d"));
    assert_eq!(chat(&fourth, key, "fancy").await.status, 200, "a new node serves from its first request");
    assert_eq!(active(&fourth, "echo").await, digest);
    fs::remove_file(three[2].root.path().join("policies/more.toml")).unwrap();
    for node in three.iter().chain([&fourth]) {
        until("a policy file is gone", || async { chat(node, key, "fancy").await.status == 404 }).await;
    }
    for node in three.iter().chain([&fourth]) {
        until("usage is that of all nodes", || async {
            let usage = admin(node, "GET", "usage", "").await.1;
            usage["total"]["requests"].as_u64().unwrap() > asked as u64
        })
        .await;
        let lines = admin(node, "GET", "audit", "").await.1["items"].clone();
        let actions: Vec<_> = lines.as_array().unwrap().iter().map(|line| line["action"].clone()).collect();
        assert_eq!(actions, ["delete", "upload", "create", "create"], "the audit log is the cluster's");
    }
    make(three.first().unwrap(), "services", &json!({"id": "s", "name": "s", "url": "http://127.0.0.1:1"})).await;
    until("a service is heard of by all", || async {
        admin(&fourth, "GET", "services/s", "").await.1["healthy"] == true
    })
    .await;
    assert_eq!(admin(&fourth, "POST", "generations/1/rollback", "").await.0, 409, "a generation is of one node");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_is_killed_another_one_leads_and_one_that_was_stopped_changes_nothing() {
    let Some(nodes) = Nodes::new("when_the_leader_is_killed") else { return };
    let mut three = nodes.three();
    let leader =
        |seen: &serde_json::Value| seen["nodes"].as_array().unwrap().iter().find(|node| node["leads"] == true).cloned();
    until("somebody leads", || async { leader(&cluster(&three[1]).await).is_some() }).await;

    let seen = cluster(&three[0]).await;
    let (name, token) = (leader(&seen).unwrap()["name"].clone(), seen["token"].as_u64().unwrap());
    let old = ["a", "b", "c"].iter().position(|known| name == *known).unwrap();
    let other = (old + 1) % 3;
    three[old].signal(Signal::STOP);
    let took =
        until("another one leads", || async { cluster(&three[other]).await["token"].as_u64() > Some(token) }).await;
    say(&format!("another node leads {took:?} after the leader was stopped (lease {LEASE:?})"));
    let before: String = nodes.redis.run(&[b"GET", b"{penstock}:cluster:lease"]);
    three[old].signal(Signal::CONT);
    until("the old leader is refused", || async { metric(&three[old], "penstock_cluster_fenced_total").await >= 1.0 })
        .await;
    let after: String = nodes.redis.run(&[b"GET", b"{penstock}:cluster:lease"]);
    assert_eq!(before, after, "the lease is that of the new leader");
    assert_eq!(metric(&three[old], "penstock_cluster_leader").await, 0.0);

    let seen = cluster(&three[old]).await;
    let (name, token) = (leader(&seen).unwrap()["name"].clone(), seen["token"].as_u64().unwrap());
    let second = ["a", "b", "c"].iter().position(|known| name == *known).unwrap();
    assert_ne!(second, old);
    three[second].kill();
    let took =
        until("a third one leads", || async { cluster(&three[old]).await["token"].as_u64() > Some(token) }).await;
    say(&format!("another node leads {took:?} after the leader was killed (lease {LEASE:?})"));
    until("the dead node is not there", || async {
        let seen = cluster(&three[old]).await;
        seen["nodes"].as_array().unwrap().iter().any(|node| node["name"] == name && node["there"] == false)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_serve_and_start_without_redis_and_give_it_back_what_it_has_lost() {
    let Some(mut nodes) = Nodes::new("nodes_serve_and_start_without_redis") else { return };
    let mut three = nodes.three();
    let key = key(&three[0], "first").await;
    for node in &three {
        until("the key works", || async { chat(node, &key, "echo").await.status == 200 }).await;
    }
    nodes.redis.kill();
    let team = json!({"id": "red", "name": "red"}).to_string();
    let (status, answer) = admin(&three[0], "POST", "teams", team.clone()).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("cluster-away")));
    let (status, _) = admin(&three[0], "POST", "plugins", version_of(&built("echo"), b'2')).await;
    assert_eq!(status, 503);
    three[1].kill();
    three[1].again();
    for node in &three {
        assert_eq!(chat(node, &key, "echo").await.status, 200, "callers do not need it");
    }
    assert_eq!(cluster(&three[1]).await["redis"], "away");

    nodes.redis.again();
    until("changes are made again", || async { admin(&three[1], "POST", "teams", team.clone()).await.0 == 201 }).await;
    for node in &three {
        until("others have it", || async { admin(node, "GET", "teams/red", "").await.0 == 200 }).await;
    }
    nodes.redis.freeze();
    let begun = Instant::now();
    assert_eq!(chat(&three[2], &key, "echo").await.status, 200);
    assert!(begun.elapsed() < IN_TIME, "nobody waits for it");
    assert_eq!(admin(&three[0], "DELETE", "teams/red", "").await.0, 503);
    nodes.redis.thaw();

    until("it is deleted", || async { admin(&three[0], "DELETE", "teams/red", "").await.0 != 503 }).await;
    let _: String = nodes.redis.run(&[b"FLUSHALL"]);
    until("it has everything again", || async {
        let left: u64 = nodes.redis.run(&[b"HLEN", b"{penstock}:cluster:entries"]);
        left >= 4
    })
    .await;
    until("changes are made again", || async {
        admin(&three[0], "POST", "teams", r#"{"id": "blue", "name": "blue"}"#).await.0 == 201
    })
    .await;
    for node in &three {
        until("others have it", || async { admin(node, "GET", "teams/blue", "").await.0 == 200 }).await;
        assert_eq!(admin(node, "GET", "teams/red", "").await.0, 404, "what was deleted does not come back");
    }
    let fourth = Program::run(nodes.empty("d"));
    assert_eq!(chat(&fourth, &key, "echo").await.status, 200, "what was given back is whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_not_announced_is_found_and_two_at_once_do_not_lose_one() {
    let Some(nodes) = Nodes::new("a_change_that_is_not_announced") else { return };
    let three = nodes.three();
    let stop = AtomicBool::new(false);
    let deaf = async {
        while !stop.load(Ordering::Relaxed) {
            let _: u64 = nodes.redis.run(&[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let changes = async {
        for round in 0..5 {
            let made = (0..3).map(|at| {
                let settings = json!({"id": format!("t{round}-{at}"), "name": "t"});
                let node = &three[at];
                async move { make(node, "teams", &settings).await }
            });
            let [one, two, three] = made.collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("three"));
            tokio::join!(one, two, three);
        }
        for node in &three {
            until("all teams are there", || async {
                admin(node, "GET", "teams", "").await.1["items"].as_array().unwrap().len() == 15
            })
            .await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::time::timeout(SOON * 3, async { tokio::join!(deaf, changes) }).await.unwrap();
    let mut numbers: Vec<Vec<u64>> = Vec::new();
    for node in &three {
        let lines = admin(node, "GET", "audit", "").await.1["items"].clone();
        numbers.push(lines.as_array().unwrap().iter().map(|line| line["number"].as_u64().unwrap()).collect());
    }
    assert_eq!(numbers[0], (1..=15).rev().collect::<Vec<_>>(), "the audit log has no gap");
    assert!(numbers.iter().all(|of_node| *of_node == numbers[0]));
}
