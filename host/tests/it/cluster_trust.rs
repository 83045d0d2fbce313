// SPDX-License-Identifier: Apache-2.0
//! What a cluster trusts: whoever can read its Redis finds no key, whoever can write to it makes nobody accept anything, and
//! no node joins that is of another one.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::cluster::{Nodes, admin, chat, cluster, make, until};
use crate::support::program::{Program, penstock};

const ENTRIES: &[u8] = b"{penstock}:cluster:entries";

/// Changes an entry as somebody who has Redis and not the master key: the node is made to look at it.
fn tamper(nodes: &Nodes, name: &str, change: impl Fn(&str) -> String) {
    let kept: String = nodes.redis.run(&[b"HGET", ENTRIES, name.as_bytes()]);
    let changed = change(&kept);
    assert_ne!(kept, changed);
    let _: u64 = nodes.redis.run(&[b"HSET", ENTRIES, name.as_bytes(), changed.as_bytes()]);
    let number: u64 = nodes.redis.run(&[b"HINCRBY", b"{penstock}:cluster:meta", b"seq", b"1"]);
    let _: u64 = nodes.redis.run(&[b"HSET", b"{penstock}:cluster:meta", b"head", b"forged"]);
    let line = format!("{number} forged\n{name}");
    let _: u64 = nodes.redis.run(&[b"ZADD", b"{penstock}:cluster:log", number.to_string().as_bytes(), line.as_bytes()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_was_changed_in_redis_is_refused_and_told_and_what_was_in_force_stays() {
    let Some(nodes) = Nodes::new("an_entry_that_was_changed") else { return };
    let node = Program::run(nodes.full("a"));
    let key = make(&node, "virtual-keys", &json!({"id": "k", "name": "ann", "models": ["none"]})).await;
    let key = key["key"].as_str().unwrap();
    make(&node, "teams", &json!({"id": "red", "name": "red"})).await;
    assert_eq!(chat(&node, key, "echo").await.status, 403);

    // The digest of the new content, so that only the tag is wrong.
    tamper(&nodes, "document/virtual-key/k", |kept| {
        let (head, body) = kept.split_once('\n').unwrap();
        let more = body.replace("[\"none\"]", "[\"echo\"]");
        let digest = |body: &str| penstock::library::store::digest_of(body.as_bytes());
        format!("{}\n{more}", head.replace(&digest(body), &digest(&more)))
    });
    tamper(&nodes, "policy/main.toml", |kept| kept.replace("auth = \"callers\"", ""));
    tamper(&nodes, "plugin/echo", |kept| kept.replace("\"v\":", "\"v\":9"));
    // An entry of another name.
    let team: String = nodes.redis.run(&[b"HGET", ENTRIES, b"document/team/red"]);
    let _: u64 = nodes.redis.run(&[b"HSET", ENTRIES, b"document/team/blue", team.as_bytes()]);
    tamper(&nodes, "document/team/blue", |kept| kept.replace("\"v\":", "\"v\":1"));
    until("all of it is told", || async { cluster(&node).await["problems"].as_array().unwrap().len() == 4 }).await;
    assert_eq!(chat(&node, key, "echo").await.status, 403, "the key may use what it might use before");
    assert_eq!(admin(&node, "GET", "teams/blue", "").await.0, 404);
    let (_, policies) = admin(&node, "GET", "policies", "").await;
    assert_eq!(policies["refused"], serde_json::Value::Null);

    make(&node, "teams", &json!({"id": "green", "name": "green"})).await;
    assert_eq!(admin(&node, "GET", "teams/green", "").await.0, 200, "what is good is taken on");
    let patch = json!({"models": ["echo"]}).to_string();
    assert_eq!(admin(&node, "PATCH", "virtual-keys/k", patch).await.0, 200);
    until("what is put right is good", || async { cluster(&node).await["problems"].as_array().unwrap().len() == 3 })
        .await;
    assert_eq!(chat(&node, key, "echo").await.status, 200);

    // What is taken away comes back: a limit that everybody is under could be got rid of.
    let _: u64 = nodes.redis.run(&[b"HDEL", ENTRIES, b"document/team/green", b"policy/main.toml"]);
    let _: u64 = nodes.redis.run(&[b"DEL", b"{penstock}:cluster:log"]);
    let _: u64 = nodes.redis.run(&[b"HSET", b"{penstock}:cluster:meta", b"head", b"forged again"]);
    until("it is given back", || async {
        let there = |name: &[u8]| nodes.redis.run::<u64>(&[b"HEXISTS", ENTRIES, name]) == 1;
        there(b"document/team/green") && there(b"policy/main.toml")
    })
    .await;
    assert_eq!(admin(&node, "GET", "teams/green", "").await.0, 200);
    assert_eq!(chat(&node, key, "echo").await.status, 200);
    make(&node, "teams", &json!({"id": "last", "name": "last"})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_master_key_or_with_keys_of_its_own_does_not_join() {
    let Some(nodes) = Nodes::new("a_node_with_another_master_key") else { return };
    let node = Program::run(nodes.full("a"));
    make(&node, "teams", &json!({"id": "red", "name": "red"})).await;

    let ended = |root: &Path| {
        let output = penstock("run", root).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let stranger = nodes.empty("b");
    let own = stranger.path().join("policies/node.toml");
    let other = stranger.path().join("other");
    fs::write(&other, "another-master-key-0123456789-0123456789").unwrap();
    let text = fs::read_to_string(&own).unwrap();
    fs::write(&own, text.replace(&nodes.master.display().to_string(), &other.display().to_string())).unwrap();
    let told = ended(stranger.path());
    assert!(told.contains("another master key") && !told.contains("0123456789"), "{told}");

    let mut alone = Program::start(
        "[admin]\naddress = \"127.0.0.1:0\"\n[[listeners]]\naddress = \"127.0.0.1:0\"\n[vendors.echo]\nadapter = \"echo\"\n\
         [[routes]]\nname = \"ai\"\npath = \"/v1\"\n",
    );
    make(&alone, "teams", &json!({"id": "mine", "name": "mine"})).await;
    alone.kill();
    fs::write(alone.root.path().join("policies/node.toml"), text).unwrap();
    fs::remove_file(alone.root.path().join("policies/main.toml")).unwrap();
    let told = ended(alone.root.path());
    assert!(told.contains("of its own") && told.contains("empty state directory"), "{told}");

    let misplaced = nodes.full("c");
    let own = misplaced.path().join("policies/node.toml");
    fs::rename(&own, misplaced.path().join("policies/here.toml")).unwrap();
    let told = ended(misplaced.path());
    assert!(told.contains("node.toml") && told.contains("here.toml:"), "{told}");
}

fn files(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_can_be_read_in_redis() {
    let Some(nodes) = Nodes::new("no_key_can_be_read_in_redis") else { return };
    let node = Program::run(nodes.full("a"));
    let other = Program::run(nodes.empty("b"));
    let mut planted = vec!["sk-planted-first-0123456789".to_owned(), fs::read_to_string(&nodes.master).unwrap()];
    make(&node, "keys", &json!({"id": "k", "vendor": "acme", "key_name": "k", "api_key": planted[0]})).await;
    let callers = make(&node, "virtual-keys", &json!({"id": "vk", "name": "ann"})).await;
    let token = make(&node, "admin-tokens", &json!({"id": "t", "name": "bob", "role": "viewer"})).await;
    planted.push(callers["key"].as_str().unwrap().to_owned());
    planted.push(token["token"].as_str().unwrap().to_owned());
    for node in [&node, &other] {
        until("the key works", || async { chat(node, &planted[2], "echo").await.status == 200 }).await;
        planted.push(fs::read_to_string(node.root.path().join("state/admin-token")).unwrap().trim().to_owned());
    }
    assert_eq!(admin(&other, "GET", "keys/k", "").await.0, 200, "the other node has the vendor's key");
    until("it is on the disk", || async {
        let waits: String = nodes.redis.run(&[b"INFO", b"persistence"]);
        waits.contains("aof_pending_bio_fsync:0")
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await; // what was used is told once a second
    let mut bytes = 0;
    for path in files(nodes.redis.folder()).into_iter().chain(files(&other.root.path().join("state/cluster"))) {
        let content = fs::read(&path).unwrap();
        bytes += content.len();
        for secret in &planted {
            let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} has {}…", path.display(), &secret[..12]);
        }
    }
    assert!(bytes > 100_000, "the store is written to its disk");
}
