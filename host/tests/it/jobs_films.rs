// SPDX-License-Identifier: Apache-2.0
//! Films: always jobs, and shown in the words of the dialect that has an API for them.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::jobs::{alice, count, of, rig, studio, until};
use crate::support::fake::Fake;
use crate::support::rig::Rig;

const FILM: &str =
    r#"{"status":"SUCCEEDED","film":{"url":"https://films.example/1.mp4?sign=1","seconds":5,"size":"1280x720"}}"#;

async fn shown(rig: &Rig, id: &str) -> Value {
    rig.ask(alice("GET", &format!("/v1/videos/{id}"), &[], "")).await.json()
}

async fn ended(rig: &Rig, id: &str) -> Value {
    for _ in 0..1000 {
        let film = shown(rig, id).await;
        if matches!(film["status"].as_str(), Some("completed" | "failed")) {
            return film;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{id} is not done");
}

#[tokio::test]
async fn a_film_is_made_looked_at_fetched_and_deleted() {
    let fake = Fake::start(studio(&["PENDING", "RUNNING", FILM])).await;
    let rig = rig(&fake, "").await;
    let body = json!({"model": "p", "prompt": "a cat walks", "seconds": "4", "size": "1280x720"}).to_string();
    let reply = rig.ask(alice("POST", "/v1/videos", &[], body)).await;
    let film = reply.json();
    let id = film["id"].as_str().unwrap();
    assert_eq!((reply.status.as_u16(), &film["object"], &film["status"]), (202, &json!("video"), &json!("queued")));
    assert_eq!(reply.header("location"), format!("/v1/jobs/{}", id.replace("video_", "job_")));
    assert_eq!((&film["seconds"], &film["prompt"], &film["progress"]), (&json!("4"), &json!("a cat walks"), &json!(0)));
    let early = rig.ask(alice("GET", &format!("/v1/videos/{id}/content"), &[], "")).await;
    assert_eq!(early.header("penstock-failure"), "job-without-answer");

    let film = ended(&rig, id).await;
    assert_eq!((&film["status"], &film["progress"], &film["error"]), (&json!("completed"), &json!(100), &Value::Null));
    assert_eq!((&film["seconds"], &film["model"]), (&json!("5"), &json!("p")), "{film}");
    let content = rig.ask(alice("GET", &format!("/v1/videos/{id}/content"), &[], "")).await;
    assert_eq!((content.status.as_u16(), content.header("location")), (302, "https://films.example/1.mp4?sign=1"));
    let thumbnail = rig.ask(alice("GET", &format!("/v1/videos/{id}/content?variant=thumbnail"), &[], "")).await;
    assert_eq!(thumbnail.status.as_u16(), 409);
    let job = rig.ask(alice("GET", &format!("/v1/jobs/{}", id.replace("video_", "job_")), &[], "")).await.json();
    assert_eq!((&job["status"], &job["operation"]), (&json!("succeeded"), &json!("videos")), "{job}");

    let list = rig.ask(alice("GET", "/v1/videos?limit=5", &[], "")).await.json();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!(id)));
    assert_eq!(rig.ask(of("bob", "GET", "/v1/videos", &[], "")).await.json()["data"], json!([]));
    let gone = rig.ask(alice("DELETE", &format!("/v1/videos/{id}"), &[], "")).await.json();
    assert_eq!(gone, json!({"id": id, "object": "video.deleted", "deleted": true}));
    assert!(shown(&rig, id).await["error"]["message"].is_string());
    assert_eq!(rig.ask(alice("GET", "/v1/videos", &[], "")).await.json()["data"], json!([]));
}

#[tokio::test]
async fn a_film_that_begins_with_a_picture_comes_as_a_form() {
    let fake = Fake::start(studio(&[FILM])).await;
    let rig = rig(&fake, "").await;
    let form = |boundary: &str| {
        let field = |name: &str, text: &str| {
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
        };
        let file = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"input_reference\"; filename=\"a.png\"\r\n\
             Content-Type: image/png\r\n\r\n\u{1}PNG\r\n--{boundary}--\r\n"
        );
        Bytes::from(field("model", "p") + &field("prompt", "it moves") + &field("seconds", "8") + &file)
    };
    let send = |boundary: &'static str| {
        let mut request = alice("POST", "/v1/videos", &[("idempotency-key", "k")], form(boundary));
        let kind = format!("multipart/form-data; boundary={boundary}").parse().unwrap();
        request.headers_mut().insert("content-type", kind);
        rig.ask(request)
    };
    let first = send("one").await;
    assert_eq!(first.status.as_u16(), 202, "{}", first.text());
    assert_eq!((&first.json()["prompt"], &first.json()["seconds"]), (&json!("it moves"), &json!("8")));
    let again = send("two").await.json();
    assert_eq!(again["id"], first.json()["id"], "another boundary is no other request: {again}");
    assert_eq!(ended(&rig, again["id"].as_str().unwrap()).await["status"], "completed");
    let submitted = fake.asked().into_iter().find(|asked| asked.line == "POST /tasks").unwrap();
    assert_eq!(submitted.json()["prompt"], "it moves");
}

#[tokio::test]
async fn a_film_that_fails_says_why_and_one_that_is_deleted_early_is_called_off() {
    let fake = Fake::start(studio(&[r#"{"status":"FAILED","code":"Violence","message":"no"}"#, "RUNNING"])).await;
    let rig = rig(&fake, "").await;
    let body = json!({"model": "p", "prompt": "a"}).to_string();
    let make = || rig.ask(alice("POST", "/v1/videos", &[], body.clone()));
    let id = make().await.json()["id"].as_str().unwrap().to_owned();
    let film = ended(&rig, &id).await;
    assert_eq!(
        (&film["status"], &film["error"]),
        (&json!("failed"), &json!({"code": "content_filter", "message": "no"}))
    );

    let id = make().await.json()["id"].as_str().unwrap().to_owned();
    let polled = count(&fake, "GET /tasks/t1");
    until("the work is begun", || count(&fake, "GET /tasks/t1") > polled).await;
    assert_eq!(shown(&rig, &id).await["status"], "in_progress");
    rig.ask(alice("DELETE", &format!("/v1/videos/{id}"), &[], "")).await;
    assert_eq!(rig.ask(alice("GET", &format!("/v1/videos/{id}"), &[], "")).await.status.as_u16(), 404);
    until("the vendor is told", || count(&fake, "POST /tasks/t1/cancel") == 1).await;
}
