// SPDX-License-Identifier: Apache-2.0
//! How a job is done: the request is made anew of what was written down, and goes the rest of the way with what is in force
//! now. What comes of it is the answer that a caller who waits would have got, byte for byte.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response};
use http_body_util::{BodyExt, Limited};
use penstock_dialects::codec::Operation;

use super::{Gateway, X_REQUEST_ID, estimate, first_answer, the_targets};
use crate::answer::{self, Outcome};
use crate::attempt::Asking;
use crate::failure::{Failure, Kind};
use crate::inbound::{Asked, Inbound, Place};
use crate::jobs::record::{Answer, Record};
use crate::jobs::{Perform, Performed, Standing, Work};
use crate::ledger::Entry;
use crate::listener::Peer;
use crate::relay::Body;
use crate::routes::{Models, Target};
use crate::stages::Principal;
use crate::underway::Underway;

impl Perform for Gateway {
    async fn perform(&self, mut work: Work) -> Performed {
        let record = Arc::clone(&work.record);
        let asked = asked(&record);
        let operation = asked.as_ref().map_or("", |asked| asked.operation.name());
        let (id, route) = (record.asked.request_id.as_str().into(), record.owner.route.as_str().into());
        let trace = self.traces.begin_job(&record.asked.method, &record.asked.path);
        let (metrics, directory) = (Arc::clone(&self.metrics), self.directory.clone());
        let mut entry = Entry::open(id, route, operation, metrics, directory, trace);
        entry.subject.clone_from(&record.owner.subject);
        entry.hold(work.permit.take());
        let mut target = String::new();
        let response = match self.underway(&work, asked.clone()) {
            Err(failure) => refusal(&failure, asked.as_ref(), &record, Some(entry)),
            Ok((underway, head)) => {
                let done = self.done(&work, &underway, &head, &mut entry).await;
                if !entry.vendor.is_empty() {
                    target = format!("{}/{}", entry.vendor, entry.model);
                }
                match done {
                    Ok(outcome) => answer::respond(outcome, &underway, entry),
                    Err(failure) => refusal(&failure, asked.as_ref(), &record, Some(entry)),
                }
            }
        };
        let bytes_max = self.snapshot.load().limits.answer_bytes_max;
        let (answer, well) = match gather(response, &record, bytes_max).await {
            Ok(answer) => answer,
            Err(failure) => {
                let refusal = refusal(&failure, asked.as_ref(), &record, None);
                gather(refusal, &record, usize::MAX).await.unwrap_or_else(|_| (nothing(), false))
            }
        };
        Performed { answer, well, target }
    }
}

impl Gateway {
    /// The request as it was when it had passed the stages.
    fn underway(&self, work: &Work, asked: Option<Asked>) -> Result<(Underway, Parts), Failure> {
        let snapshot = self.snapshot.load_full();
        let Record { owner, asked: was, .. } = &*work.record;
        let route = snapshot.routes.iter().find(|route| *route.name == *owner.route).cloned();
        let route = route.ok_or_else(|| {
            let message = format!("the route {} that accepted the job is not there any more", owner.route);
            Failure::new(Kind::NoRoute, message)
        })?;
        if asked.is_none() {
            let message = format!("this gateway does not know {} in {} any more", was.operation, was.dialect);
            return Err(Failure::new(Kind::UnknownOperation, message));
        }
        let query = if was.query.is_empty() { String::new() } else { format!("?{}", was.query) };
        let mut head = http::Request::builder().method(&*was.method).uri(format!("{}{query}", was.path));
        for (name, value) in &was.headers {
            head = head.header(name, value);
        }
        let head = head.body(()).map_err(|error| {
            Failure::new(Kind::JobsBroken, "what was written down of the job is no request").because(error)
        })?;
        let underway = Underway {
            snapshot,
            route,
            asked,
            id: was.request_id.as_str().into(),
            peer: Peer::detached(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            client_ip: owner.client_ip.as_str().into(),
            deadline: work.deadline,
        };
        Ok((underway, head.into_parts().0))
    }

    async fn done(
        &self,
        work: &Work,
        underway: &Underway,
        head: &Parts,
        entry: &mut Entry,
    ) -> Result<Outcome, Failure> {
        let owner = &work.record.owner;
        let (subject, tenant, attributes) = (owner.subject.clone(), owner.tenant.clone(), owner.attributes.clone());
        let principal = Principal::before(subject, tenant, attributes, &self.directory);
        entry.asked_by(&principal);
        let Some(asked) = &underway.asked else { return Err(unreadable()) };
        let begun = match &work.standing {
            Standing::Fresh => None,
            Standing::Begun(target) => Some(begun(&underway.snapshot.models, target)?),
            Standing::Unclear(target) => return Err(unclear(target)),
            Standing::Unreadable => return Err(unreadable()),
        };
        let inbound = Inbound::parse(asked, head, &work.body)?;
        entry.made = inbound.made();
        let facts = underway.facts();
        let facts = principal.facts(&facts);
        let call = underway.call(&principal, Some(&inbound), &facts);
        let alias = underway.snapshot.models.resolve(&inbound.model);
        if !entry.holds_permit() {
            // The process that admitted it has ended, and what it had reserved with it.
            let estimate = || estimate(underway, &inbound, alias.as_deref());
            entry.hold(self.gate.admit_again(&underway.route.limits, &principal, &call, &estimate)?);
        }
        let targets = match begun {
            Some(target) => vec![target],
            None => the_targets(underway, &inbound, alias.as_deref(), &call, head)?,
        };
        let asking = Asking::new(underway, &self.client, head, &inbound, &principal).with_journal(&*work.journal);
        let asking = asking.traced(entry.outgoing());
        let answer = first_answer(&self.gate, &asking, &targets, None, entry).await.map_err(|mut failure| {
            if failure.kind == Kind::TotalTimeout {
                "the job was not done within jobs.deadline_s".clone_into(&mut failure.fault.message);
            }
            failure
        })?;
        Ok(Outcome::Answer(Box::new(answer)))
    }
}

/// What was asked for; none if it is unknown here, as after a step back to an older version.
fn asked(record: &Record) -> Option<Asked> {
    let was = &record.asked;
    let place = |path: &String| Place {
        method: Method::from_bytes(was.method.as_bytes()).unwrap_or_default(),
        path: path.clone(),
        query: was.query.clone(),
    };
    Some(Asked {
        dialect: penstock_dialects::by_name(&was.dialect)?,
        operation: Operation::from_name(&was.operation)?,
        model: was.model_in_path.then(|| was.model.clone()),
        streaming: Some(false),
        array: false,
        place: was.place.as_ref().map(place),
    })
}

/// The target that has begun the work: nobody else can go on with it, and whatever names lead to it now, it is there.
fn begun(models: &Models, target: &str) -> Result<Target, Failure> {
    let found = target.split_once('/').and_then(|(vendor, model)| Some((models.vendors.get(vendor)?, model)));
    found.map(|(vendor, model)| models.target(vendor, model)).ok_or_else(|| {
        let message = format!("{target} has begun the job, and is not in the policy any more");
        Failure::new(Kind::NoTarget, message)
    })
}

fn unclear(target: &str) -> Failure {
    let message = format!(
        "the gateway ended while the request was on its way to {target}; it may have arrived, so it is not sent a second \
         time: look there, or ask anew"
    );
    Failure::new(Kind::JobInterrupted, message)
}

fn unreadable() -> Failure {
    Failure::new(Kind::JobsBroken, "what was asked cannot be read any more; tell the operator, and ask anew")
}

fn refusal(failure: &Failure, asked: Option<&Asked>, record: &Record, entry: Option<Entry>) -> Response<Body> {
    answer::refusal(failure, asked, &record.asked.request_id, entry)
}

/// An answer with its whole body, and whether it is one.
async fn gather(response: Response<Body>, record: &Record, bytes_max: usize) -> Result<(Answer, bool), Failure> {
    let (mut head, body) = response.into_parts();
    let body = Limited::new(body, bytes_max).collect().await;
    let body = body.map_err(|error| Failure::new(Kind::Cut, "the answer broke off before its end").because(error))?;
    if let Ok(id) = HeaderValue::from_str(&record.asked.request_id) {
        head.headers.entry(X_REQUEST_ID).or_insert(id);
    }
    let text = |value: &HeaderValue| value.to_str().map(str::to_owned).ok();
    let headers = head.headers.iter().filter_map(|(name, value)| Some((name.to_string(), text(value)?))).collect();
    let answer = Answer { status: head.status.as_u16(), headers, body: body.to_bytes() };
    Ok((answer, head.status.is_success()))
}

fn nothing() -> Answer {
    Answer { status: 500, headers: Vec::new(), body: Bytes::new() }
}
