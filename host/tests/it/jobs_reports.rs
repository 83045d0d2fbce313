// SPDX-License-Identifier: Apache-2.0
//! Reports of ends to webhooks.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::jobs::{PICTURE, accepted, ended, picture, rig, studio, until};
use crate::net_proxies::proxy;
use crate::support::fake::{self, Asked, Fake};

/// Checks a signature as a receiver does.
pub fn verify(asked: &Asked, secret: &[u8]) {
    let header = |name: &str| asked.header(name).unwrap_or_else(|| panic!("{name} is missing")).to_owned();
    let signed = format!("{}.{}.", header("webhook-id"), header("webhook-timestamp"));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(signed.as_bytes());
    mac.update(&asked.body);
    let signature = header("webhook-signature");
    let signature = BASE64_STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
    mac.verify_slice(&signature).expect("the signature is right");
}

fn rules(hooks: &Fake, secret: &std::path::Path) -> String {
    format!("[jobs]\nwebhooks = [\"{}/hooks\"]\nwebhook_secret = \"file:{}\"\n", hooks.url(), secret.display())
}

#[tokio::test]
async fn the_end_of_a_job_is_reported_signed_until_it_has_arrived() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, format!("whsec_{}", BASE64_STANDARD.encode(b"a secret of thirty-two bytes ..."))).unwrap();
    let tries = AtomicUsize::new(0);
    let hooks = Fake::start(move |_| match tries.fetch_add(1, Ordering::Relaxed) {
        0 => vec![fake::Do::Send(
            b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /hooks/elsewhere\r\ncontent-length: 0\r\n\r\n".to_vec(),
        )],
        _ => fake::json("204 No Content", ""),
    });
    let hooks = hooks.await;
    let fake = Fake::start(studio(&["RUNNING", PICTURE])).await;
    let rig = rig(&fake, &rules(&hooks, &secret)).await;
    let url = format!("{}/hooks/mine?a=b", hooks.url());
    let id = accepted(&rig.ask(picture(&[("prefer", "respond-async"), ("penstock-webhook", &url)])).await);
    ended(&rig, &id).await;
    until("both tries", || hooks.asked().len() == 2).await;
    for asked in hooks.asked() {
        assert_eq!(asked.line, "POST /hooks/mine?a=b", "a redirect is not followed");
        verify(&asked, b"a secret of thirty-two bytes ...");
        let job = asked.json();
        assert_eq!((&job["id"], &job["status"], &job["object"]), (&json!(id), &json!("succeeded"), &json!("job")));
        assert_eq!(asked.header("authorization"), None);
    }
    let [first, second] = &hooks.asked()[..] else { panic!("two tries") };
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"), "a receiver can tell that it is the same");
    until("it is counted", || {
        rig.gateway.metrics.exposition().unwrap().contains("penstock_job_reports_total{outcome=\"ok\"} 1")
    })
    .await;
}

#[tokio::test]
async fn reports_go_through_the_proxy_of_the_policy() {
    let directory = tempfile::tempdir().unwrap();
    let (secret, behind) = (directory.path().join("secret"), directory.path().join("proxy"));
    std::fs::write(&secret, "s").unwrap();
    let connected = Arc::new(AtomicUsize::new(0));
    std::fs::write(&behind, format!("socks5h://ann:hunter%402@{}", proxy(Arc::clone(&connected)).await)).unwrap();
    let hooks = Fake::start(|_| fake::json("200 OK", "{}")).await;
    let fake = Fake::start(studio(&[PICTURE])).await;
    let rules = format!("{}webhook_proxy = \"file:{}\"\n", rules(&hooks, &secret), behind.display());
    let rig = rig(&fake, &rules).await;
    let url = format!("{}/hooks", hooks.url());
    let id = accepted(&rig.ask(picture(&[("prefer", "respond-async"), ("penstock-webhook", &url)])).await);
    ended(&rig, &id).await;
    until("it has arrived", || hooks.asked().len() == 1).await;
    verify(&hooks.last(), b"s");
    assert_eq!(connected.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_report_goes_nowhere_that_the_policy_does_not_allow() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "s").unwrap();
    let hooks = Fake::start(|_| fake::json("200 OK", "{}")).await;
    let fake = Fake::start(studio(&[PICTURE])).await;
    let rig = rig(&fake, &rules(&hooks, &secret)).await;
    let root = hooks.url();
    for url in [
        format!("{root}/hooksmith"),
        format!("{root}/hooks/../x"),
        root,
        "https://evil.example/hooks".to_owned(),
        "x".to_owned(),
    ] {
        let reply = rig.ask(picture(&[("prefer", "respond-async"), ("penstock-webhook", &url)])).await;
        assert_eq!((reply.status.as_u16(), reply.header("penstock-failure")), (400, "webhook-refused"), "{url}");
    }
    assert_eq!((hooks.asked().len(), fake.asked().len()), (0, 0));
}
