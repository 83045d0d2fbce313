// SPDX-License-Identifier: Apache-2.0
//! A plugin that misbehaves harms only its own exchanges, as a caller sees it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::fake::{self, Fake};
use crate::support::rig::{Rig, hostile_library};

fn policy(url: &str) -> String {
    format!(
        "[vendors.h]\nadapter = \"hostile\"\nbase_url = \"{url}\"\n\
         [vendors.echo]\nadapter = \"echo\"\n\
         [[routes]]\nname = \"ai\"\npath = \"/v1\"\n"
    )
}

#[tokio::test]
async fn whatever_an_adapter_does_the_caller_gets_its_error_in_time_and_the_next_call_works() {
    let fake = Fake::start(|_| fake::json("200 OK", r#"{"choices":[]}"#)).await;
    let rig = Rig::with(&policy(&fake.url()), hostile_library()).await;
    let ask = async |path: &str, model: &str| {
        let body = json!({"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
        rig.post(path, &body).await
    };
    for path in ["/v1/chat/completions", "/v1/messages"] {
        for what in ["loop", "hoard", "trap", "overflow", "exit", "crlf", "host-header", "huge-body", "elsewhere"] {
            let begun = Instant::now();
            let reply = ask(path, &format!("h/{what}")).await;
            let took = begun.elapsed();
            let got = (reply.status.as_u16(), reply.header("penstock-failure").to_owned());
            assert_eq!(got, (502, "adapter-broken".to_owned()), "{path} {what}: {}", reply.text());
            assert!(took < Duration::from_secs(5), "{what} took {took:?}");
            let next = ask(path, "echo/e").await;
            assert_eq!(next.status.as_u16(), 200, "after {what}: {}", next.text());
        }
    }
    assert!(fake.asked().is_empty(), "nothing of it was sent");
}

#[tokio::test]
async fn memory_returns_after_a_hundred_hoarders() {
    let rig = Rig::with(&policy("http://127.0.0.1:1"), hostile_library()).await;
    let hoard = json!({"model": "h/hoard", "messages": []});
    for _ in 0..20 {
        rig.post("/v1/chat/completions", &hoard).await;
    }
    let before = resident_bytes();
    for _ in 0..100 {
        rig.post("/v1/chat/completions", &hoard).await;
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "resident memory grew by {} MiB", grown >> 20);
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
