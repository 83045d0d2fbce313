// SPDX-License-Identifier: Apache-2.0
//! How a request becomes a job. It has passed every stage by then; what follows is done later, by [`super::perform`].

use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};
use penstock_dialects::job::Status;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::Gateway;
use crate::canonical::Canonical;
use crate::clock;
use crate::config::place::hex;
use crate::failure::{Failure, Kind};
use crate::inbound::{Content, Inbound, text, without_credentials};
use crate::jobs::record::{self, Owner, Record, Report};
use crate::jobs::{self, Refused, Room};
use crate::ledger::Entry;
use crate::plugin::types::Reply;
use crate::routes::Target;
use crate::stages::Principal;
use crate::underway::Underway;

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// Longest key of a caller.
const KEY_BYTES_MAX: usize = 255;
/// What a caller is told to wait when there is no room for another job.
const FULL_MS: u64 = 60_000;
/// Words in the names of headers that hold a credential. Such a header is not kept, whichever adapter wants to see it.
const CREDENTIALS: [&str; 7] = ["auth", "cookie", "credential", "key", "password", "secret", "token"];

/// That a request is to become a job.
pub(super) struct Wish {
    /// The caller has said so.
    preferred: bool,
}

impl Wish {
    /// Only whole answers in a canonical form can be kept; of other requests the preference is ignored (RFC 7240, section 2).
    pub(super) fn of(head: &Parts, inbound: &Inbound<'_>) -> Option<Self> {
        let operation = inbound.asked.operation;
        let preferred = prefers_async(head) && operation.is_canonical() && !inbound.streaming;
        (preferred || operation.is_always_a_job()).then_some(Self { preferred })
    }
}

fn prefers_async(head: &Parts) -> bool {
    let values = head.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    preferences.any(|preference| {
        let name = preference.split([';', '=']).next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case("respond-async")
    })
}

/// A request that has passed the stages.
pub(super) struct Request<'r> {
    pub(super) underway: &'r Underway,
    pub(super) head: &'r Parts,
    pub(super) inbound: &'r Inbound<'r>,
    pub(super) principal: &'r Principal,
}

impl Gateway {
    /// Accepts a request as a job.
    pub(super) async fn accept(
        &self,
        wish: &Wish,
        request: &Request<'_>,
        targets: &[Target],
        entry: &mut Entry,
    ) -> Result<Reply, Failure> {
        let Request { underway, inbound, .. } = request;
        let operation = inbound.asked.operation;
        if !targets.iter().any(|target| target.vendor.adapter.serves(operation.name())) {
            let message = format!("no vendor of {} has {}; name another model", inbound.model, operation.name());
            return Err(Failure::new(Kind::Unsupported, message));
        }
        if operation.is_always_a_job() {
            // It will be translated, and what is wrong with it can be told now.
            Canonical::read(inbound, underway.snapshot.limits.blob_bytes_min)?;
        }
        let record = request.record(targets)?;
        let rules = &underway.snapshot.jobs;
        let room = Room { max: rules.max, bytes_max: rules.bytes_max };
        let submitted = self.jobs.submit(record, inbound.body.clone(), entry.release(), room).await;
        let submitted = submitted.map_err(|refused| match refused {
            Refused::Full(limit) => {
                let message = format!("there is no room for another job ({limit}); delete some, or try again later");
                Failure::new(Kind::JobsFull, message).retry_after(Some(FULL_MS))
            }
            Refused::KeyReused => {
                let message = "this idempotency-key was used before for another request; take another key";
                Failure::new(Kind::KeyReused, message)
            }
            Refused::Broken(error) => {
                Failure::new(Kind::JobsBroken, "the job cannot be kept; it is not begun").because(error)
            }
        })?;
        let record = &submitted.record;
        tracing::info!(job = record.id, request = %underway.id, route = %underway.route.name, known = submitted.known, "a job is accepted");
        Ok(accepted(wish, request, record))
    }
}

/// Tells a caller of its job.
fn accepted(wish: &Wish, request: &Request<'_>, record: &Record) -> Reply {
    let Request { underway, inbound, .. } = request;
    let codec = inbound.asked.dialect.jobs(inbound.asked.operation);
    let body = codec.one(&jobs::shown(record, underway.snapshot.jobs.kept, None));
    let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    if let Ok(location) = HeaderValue::try_from(format!("{}/jobs/job_{}", underway.route.prefix, record.id)) {
        headers.push((header::LOCATION, location));
    }
    if wish.preferred {
        headers.push((PREFERENCE_APPLIED, HeaderValue::from_static("respond-async")));
    }
    let status = if record.status.is_over() { StatusCode::OK } else { StatusCode::ACCEPTED };
    if record.status == Status::Queued || record.status == Status::Running {
        headers.push((header::RETRY_AFTER, HeaderValue::from_static("1")));
    }
    Reply { status, headers, body }
}

impl Request<'_> {
    /// What is written down of it.
    fn record(&self, targets: &[Target]) -> Result<Record, Failure> {
        let Request { underway, head, principal, .. } = self;
        let rules = &underway.snapshot.jobs;
        let report = text(&head.headers, "penstock-webhook").map(|url| {
            let report = Report { url: url.to_owned(), tries: 0, next_ms: None };
            let message = "penstock-webhook: the policy allows no report to this URL (jobs.webhooks)";
            rules.webhook(url).map(|_| report).ok_or_else(|| Failure::new(Kind::WebhookRefused, message))
        });
        let key = text(&head.headers, "idempotency-key").filter(|key| !key.is_empty());
        if key.is_some_and(|key| key.len() > KEY_BYTES_MAX) {
            return Err(Failure::new(Kind::BadHead, format!("idempotency-key: at most {KEY_BYTES_MAX} bytes")));
        }
        let (id, created_ms) = jobs::new_id()
            .map_err(|error| Failure::new(Kind::JobsBroken, "the job cannot be given an id").because(error))?;
        let deadline_ms = clock::millis(rules.deadline);
        Ok(Record {
            id,
            owner: Owner {
                route: underway.route.name.to_string(),
                subject: principal.subject.clone(),
                tenant: principal.tenant.clone(),
                attributes: principal.attributes.clone(),
                client_ip: underway.client_ip.to_string(),
            },
            asked: self.asked(targets),
            status: Status::Queued,
            created_ms,
            started_ms: None,
            ended_ms: None,
            deadline_ms: created_ms.saturating_add(deadline_ms),
            key: key.map(str::to_owned),
            digest: self.digest(),
            sent: None,
            to_cancel: false,
            hidden: false,
            target: String::new(),
            report: report.transpose()?,
            bytes: 0,
        })
    }

    fn asked(&self, targets: &[Target]) -> record::Asked {
        let Request { underway, head, inbound, .. } = self;
        let asked = inbound.asked;
        let wants = targets.iter().flat_map(|target| &target.vendor.adapter.wants().headers).map(HeaderName::as_str);
        let mut names: Vec<&str> = wants.chain([header::CONTENT_TYPE.as_str()]).collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !CREDENTIALS.iter().any(|word| name.contains(word)));
        let values = |name: &str| head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let headers = names.iter().flat_map(|name| values(name).map(|value| ((*name).to_owned(), value.to_owned())));
        record::Asked {
            request_id: underway.id.to_string(),
            dialect: asked.dialect.name().to_owned(),
            operation: asked.operation.name().to_owned(),
            model: inbound.model.clone(),
            model_in_path: asked.model.is_some(),
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: without_credentials(head.uri.query().unwrap_or_default()),
            place: asked.place.as_ref().map(|place| place.path.clone()),
            headers: headers.collect(),
            repeated: self.repeated(),
        }
    }

    fn repeated(&self) -> Map<String, Value> {
        let names = self.inbound.asked.dialect.jobs(self.inbound.asked.operation).repeated();
        let value = |name: &str| match &self.inbound.content {
            Content::Json(members) => serde_json::from_str(members.get(name)?).ok(),
            content => content.text(name).map(Value::from),
        };
        names.iter().filter_map(|name| Some(((*name).to_owned(), value(name)?))).collect()
    }

    /// SHA-256 over what is asked. Of a form it is that of the fields: whoever sends one again draws another boundary.
    fn digest(&self) -> String {
        let Request { head, inbound, .. } = self;
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(inbound.asked.operation.name().as_bytes());
        part(head.uri.path().as_bytes());
        part(without_credentials(head.uri.query().unwrap_or_default()).as_bytes());
        match &inbound.content {
            Content::Form(form) => form.iter().for_each(|(field, content)| {
                part(field.name.as_bytes());
                part(field.filename.as_deref().unwrap_or_default().as_bytes());
                part(content);
            }),
            Content::Json(_) | Content::Raw => part(inbound.body),
        }
        hex(&hash.finalize())
    }
}
