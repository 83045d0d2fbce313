// SPDX-License-Identifier: Apache-2.0
//! Runs golden cases with a component: those that it carries, whenever it is loaded, and any others for
//! `penstock plugin test`. Cases bring their own configuration and test secrets; nothing of the operator's is involved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderName;
use penstock_dialects::framing::{Frame, Kind as Cut};
use penstock_dialects::ir::Event;
use penstock_vectors::case::{self, Ask, Case, Pairs};
use penstock_vectors::run::{Failed, Plan, Unfit, Upstream, run};
use penstock_vectors::{Outcome, Subject};
use serde_json::{Map, Value, json};

use super::adapter::{Adapter, Exchange};
use super::auth::Auth as AuthPlugin;
use super::component::{Component, Plugin, Settings};
use super::order::Share;
use super::types::{
    Blob, Body, Call, CallError, Candidate, Check, Counted, Edit, Framing, Grant, Pair, Placed, Plan as HostPlan, Rule,
    UpstreamRequest, Value as PlacedValue, Verdict, Whose,
};
use crate::config::{Auth, Isolation};
use crate::documents::Documents;
use crate::keys::{Grants, Secret};
use crate::state::Memory;
use crate::state::charge::Algorithm;

/// A case that breaks is tried so often: on a busy machine a deadline can pass without the plugin's fault.
const TRIES: u32 = 3;

/// Values that a plugin may keep during a case.
const STATE_ENTRIES_MAX: usize = 1_000;

/// Runs the cases that a component carries: how many passed.
///
/// # Errors
/// The first case that did not pass, with everything that differs.
pub fn run_embedded(component: &Arc<Component>, vectors: &[u8]) -> Result<usize, String> {
    let cases = Case::read_embedded(vectors)?;
    for case in &cases {
        run_case(component, case).map_err(|differences| format!("{}: {}", case.name, differences.join("; ")))?;
    }
    Ok(cases.len())
}

/// Runs one case with a component.
///
/// # Errors
/// Everything that differs from what the case expects.
pub fn run_case(component: &Arc<Component>, case: &Case) -> Result<Outcome, Vec<String>> {
    let mut result = run(case, &mut ComponentSubject::new(component));
    for _ in 1..TRIES {
        if result.is_ok() {
            break;
        }
        result = run(case, &mut ComponentSubject::new(component));
    }
    result
}

/// A component under test.
struct ComponentSubject {
    component: Arc<Component>,
    plugin: Option<Plugin>,
    exchange: Option<Exchange>,
}

impl ComponentSubject {
    fn new(component: &Arc<Component>) -> Self {
        Self { component: Arc::clone(component), plugin: None, exchange: None }
    }

    fn adapter(&self) -> Result<&Arc<Adapter>, Failed> {
        match &self.plugin {
            Some(Plugin::Adapter(adapter)) => Ok(adapter),
            _ => Err(Failed::Broken("only an adapter has exchanges".to_owned())),
        }
    }

    fn wants(&self) -> Value {
        let wants = match &self.plugin {
            Some(Plugin::Adapter(plugin)) => plugin.wants().clone(),
            Some(Plugin::Auth(plugin)) => plugin.wants().clone(),
            Some(Plugin::Filter(plugin)) => plugin.wants().clone(),
            Some(Plugin::Routing(plugin)) => plugin.wants().clone(),
            Some(Plugin::Limits(_)) | None => super::types::Wants::default(),
        };
        let names = |headers: &[HeaderName]| headers.iter().map(HeaderName::as_str).collect::<Value>();
        json!({
            "headers": names(&wants.headers),
            "response_headers": names(&wants.response_headers),
            "members": wants.members,
        })
    }
}

impl Subject for ComponentSubject {
    fn configure(&mut self, config: &Value, secrets: &BTreeMap<String, String>) -> Result<Value, Unfit> {
        let mut grants = Grants::default();
        for (name, text) in secrets {
            grants.insert(name.clone(), Arc::new(Secret::new(text.clone().into_bytes())));
        }
        let settings = Settings {
            name: format!("{}-self-test", self.component.manifest().name),
            config: config.clone(),
            secrets: grants,
            isolation: Isolation::Shared,
            state: Arc::new(Memory::new(STATE_ENTRIES_MAX)),
            directory: None,
            documents: Arc::new(Documents::new(&Auth::default())),
            metrics: prometheus::Registry::new(),
        };
        // The exchange of the plugin before must not outlive it.
        self.exchange = None;
        match self.component.configure(settings) {
            Ok(plugin) => {
                self.plugin = Some(plugin);
                Ok(self.wants())
            }
            Err(refusal) if refusal.code == "config-invalid" => Err(Unfit::Schema(refusal.to_string())),
            Err(refusal) if !refusal.issues.is_empty() => {
                let issues = refusal.issues.iter();
                let issues = issues.map(|issue| json!({ "path": issue.path, "message": issue.message }));
                Err(Unfit::Issues(issues.collect()))
            }
            Err(refusal) => Err(Unfit::Broken(refusal.to_string())),
        }
    }

    fn ask(&mut self, call: &case::Call, ask: &Ask) -> Result<Value, Failed> {
        let facts = pairs(&call.facts);
        let call = told(call, &facts);
        match (&self.plugin, ask) {
            (Some(Plugin::Adapter(plugin)), Ask::Relay { headers, members }) => {
                let members: Vec<_> = members.iter().map(|(name, value)| (name.as_str(), value.to_string())).collect();
                let members: Vec<Pair<'_>> = members.iter().map(|(name, json)| (*name, json.as_str())).collect();
                plugin.relay(&call, &pairs(headers), &members).map(|upstream| upstream_json(&upstream)).map_err(failed)
            }
            (Some(Plugin::Adapter(plugin)), Ask::Reject(answer)) => plugin
                .reject(answer.status, &pairs(&answer.headers), &answer.bytes())
                .map(|fault| json!(fault))
                .map_err(failed),
            (Some(Plugin::Auth(plugin)), Ask::Authenticate { headers, documents }) => {
                authenticate(plugin, &call, &pairs(headers), documents).map(grant_json).map_err(failed)
            }
            (Some(Plugin::Limits(plugin)), Ask::Plan { rules }) => {
                let rules = rules.iter().map(rule).collect::<Result<_, _>>()?;
                plugin
                    .plan(Whose::Callers, &call, &rules)
                    .map(|checks| checks.iter().map(check_json).collect())
                    .map_err(failed)
            }
            (Some(Plugin::Routing(plugin)), Ask::Rank { targets, seed }) => {
                let facts: Vec<_> = targets.iter().map(|target| pairs(&target.facts)).collect();
                let candidates: Vec<_> =
                    targets.iter().zip(&facts).map(|(target, facts)| candidate(target, facts)).collect();
                let order =
                    plugin.rank(&Call { facts: &[], ..call }, call.facts, &candidates, *seed).map_err(failed)?;
                Ok(order.0.iter().map(|group| group_json(group)).collect())
            }
            (Some(Plugin::Filter(plugin)), Ask::RequestHead { method, path, headers }) => plugin
                .request_head(&call, method, path, &pairs(headers))
                .map(|verdict| verdict_json(&verdict))
                .map_err(failed),
            (Some(Plugin::Filter(plugin)), Ask::ResponseHead { status, headers }) => plugin
                .response_head(&call, *status, &pairs(headers))
                .map(|edits| edits.iter().flatten().map(edit_json).collect())
                .map_err(failed),
            (_, other) => Err(Failed::Broken(format!("a plugin of this kind cannot be asked this: {other:?}"))),
        }
    }

    fn open(&mut self, call: &case::Call, headers: &Pairs, body: &[u8], blobs: &[case::Blob]) -> Result<Plan, Failed> {
        self.exchange = None;
        let facts = pairs(&call.facts);
        let blobs: Vec<_> = blobs
            .iter()
            .map(|blob| Blob { marker: &blob.marker, media_type: &blob.media_type, length: blob.length })
            .collect();
        let opened = self.adapter()?.open(&told(call, &facts), &pairs(headers), body, &blobs);
        let (exchange, plan) = opened.map_err(failed)?;
        self.exchange = Some(exchange);
        Ok(match plan {
            HostPlan::Ask(upstream) => Plan::Ask(asked(&upstream)?),
            HostPlan::Answer(events) => Plan::Answer(events),
        })
    }

    fn frames(&mut self, frames: &[Frame<'_>]) -> Result<Vec<Event>, Failed> {
        let exchange = self.exchange.as_mut().ok_or_else(unopened)?;
        Ok(exchange.frames(frames).map_err(failed)?.events)
    }

    fn finish(&mut self, status: u16, headers: &Pairs, body: &[u8]) -> Result<(Vec<Event>, Option<Upstream>), Failed> {
        let exchange = self.exchange.as_mut().ok_or_else(unopened)?;
        let step = exchange.finish(status, &pairs(headers), body).map_err(failed)?;
        Ok((step.events, step.next.as_ref().map(asked).transpose()?))
    }
}

/// Asks as the host does: what others have answered is there when the plugin has wished for it.
fn authenticate(
    plugin: &AuthPlugin,
    call: &Call<'_>,
    headers: &[Pair<'_>],
    documents: &[case::Document],
) -> Result<Grant, CallError> {
    let begun = Instant::now();
    let mut verified = plugin.authenticate(call, headers, begun);
    for _ in 0..documents.len() {
        for wish in &verified.wishes {
            let asked = upstream_json(&wish.request);
            if let Some(known) = documents.iter().find(|known| known.request == asked) {
                plugin.documents().keep(&wish.entry.value, known.status, known.bytes().into(), Instant::now());
            }
        }
        if verified.wishes.is_empty() {
            break;
        }
        verified = plugin.authenticate(call, headers, begun);
    }
    verified.grant
}

fn unopened() -> Failed {
    Failed::Broken("there is no exchange".to_owned())
}

fn failed(error: CallError) -> Failed {
    match error {
        CallError::Fault(fault) => Failed::Fault(fault),
        broken @ CallError::Broken { .. } => Failed::Broken(broken.to_string()),
    }
}

fn pairs(pairs: &Pairs) -> Vec<Pair<'_>> {
    pairs.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn told<'c>(call: &'c case::Call, facts: &'c [Pair<'c>]) -> Call<'c> {
    Call {
        id: &call.id,
        operation: &call.operation,
        dialect: &call.dialect,
        model: &call.model,
        streaming: call.streaming,
        attempt: call.attempt,
        deadline_ms: call.deadline_ms,
        subject: call.subject.as_deref(),
        tenant: call.tenant.as_deref(),
        facts,
    }
}

fn candidate<'t>(target: &'t case::Target, facts: &'t [Pair<'t>]) -> Candidate<'t> {
    Candidate {
        id: &target.id,
        vendor: &target.vendor,
        model: &target.model,
        weight: target.weight,
        priority: target.priority,
        healthy: target.healthy,
        latency_ms: target.latency_ms,
        inflight: target.inflight,
        facts,
    }
}

fn asked(upstream: &UpstreamRequest) -> Result<Upstream, Failed> {
    let framing = match upstream.framing {
        Framing::Whole => None,
        Framing::Sse => Some(Cut::Sse),
        Framing::JsonLines => Some(Cut::JsonLines),
        Framing::JsonArray => Some(Cut::JsonArray),
        Framing::AwsEventStream => Some(Cut::AwsEventStream),
    };
    Ok(Upstream { json: upstream_json(upstream), framing })
}

/// The form in which cases state an upstream request ([`Upstream::json`]).
fn upstream_json(upstream: &UpstreamRequest) -> Value {
    let mut json = Map::new();
    let mut set = |name: &str, value: Value| {
        json.insert(name.to_owned(), value);
    };
    set("method", upstream.method.as_str().into());
    set("path", upstream.path.as_str().into());
    if !upstream.query.is_empty() {
        set("query", upstream.query.iter().map(placed_json).collect());
    }
    if !upstream.headers.is_empty() {
        set("headers", upstream.headers.iter().map(placed_json).collect());
    }
    let text = |bytes: &Vec<u8>| Value::String(String::from_utf8_lossy(bytes).into_owned());
    let body = match &upstream.body {
        Body::None => Value::Null,
        Body::Bytes(bytes) => serde_json::from_slice(bytes).unwrap_or_else(|_| text(bytes)),
        Body::Splice(edits) => {
            let edits: Map<_, _> = edits.iter().map(|(name, raw)| (name.clone(), raw.clone().into())).collect();
            json!({ "splice": edits })
        }
    };
    set("body", body);
    let framing = match upstream.framing {
        Framing::Whole => "whole",
        Framing::Sse => "sse",
        Framing::JsonLines => "json-lines",
        Framing::AwsEventStream => "aws-event-stream",
        Framing::JsonArray => "json-array",
    };
    set("framing", framing.into());
    if !upstream.endpoint.is_empty() {
        set("endpoint", upstream.endpoint.as_str().into());
    }
    if upstream.after_ms > 0 {
        set("after_ms", upstream.after_ms.into());
    }
    if !upstream.dropped.is_empty() {
        set("dropped", json!(upstream.dropped));
    }
    Value::Object(json)
}

fn placed_json(placed: &Placed) -> Value {
    match &placed.value {
        PlacedValue::Text(text) => json!([placed.name, text]),
        PlacedValue::Secret { prefix, name } => json!([placed.name, { "prefix": prefix, "secret": name }]),
    }
}

fn grant_json(grant: Grant) -> Value {
    let mut json = json!({ "subject": grant.subject, "cache_ms": grant.cache_ms });
    if let Some(tenant) = grant.tenant {
        json["tenant"] = tenant.into();
    }
    if !grant.attributes.is_empty() {
        json["attributes"] = json!(grant.attributes);
    }
    json
}

fn rule(rule: &case::Rule) -> Result<Rule, Failed> {
    let known = Algorithm::of_name(&rule.algorithm).zip(Counted::of_name(&rule.counted));
    let (algorithm, counted) =
        known.ok_or_else(|| Failed::Broken(format!("no limit of {} by {}", rule.counted, rule.algorithm)))?;
    let case::Rule { scope, limit, window_ms, burst, label, .. } = rule.clone();
    Ok(Rule { scope: scope.into(), algorithm, counted, limit, window_ms, burst, label: label.into() })
}

fn group_json(group: &[Share]) -> Value {
    case::group(&group.iter().map(|share| (share.target, share.weight)).collect::<Vec<_>>())
}

fn check_json(check: &Check) -> Value {
    let mut json = json!({
        "key": check.key,
        "algorithm": check.charge.algorithm.name(),
        "counted": check.counted.name(),
        "limit": check.charge.limit,
        "window_ms": check.window_ms,
        "label": &*check.label,
    });
    // As plugins say it: what a full bucket holds is its limit unless it says otherwise.
    if check.charge.burst != check.charge.limit {
        json["burst"] = check.charge.burst.into();
    }
    json
}

fn verdict_json(verdict: &Verdict) -> Value {
    let mut json = json!({});
    if !verdict.request.is_empty() {
        json["request"] = verdict.request.iter().map(edit_json).collect();
    }
    if !verdict.response.is_empty() {
        json["response"] = verdict.response.iter().map(edit_json).collect();
    }
    if let Some(reply) = &verdict.answer {
        let mut answer = json!({ "status": reply.status.as_u16() });
        if !reply.headers.is_empty() {
            answer["headers"] = reply.headers.iter().map(|(name, value)| json!([name.as_str(), text(value)])).collect();
        }
        if !reply.body.is_empty() {
            answer["body"] = String::from_utf8_lossy(&reply.body).into();
        }
        json["answer"] = answer;
    }
    json
}

fn edit_json(edit: &Edit) -> Value {
    match edit {
        Edit::Set(name, value) => json!({ "set": [name.as_str(), text(value)] }),
        Edit::Add(name, value) => json!({ "add": [name.as_str(), text(value)] }),
        Edit::Remove(name) => json!({ "remove": name.as_str() }),
    }
}

fn text(value: &http::HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
