// SPDX-License-Identifier: Apache-2.0
//! Long work while its caller waits: the adapter polls within the request, and whoever hangs up ends the work.

use std::time::Duration;

use serde_json::{Value, json};

use crate::jobs::{PICTURE, count, picture, rig, studio, until};
use crate::support::caller;
use crate::support::fake::{self, Fake};

#[tokio::test]
async fn pictures_of_which_some_failed_are_an_answer_with_both() {
    let told =
        r#"{"status":"SUCCEEDED","pictures":[{"url":"https://a/1.png"},{"code":"Bad","message":"not this one"}]}"#;
    let fake = Fake::start(studio(Box::leak(vec!["PENDING", "RUNNING", told].into_boxed_slice()))).await;
    let rig = rig(&fake, "").await;
    let reply = rig.ask(picture(&[])).await;
    let said = reply.json();
    assert_eq!((reply.status.as_u16(), &said["data"]), (200, &json!([{"url": "https://a/1.png"}])), "{said}");
    assert_eq!(said["errors"][0]["message"], "not this one", "{said}");
    assert_eq!((count(&fake, "POST /tasks"), count(&fake, "GET /tasks/t1")), (1, 3));
    assert_eq!(count(&fake, "POST /tasks/t1/cancel"), 0, "work that is done is not ended");
}

#[tokio::test]
async fn work_that_failed_is_an_error_with_the_vendors_words() {
    let fake = Fake::start(studio(&["PENDING", r#"{"status":"FAILED","code":"Bad","message":"no cats"}"#])).await;
    let reply = rig(&fake, "").await.ask(picture(&[])).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["error"]["message"]),
        (400, &json!("no cats")),
        "{}",
        reply.text()
    );
    assert_eq!(count(&fake, "POST /tasks/t1/cancel"), 0);
}

#[tokio::test]
async fn work_that_takes_too_long_is_ended_at_the_vendor() {
    let fake = Fake::start(studio(&["RUNNING"])).await;
    let reply = rig(&fake, "[timeouts]\ntotal_ms = 400\n").await.ask(picture(&[])).await;
    assert_eq!((reply.status.as_u16(), reply.header("penstock-failure")), (504, "total-timeout"), "{}", reply.text());
    until("the vendor is told", || count(&fake, "POST /tasks/t1/cancel") == 1).await;
    assert!(fake.last().header("authorization").unwrap().starts_with("Bearer vendor-"), "with its key");
}

#[tokio::test]
async fn a_caller_who_hangs_up_ends_the_work() {
    let fake = Fake::start(studio(&["RUNNING"])).await;
    let rig = rig(&fake, "").await;
    let waiting = tokio::spawn(caller::ask(rig.address, picture(&[])));
    until("the work is begun", || count(&fake, "GET /tasks/t1") > 1).await;
    waiting.abort();
    until("the vendor is told", || count(&fake, "POST /tasks/t1/cancel") == 1).await;
    let asked = fake.asked().len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(fake.asked().len(), asked, "nobody asks any more how the work is doing");
}

#[tokio::test]
async fn one_lost_answer_does_not_lose_the_work() {
    let fake = Fake::start(studio(&["PENDING", "503 Service Unavailable|busy", PICTURE])).await;
    let reply = rig(&fake, "").await.ask(picture(&[])).await;
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    assert_eq!((count(&fake, "POST /tasks"), count(&fake, "POST /tasks/t1/cancel")), (1, 0));
}

#[tokio::test]
async fn work_that_the_vendor_does_not_know_any_more_is_lost_at_once() {
    let fake = Fake::start(studio(&["PENDING", "404 Not Found|no such task"])).await;
    let reply = rig(&fake, "").await.ask(picture(&[])).await;
    assert_eq!(reply.status.as_u16(), 404, "{}", reply.text());
    assert!(reply.text().contains("no such task"));
}

#[tokio::test]
async fn a_vendor_that_refuses_the_work_is_asked_once() {
    let fake = Fake::start(|_| fake::json("400 Bad Request", "bad prompt")).await;
    let reply = rig(&fake, "").await.ask(picture(&[])).await;
    let said: Value = reply.json();
    assert_eq!((reply.status.as_u16(), &said["error"]["message"]), (400, &json!("bad prompt")));
    assert_eq!(fake.asked().len(), 1);
}
