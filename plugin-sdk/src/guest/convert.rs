// SPDX-License-Identifier: Apache-2.0
//! The types of the contract and the author's types, both ways. Values are moved, not copied, wherever the shapes allow it.

use penstock_dialects::ir;

use super::bindings::adapter::exports::penstock::plugin::adapter as wit_adapter;
use super::bindings::auth::exports::penstock::plugin::auth as wit_auth;
use super::bindings::limits::exports::penstock::plugin::limits as wit_limits;
use super::bindings::routing::exports::penstock::plugin::routing as wit_routing;
use super::bindings::{filter_types as wit_filter, requests as wit_requests, types as wit};
use crate::adapter::{Blob, Body, Framing, Placed, PlacedValue, Plan, Upstream};
use crate::call::Call;
use crate::policy::{Check, Edit, Grant, Target, Verdict};

impl From<wit::Call> for Call {
    fn from(call: wit::Call) -> Self {
        Self {
            id: call.id,
            operation: call.operation,
            dialect: call.dialect,
            model: call.model,
            streaming: call.streaming,
            attempt: call.attempt,
            deadline_ms: call.deadline_ms,
            subject: call.subject,
            tenant: call.tenant,
            facts: call.facts,
        }
    }
}

pub(super) fn fault(fault: ir::Fault) -> wit::Fault {
    wit::Fault {
        class: fault.class.name().to_owned(),
        message: fault.message,
        code: fault.code,
        retry_after_ms: fault.retry_after_ms,
    }
}

fn usage(usage: ir::Usage) -> wit::Usage {
    wit::Usage {
        input: usage.input,
        cache_read: usage.cache_read,
        cache_write: usage.cache_write,
        output: usage.output,
        reasoning: usage.reasoning,
        more: usage.more,
        stated: usage.stated,
    }
}

fn event(event: ir::Event) -> wit_adapter::Event {
    use wit_adapter::Event;
    match event {
        ir::Event::Start { id, model } => Event::Start((id, model)),
        ir::Event::Text(text) => Event::Text(text),
        ir::Event::Reasoning(text) => Event::Reasoning(text),
        ir::Event::Signature(seal) => Event::Signature(seal),
        ir::Event::Redacted(data) => Event::Redacted(data),
        ir::Event::Tool { index, id, name } => Event::Tool(wit_adapter::ToolHead { index, id, name }),
        ir::Event::ToolInput { index, json } => Event::ToolInput(wit_adapter::ToolPiece { index, json }),
        ir::Event::Refusal(text) => Event::Refusal(text),
        ir::Event::BlockEnd => Event::BlockEnd,
        ir::Event::Usage(tokens) => Event::Usage(usage(tokens)),
        ir::Event::Finish(ir::Finish { reason, sequence }) => Event::Finish(wit_adapter::Finish { reason, sequence }),
        ir::Event::Fault(failure) => Event::Fault(fault(failure)),
        ir::Event::Other { name, json } => Event::Other((name, json)),
    }
}

pub(super) fn events(events: Vec<ir::Event>) -> Vec<wit_adapter::Event> {
    events.into_iter().map(event).collect()
}

impl From<wit_adapter::Blob> for Blob {
    fn from(blob: wit_adapter::Blob) -> Self {
        Self { marker: blob.marker, media_type: blob.media_type, length: blob.length }
    }
}

impl From<Placed> for wit_requests::Placed {
    fn from(placed: Placed) -> Self {
        let value = match placed.value {
            PlacedValue::Text(text) => wit_requests::Value::Text(text),
            PlacedValue::Secret { prefix, secret } => wit_requests::Value::Secret((prefix, secret)),
        };
        Self { name: placed.name, value }
    }
}

impl From<Upstream> for wit_requests::Upstream {
    fn from(upstream: Upstream) -> Self {
        let body = match upstream.body {
            Body::None => wit_requests::Body::None,
            Body::Bytes(bytes) => wit_requests::Body::Bytes(bytes),
            Body::Splice(edits) => wit_requests::Body::Splice(edits),
        };
        let framing = match upstream.framing {
            Framing::Whole => wit_requests::Framing::Whole,
            Framing::Sse => wit_requests::Framing::Sse,
            Framing::JsonLines => wit_requests::Framing::JsonLines,
            Framing::AwsEventStream => wit_requests::Framing::AwsEventStream,
            Framing::JsonArray => wit_requests::Framing::JsonArray,
        };
        Self {
            method: upstream.method,
            endpoint: upstream.endpoint,
            path: upstream.path,
            query: upstream.query.into_iter().map(Into::into).collect(),
            headers: upstream.headers.into_iter().map(Into::into).collect(),
            body,
            framing,
            after_ms: upstream.after_ms,
            dropped: upstream.dropped,
        }
    }
}

impl From<Plan> for wit_adapter::Plan {
    fn from(plan: Plan) -> Self {
        match plan {
            Plan::Ask(upstream) => Self::Ask(upstream.into()),
            Plan::Answer(answer) => Self::Answer(events(answer)),
        }
    }
}

impl From<Grant> for wit_auth::Grant {
    fn from(grant: Grant) -> Self {
        Self { subject: grant.subject, tenant: grant.tenant, attributes: grant.attributes, cache_ms: grant.cache_ms }
    }
}

impl From<Check> for wit_limits::Check {
    fn from(check: Check) -> Self {
        Self {
            key: check.key,
            algorithm: check.algorithm.name().to_owned(),
            counted: check.counted.name().to_owned(),
            limit: check.limit,
            window_ms: check.window_ms,
            burst: check.burst,
            label: check.label,
        }
    }
}

impl From<wit_routing::Target> for Target {
    fn from(target: wit_routing::Target) -> Self {
        Self {
            id: target.id,
            vendor: target.vendor,
            model: target.model,
            weight: target.weight,
            priority: target.priority,
            healthy: target.healthy,
            latency_ms: target.latency_ms,
            inflight: target.inflight,
            facts: target.facts,
        }
    }
}

impl From<Edit> for wit_filter::Edit {
    fn from(edit: Edit) -> Self {
        match edit {
            Edit::Set(name, value) => Self::Set((name, value)),
            Edit::Add(name, value) => Self::Add((name, value)),
            Edit::Remove(name) => Self::Remove(name),
        }
    }
}

impl From<Verdict> for wit_filter::Verdict {
    fn from(verdict: Verdict) -> Self {
        Self {
            request: verdict.request.into_iter().map(Into::into).collect(),
            response: verdict.response.into_iter().map(Into::into).collect(),
            answer: verdict.answer.map(|reply| wit_filter::Reply {
                status: reply.status,
                headers: reply.headers,
                body: reply.body,
            }),
        }
    }
}
