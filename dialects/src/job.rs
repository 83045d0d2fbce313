// SPDX-License-Identifier: Apache-2.0
//! Jobs: work that goes on when the request that began it has been answered. Penstock's own way to ask for them is
//! [`Plain`]; a dialect that has jobs of its own for an operation has another [`JobCodec`] for it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It waits for its turn.
    Queued,
    /// It is being worked on.
    Running,
    /// It has its answer.
    Succeeded,
    /// It has an error.
    Failed,
    /// Its caller has called it off.
    Cancelled,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will become of it.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// A job, as its caller may know it. Times are seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Job<'j> {
    /// Id without a prefix.
    pub id: &'j str,
    /// How far it has come.
    pub status: Status,
    /// Name of the operation.
    pub operation: &'j str,
    /// The model that the caller named.
    pub model: &'j str,
    /// When it was accepted.
    pub created: u64,
    /// When it was begun.
    pub started: Option<u64>,
    /// When it was over.
    pub ended: Option<u64>,
    /// When it is forgotten.
    pub expires: Option<u64>,
    /// Id of the request that made it.
    pub request_id: &'j str,
    /// Who has answered, "vendor/model"; empty while nobody has.
    pub target: &'j str,
    /// Members of the request that its dialect repeats in its jobs.
    pub asked: &'j Map<String, Value>,
    /// The body of the answer, or of the error, in the caller's dialect; none while there is none, and in lists.
    pub answer: Option<&'j [u8]>,
}

/// What is asked about jobs; ids are without their prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobAsk {
    /// A new one.
    Create,
    /// The caller's own.
    List,
    /// One of them.
    One(String),
    /// The answer of one, as it would have been had the caller waited.
    Answer(String),
    /// Where the work of one is.
    Content(String),
    /// Call one off.
    Cancel(String),
    /// Call one off if it is not over, forget it if it is.
    Delete(String),
    /// Call one off and forget it.
    Forget(String),
}

/// A way to ask for jobs, and to show them.
pub trait JobCodec: Sync {
    /// What stands before the id of a job.
    fn prefix(&self) -> &'static str;

    /// What a request asks; none if it is not about jobs.
    fn recognise(&self, method: &str, path: &str) -> Option<JobAsk>;

    /// Writes one.
    fn one(&self, job: &Job<'_>) -> Vec<u8>;

    /// Writes some of them; `more` if there are others behind them.
    fn list(&self, jobs: &[Job<'_>], more: bool) -> Vec<u8>;

    /// Writes that one has been forgotten.
    fn forgotten(&self, id: &str) -> Vec<u8>;

    /// Members of a request that are repeated in its jobs.
    fn repeated(&self) -> &'static [&'static str] {
        &[]
    }

    /// Where the work of a job is, by its answer.
    fn content(&self, _answer: &[u8]) -> Option<String> {
        None
    }
}

/// Jobs of any operation, below `/jobs`.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

impl JobCodec for Plain {
    fn prefix(&self) -> &'static str {
        "job_"
    }

    fn recognise(&self, method: &str, path: &str) -> Option<JobAsk> {
        let rest = path.strip_prefix("/jobs")?;
        let (id, what) = parts(rest, self.prefix())?;
        let id = || id.map(str::to_owned);
        match (method, id(), what) {
            ("GET", None, "") => Some(JobAsk::List),
            ("GET", Some(id), "") => Some(JobAsk::One(id)),
            ("GET", Some(id), "result") => Some(JobAsk::Answer(id)),
            ("POST", Some(id), "cancel") => Some(JobAsk::Cancel(id)),
            ("DELETE", Some(id), "") => Some(JobAsk::Delete(id)),
            _ => None,
        }
    }

    fn one(&self, job: &Job<'_>) -> Vec<u8> {
        plain(job).to_string().into_bytes()
    }

    fn list(&self, jobs: &[Job<'_>], more: bool) -> Vec<u8> {
        list(self.prefix(), jobs, more, plain)
    }

    fn forgotten(&self, id: &str) -> Vec<u8> {
        json!({ "id": format!("job_{id}"), "object": "job.deleted", "deleted": true }).to_string().into_bytes()
    }
}

fn plain(job: &Job<'_>) -> Value {
    let mut shown = json!({
        "id": format!("job_{}", job.id),
        "object": "job",
        "status": job.status,
        "operation": job.operation,
        "model": job.model,
        "created_at": job.created,
        "started_at": job.started,
        "ended_at": job.ended,
        "expires_at": job.expires,
        "request_id": job.request_id,
        "target": Some(job.target).filter(|target| !target.is_empty()),
    });
    if let Some(answer) = job.answer {
        let answer = serde_json::from_slice(answer).unwrap_or_else(|_| json!(String::from_utf8_lossy(answer)));
        match job.status {
            Status::Succeeded => shown["result"] = answer,
            // Most dialects put an error into a member of that name; in the others the body is the error.
            Status::Failed => shown["error"] = answer.get("error").cloned().unwrap_or(answer),
            Status::Queued | Status::Running | Status::Cancelled => {}
        }
    }
    shown
}

/// Whether a path is one of [`Plain`].
pub(crate) fn is_below(path: &str) -> bool {
    path.strip_prefix("/jobs").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Id without its prefix, and what follows it: `/job_1/result`. None if it is no such path.
pub(crate) fn parts<'p>(rest: &'p str, prefix: &str) -> Option<(Option<&'p str>, &'p str)> {
    if rest.is_empty() || rest == "/" {
        return Some((None, ""));
    }
    let (id, what) = rest.strip_prefix('/')?.split_once('/').unwrap_or((&rest[1..], ""));
    // An id of another kind is the id of no job, which is for whoever looks it up to say.
    Some((Some(id.strip_prefix(prefix).unwrap_or("")), what))
}

/// A page of a list.
pub(crate) fn list(prefix: &str, jobs: &[Job<'_>], more: bool, one: fn(&Job<'_>) -> Value) -> Vec<u8> {
    let id = |job: Option<&Job<'_>>| job.map(|job| format!("{prefix}{}", job.id));
    let page = json!({
        "object": "list",
        "data": jobs.iter().map(one).collect::<Vec<_>>(),
        "first_id": id(jobs.first()),
        "last_id": id(jobs.last()),
        "has_more": more,
    });
    page.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_about_jobs_is_understood_and_no_other_one() {
        let id = || "1f".to_owned();
        let cases = [
            ("GET", "/jobs", Some(JobAsk::List)),
            ("GET", "/jobs/", Some(JobAsk::List)),
            ("GET", "/jobs/job_1f", Some(JobAsk::One(id()))),
            ("GET", "/jobs/1f", Some(JobAsk::One(String::new()))),
            ("GET", "/jobs/job_1f/result", Some(JobAsk::Answer(id()))),
            ("POST", "/jobs/job_1f/cancel", Some(JobAsk::Cancel(id()))),
            ("DELETE", "/jobs/job_1f", Some(JobAsk::Delete(id()))),
            ("POST", "/jobs", None),
            ("DELETE", "/jobs", None),
            ("GET", "/jobs/job_1f/else", None),
            ("GET", "/jobsearch", None),
            ("GET", "/models", None),
        ];
        for (method, path, expected) in cases {
            assert_eq!(Plain.recognise(method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_job_shows_its_answer_or_its_error() {
        let asked = Map::new();
        let job = |status, answer| Job {
            id: "1",
            status,
            operation: "chat",
            model: "m",
            created: 1,
            started: None,
            ended: None,
            expires: None,
            request_id: "r",
            target: "",
            asked: &asked,
            answer,
        };
        let shown = |status, answer: &'static str| -> Value {
            serde_json::from_slice(&Plain.one(&job(status, Some(answer.as_bytes())))).unwrap()
        };
        assert_eq!(shown(Status::Succeeded, r#"{"a":1}"#)["result"], json!({"a": 1}));
        assert_eq!(shown(Status::Failed, r#"{"error":{"code":"x"}}"#)["error"], json!({"code": "x"}));
        assert_eq!(shown(Status::Failed, r#"{"message":"x"}"#)["error"], json!({"message": "x"}));
        assert_eq!(shown(Status::Failed, "gone")["error"], json!("gone"));
        assert_eq!(shown(Status::Cancelled, "{}").get("error"), None);
        let page: Value =
            serde_json::from_slice(&Plain.list(&[job(Status::Queued, None), job(Status::Running, None)], true))
                .unwrap();
        assert_eq!((&page["has_more"], &page["data"][1]["status"]), (&json!(true), &json!("running")));
        assert_eq!(page["last_id"], "job_1");
    }
}
