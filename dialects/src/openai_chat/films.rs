// SPDX-License-Identifier: Apache-2.0
//! Films are jobs: `/videos` of OpenAI's API (platform.openai.com/docs/api-reference/videos).

use serde_json::{Map, Value, json};

use crate::job::{self, Job, JobAsk, JobCodec, Status};

/// The jobs of `POST /videos`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Films;

impl JobCodec for Films {
    fn prefix(&self) -> &'static str {
        "video_"
    }

    fn recognise(&self, method: &str, path: &str) -> Option<JobAsk> {
        let rest = path.strip_prefix("/videos")?;
        let (id, what) = job::parts(rest, self.prefix())?;
        let id = id.map(str::to_owned);
        match (method, id, what) {
            ("POST", None, "") => Some(JobAsk::Create),
            ("GET", None, "") => Some(JobAsk::List),
            ("GET", Some(id), "") => Some(JobAsk::One(id)),
            ("GET", Some(id), "content") => Some(JobAsk::Content(id)),
            ("DELETE", Some(id), "") => Some(JobAsk::Forget(id)),
            _ => None,
        }
    }

    fn one(&self, job: &Job<'_>) -> Vec<u8> {
        film(job).to_string().into_bytes()
    }

    fn list(&self, jobs: &[Job<'_>], more: bool) -> Vec<u8> {
        job::list(self.prefix(), jobs, more, film)
    }

    fn forgotten(&self, id: &str) -> Vec<u8> {
        json!({ "id": format!("video_{id}"), "object": "video.deleted", "deleted": true }).to_string().into_bytes()
    }

    fn repeated(&self) -> &'static [&'static str] {
        &["prompt", "seconds", "size", "quality"]
    }

    fn content(&self, answer: &[u8]) -> Option<String> {
        let answer: Value = serde_json::from_slice(answer).ok()?;
        answer["url"].as_str().filter(|url| !url.is_empty()).map(str::to_owned)
    }
}

fn film(job: &Job<'_>) -> Value {
    let answer: Value = job.answer.and_then(|answer| serde_json::from_slice(answer).ok()).unwrap_or_default();
    let mut film = Map::new();
    film.insert("id".to_owned(), json!(format!("video_{}", job.id)));
    film.insert("object".to_owned(), json!("video"));
    film.insert("created_at".to_owned(), json!(job.created));
    film.insert("status".to_owned(), json!(status(job.status)));
    film.insert("model".to_owned(), json!(job.model));
    film.insert("progress".to_owned(), json!(if job.status == Status::Succeeded { 100 } else { 0 }));
    film.insert("completed_at".to_owned(), json!(job.ended.filter(|_| job.status == Status::Succeeded)));
    film.insert("expires_at".to_owned(), json!(job.expires));
    for name in Films.repeated() {
        // What the vendor has made of it, where it tells.
        let told = answer.get(*name).filter(|value| !value.is_null());
        let value = told.or_else(|| job.asked.get(*name)).cloned().unwrap_or_default();
        let value = if *name == "seconds" && value.is_number() { json!(value.to_string()) } else { value };
        if !value.is_null() || *name != "quality" {
            film.insert((*name).to_owned(), value);
        }
    }
    film.insert("remixed_from_video_id".to_owned(), Value::Null);
    film.insert("error".to_owned(), error(job.status, &answer));
    Value::Object(film)
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Queued => "queued",
        Status::Running => "in_progress",
        Status::Succeeded => "completed",
        Status::Failed | Status::Cancelled => "failed",
    }
}

fn error(status: Status, answer: &Value) -> Value {
    let text = |name: &str| answer["error"][name].as_str();
    match status {
        Status::Cancelled => json!({ "code": "cancelled", "message": "the job was cancelled" }),
        Status::Failed => {
            let code = text("code").or_else(|| text("type")).unwrap_or("failed");
            let message = text("message").or_else(|| answer["message"].as_str()).unwrap_or("the film was not made");
            json!({ "code": code, "message": message })
        }
        Status::Queued | Status::Running | Status::Succeeded => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(status: Status, answer: Option<&str>) -> Value {
        let asked = json!({ "prompt": "a cat", "seconds": 8 });
        let job = Job {
            id: "1f",
            status,
            operation: "videos",
            model: "m",
            created: 7,
            started: Some(8),
            ended: Some(9),
            expires: None,
            request_id: "r",
            target: "v/m",
            asked: asked.as_object().unwrap(),
            answer: answer.map(str::as_bytes),
        };
        serde_json::from_slice(&Films.one(&job)).unwrap()
    }

    #[test]
    fn a_film_has_the_status_words_of_the_dialect() {
        for (status, word, progress) in [
            (Status::Queued, "queued", 0),
            (Status::Running, "in_progress", 0),
            (Status::Succeeded, "completed", 100),
            (Status::Failed, "failed", 0),
            (Status::Cancelled, "failed", 0),
        ] {
            let film = shown(status, None);
            assert_eq!((&film["status"], &film["progress"]), (&json!(word), &json!(progress)));
            assert_eq!((&film["id"], &film["object"]), (&json!("video_1f"), &json!("video")));
            assert_eq!((&film["prompt"], &film["seconds"]), (&json!("a cat"), &json!("8")));
            assert_eq!(film["error"].is_object(), word == "failed");
        }
    }

    #[test]
    fn a_finished_film_tells_what_was_made_and_where() {
        let answer = r#"{"status":"completed","seconds":"5","size":"1280x720","url":"https://films/1.mp4"}"#;
        let film = shown(Status::Succeeded, Some(answer));
        assert_eq!((&film["seconds"], &film["size"]), (&json!("5"), &json!("1280x720")));
        assert_eq!(Films.content(answer.as_bytes()).as_deref(), Some("https://films/1.mp4"));
        assert_eq!(Films.content(b"{}"), None);
        let failed = shown(Status::Failed, Some(r#"{"error":{"message":"no","type":"t","code":null}}"#));
        assert_eq!(failed["error"], json!({ "code": "t", "message": "no" }));
    }

    #[test]
    fn requests_about_films_are_understood() {
        let id = || "1f".to_owned();
        for (method, path, expected) in [
            ("POST", "/videos", Some(JobAsk::Create)),
            ("GET", "/videos", Some(JobAsk::List)),
            ("GET", "/videos/video_1f", Some(JobAsk::One(id()))),
            ("GET", "/videos/video_1f/content", Some(JobAsk::Content(id()))),
            ("DELETE", "/videos/video_1f", Some(JobAsk::Forget(id()))),
            ("POST", "/videos/video_1f/remix", None),
            ("PUT", "/videos", None),
        ] {
            assert_eq!(Films.recognise(method, path), expected, "{method} {path}");
        }
    }
}
