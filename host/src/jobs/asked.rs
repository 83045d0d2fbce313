// SPDX-License-Identifier: Apache-2.0
//! Answers requests about jobs. Only who has made a job sees it, at the route where it was made; to everybody else there is
//! none.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use penstock_dialects::codec::Operation;
use penstock_dialects::job::{JobAsk, JobCodec, Status};

use super::book::{Book, Page};
use super::record::{Answer, Record};
use super::store::StoreError;
use super::{blocking, shown};
use crate::failure::{Failure, Kind};
use crate::inbound::Asked;
use crate::plugin::types::Reply;
use crate::stages::Principal;
use crate::underway::Underway;

/// Jobs of one page if the caller does not say.
const PAGE: usize = 20;
/// Most jobs of one page.
const PAGE_MAX: usize = 100;
/// How soon it makes sense to look again.
const LOOK_AGAIN_S: &str = "2";

/// What a request asks about jobs; none if it is a request of another kind, or one for a new job.
#[must_use]
pub fn recognise(asked: &Asked) -> Option<JobAsk> {
    let place =
        asked.place.as_ref().filter(|_| asked.operation == Operation::Jobs || asked.operation.is_always_a_job())?;
    let ask = asked.dialect.jobs(asked.operation).recognise(place.method.as_str(), &place.path);
    match ask {
        Some(JobAsk::Create) => None,
        // An id that nobody has, so that the answer is that there is none.
        None => Some(JobAsk::One(String::new())),
        ask => ask,
    }
}

/// Answers it.
///
/// # Errors
/// `unknown-job`, `job-without-answer`, `jobs-broken`.
pub(super) async fn answer(
    book: &Arc<Book>,
    ask: JobAsk,
    underway: &Underway,
    asked: &Asked,
    principal: &Principal,
) -> Result<Reply, Failure> {
    let one = Ask { book, underway, asked, principal, codec: asked.dialect.jobs(asked.operation) };
    match ask {
        JobAsk::Create | JobAsk::List => Ok(one.list()),
        JobAsk::One(id) => {
            let record = one.find(&id)?;
            one.show(&record, StatusCode::OK).await
        }
        JobAsk::Answer(id) => one.answer(&id).await,
        JobAsk::Content(id) => one.content(&id).await,
        JobAsk::Cancel(id) => one.cancel(&id).await,
        JobAsk::Delete(id) if one.find(&id)?.status.is_over() => one.forget(&id).await,
        JobAsk::Delete(id) => one.cancel(&id).await,
        JobAsk::Forget(id) => one.forget(&id).await,
    }
}

struct Ask<'a> {
    book: &'a Arc<Book>,
    underway: &'a Underway,
    asked: &'a Asked,
    principal: &'a Principal,
    codec: &'static dyn JobCodec,
}

impl Ask<'_> {
    fn find(&self, id: &str) -> Result<Arc<Record>, Failure> {
        let record = self.book.find(id).filter(|record| {
            record.owner.is(&self.underway.route.name, &self.principal.subject) && self.is_meant(record)
        });
        record.ok_or_else(|| Failure::new(Kind::UnknownJob, "there is no such job here; it may have been forgotten"))
    }

    /// In the words of an operation only its own jobs can be shown.
    fn is_meant(&self, record: &Record) -> bool {
        self.asked.operation == Operation::Jobs || record.asked.operation == self.asked.operation.name()
    }

    fn list(&self) -> Reply {
        let query = self.asked.place.as_ref().map_or("", |place| place.query.as_str());
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let limit = value("limit").and_then(|limit| limit.parse().ok()).unwrap_or(PAGE).clamp(1, PAGE_MAX);
        let (records, more) = self.book.page(&Page {
            route: &self.underway.route.name,
            subject: &self.principal.subject,
            operation: Some(self.asked.operation).filter(|it| *it != Operation::Jobs).map(Operation::name),
            after: value("after").and_then(|id| id.strip_prefix(self.codec.prefix())),
            oldest_first: value("order") == Some("asc"),
            limit,
        });
        let kept = self.underway.snapshot.jobs.kept;
        let jobs: Vec<_> = records.iter().map(|record| shown(record, kept, None)).collect();
        json(StatusCode::OK, self.codec.list(&jobs, more))
    }

    async fn show(&self, record: &Record, status: StatusCode) -> Result<Reply, Failure> {
        let answer = if record.status.is_over() { self.stored(&record.id).await? } else { None };
        let body = answer.as_ref().map(|answer| &answer.body[..]);
        let kept = self.underway.snapshot.jobs.kept;
        let mut reply = json(status, self.codec.one(&shown(record, kept, body)));
        if !record.status.is_over() {
            reply.headers.push((header::RETRY_AFTER, HeaderValue::from_static(LOOK_AGAIN_S)));
        }
        Ok(reply)
    }

    /// The answer of a job as it would have been: status, headers, bytes.
    async fn answer(&self, id: &str) -> Result<Reply, Failure> {
        let answer = self.ended(id).await?;
        let mut headers = HeaderMap::new();
        for (name, value) in &answer.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.append(name, value);
            }
        }
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(Reply { status, headers, body: answer.body.to_vec() })
    }

    /// Sends the caller to where the work is. No credential goes there: the URL is the vendor's, and signed by it.
    async fn content(&self, id: &str) -> Result<Reply, Failure> {
        let record = self.find(id)?;
        let answer = self.ended(id).await?;
        let query = self.asked.place.as_ref().map_or("", |place| place.query.as_str());
        let variant = query.split('&').find_map(|pair| pair.strip_prefix("variant=")).unwrap_or("video");
        let url = self.codec.content(&answer.body).filter(|_| record.status == Status::Succeeded && variant == "video");
        let url = url.filter(|url| ["https://", "http://"].iter().any(|scheme| url.starts_with(scheme)));
        let location = url.and_then(|url| HeaderValue::try_from(url).ok());
        let location = location.ok_or_else(|| without(&record, "it has no such content"))?;
        let headers = vec![(header::LOCATION, location), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
        Ok(Reply { status: StatusCode::FOUND, headers, body: Vec::new() })
    }

    async fn cancel(&self, id: &str) -> Result<Reply, Failure> {
        self.find(id)?;
        self.call_off(id, false).await?;
        let record = self.find(id)?;
        self.show(&record, StatusCode::OK).await
    }

    async fn forget(&self, id: &str) -> Result<Reply, Failure> {
        self.find(id)?;
        self.call_off(id, true).await?;
        Ok(json(StatusCode::OK, self.codec.forgotten(id)))
    }

    async fn call_off(&self, id: &str, hide: bool) -> Result<(), Failure> {
        let (book, id) = (Arc::clone(self.book), id.to_owned());
        blocking(move || book.call_off(&id, hide)).await.map(|_| ()).map_err(broken)
    }

    async fn ended(&self, id: &str) -> Result<Answer, Failure> {
        let record = self.find(id)?;
        let why = format!("it is {}", record.status.name());
        self.stored(id).await?.ok_or_else(|| without(&record, &why))
    }

    async fn stored(&self, id: &str) -> Result<Option<Answer>, Failure> {
        let (book, id) = (Arc::clone(self.book), id.to_owned());
        blocking(move || book.answer(&id)).await.map_err(broken)
    }
}

fn without(record: &Record, why: &str) -> Failure {
    let failure = Failure::new(Kind::JobWithoutAnswer, format!("the job has no answer: {why}"));
    failure.retry_after((!record.status.is_over()).then_some(2000))
}

fn broken(error: StoreError) -> Failure {
    Failure::new(Kind::JobsBroken, "the jobs cannot be read or written now; tell the operator").because(error)
}

fn json(status: StatusCode, body: Vec<u8>) -> Reply {
    let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Reply { status, headers, body }
}
