// SPDX-License-Identifier: Apache-2.0
//! Between the contract's types and the host's own, and the check of everything that comes out of a guest.
//!
//! A guest is not trusted: names and values of headers are parsed, paths cannot leave their base, lists and texts have
//! ceilings. What does not pass is [`Invalid`], an error of that call alone; the instance lives on.

use http::{HeaderName, HeaderValue, Method, StatusCode};
use penstock_dialects::ir;

use super::bindings::exports::penstock::plugin::{adapter, auth, credentials, limits, routing};
use super::bindings::penstock::plugin::{filter_types, requests, rules, types as wit};
use super::order::{Order, Share};
use super::types::{self, Broken, CallError};
use crate::keys::Grants;
use crate::state::charge::{Algorithm, Charge};

/// Headers or query parameters of one request, edits of one head.
const FIELDS_MAX: usize = 128;
/// Longest name or value of a header, path, query value, in bytes.
const FIELD_BYTES_MAX: usize = 16 << 10;
/// Members of a splice.
const MEMBERS_MAX: usize = 256;
/// Paths of what was dropped; the rest is left out.
const DROPPED_MAX: usize = 64;
/// Events of one step.
const EVENTS_MAX: usize = 65_536;
/// Counters of one call.
const CHECKS_MAX: usize = 32;
/// Names that plugins make: subjects, counters, labels, attributes, in bytes.
const NAME_BYTES_MAX: usize = 512;
/// Attributes of a caller.
const ATTRIBUTES_MAX: usize = 64;
/// Text of a fault, in bytes; the rest is cut.
const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// Longest wait before a request, in milliseconds.
const AFTER_MS_MAX: u32 = 600_000;

/// Headers that belong to the connection or to the framing of a body, never to a plugin.
const RESERVED: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Why a guest's answer is not taken.
pub(super) struct Invalid(pub(super) String);

impl Invalid {
    /// As the error of a call into this plugin.
    pub(super) fn broken(self, plugin: &str) -> CallError {
        let reason = Broken::Output(self.0);
        tracing::warn!(plugin, %reason, "a plugin's answer is not taken");
        CallError::Broken { plugin: plugin.to_owned(), reason }
    }
}

type Checked<T> = Result<T, Invalid>;

fn invalid<T>(why: impl Into<String>) -> Checked<T> {
    Err(Invalid(why.into()))
}

/// The secrets that an adapter may name.
#[derive(Clone, Copy)]
pub(super) struct Allowed<'a> {
    pub(super) grants: &'a Grants,
    /// Whether an empty path means the endpoint itself.
    pub(super) bare: bool,
    /// Whether it may name the credential that the host fetches.
    pub(super) fetches: bool,
}

impl Allowed<'_> {
    fn has(self, name: &str) -> bool {
        self.grants.secret(name).is_some() || (self.fetches && name == types::TOKEN)
    }
}

/// A call, as guests see it.
pub(super) fn call<'a>(call: &types::Call<'a>) -> wit::Call<'a> {
    wit::Call {
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

/// A fault. What a class is not known is the vendor's bug.
pub(super) fn fault(fault: wit::Fault) -> ir::Fault {
    ir::Fault {
        class: ir::FaultClass::from_name(&fault.class),
        message: cut(fault.message, MESSAGE_BYTES_MAX),
        code: fault.code.map(|code| cut(code, NAME_BYTES_MAX)),
        retry_after_ms: fault.retry_after_ms,
    }
}

/// A fault as the error of a call.
pub(super) fn faulted(given: wit::Fault) -> CallError {
    CallError::Fault(fault(given))
}

/// A request to a vendor.
pub(super) fn upstream(request: requests::Upstream, allowed: Allowed<'_>) -> Checked<types::UpstreamRequest> {
    let requests::Upstream { method, endpoint, path, query, headers, body, framing, after_ms, dropped } = request;
    Ok(types::UpstreamRequest {
        method: self::method(&method)?,
        endpoint: endpoint_name(endpoint)?,
        path: if path.is_empty() && allowed.bare { path } else { self::path(path)? },
        query: fields(query, allowed, false)?,
        headers: fields(headers, allowed, true)?,
        body: self::body(body)?,
        framing: match framing {
            requests::Framing::Whole => types::Framing::Whole,
            requests::Framing::Sse => types::Framing::Sse,
            requests::Framing::JsonLines => types::Framing::JsonLines,
            requests::Framing::AwsEventStream => types::Framing::AwsEventStream,
            requests::Framing::JsonArray => types::Framing::JsonArray,
        },
        after_ms: after_ms.min(AFTER_MS_MAX),
        dropped: dropped.into_iter().take(DROPPED_MAX).map(visible).collect(),
    })
}

/// What an adapter plans.
pub(super) fn plan(plan: adapter::Plan, allowed: Allowed<'_>) -> Checked<types::Plan> {
    match plan {
        adapter::Plan::Ask(request) => upstream(request, allowed).map(types::Plan::Ask),
        adapter::Plan::Answer(events) => self::events(events).map(types::Plan::Answer),
    }
}

/// What an adapter makes of a piece of an answer.
pub(super) fn step(step: adapter::Step, allowed: Allowed<'_>) -> Checked<types::Step> {
    let next = step.next.map(|request| upstream(request, allowed)).transpose()?;
    let cancel = step.cancel.map(|request| upstream(request, allowed)).transpose()?;
    Ok(types::Step { events: events(step.events)?, next, cancel })
}

/// Headers that a signature adds.
pub(super) fn signature(headers: &[(String, String)]) -> Checked<Vec<(HeaderName, HeaderValue)>> {
    if headers.len() > FIELDS_MAX {
        return invalid(format!("{} headers, at most {FIELDS_MAX}", headers.len()));
    }
    headers.iter().map(|(name, value)| Ok((header_name(name)?, header_value(name, value)?))).collect()
}

/// How to get a short-lived credential.
pub(super) fn fetching(given: credentials::Fetching, allowed: Allowed<'_>) -> Checked<types::Fetching> {
    let credentials::Fetching { request, token, expires_in, expires_at, lasts } = given;
    for pointer in [&token, &expires_in, &expires_at] {
        if pointer.len() > NAME_BYTES_MAX || !(pointer.is_empty() || pointer.starts_with('/')) {
            return invalid(format!("the JSON pointer {:?}", shortened(pointer)));
        }
    }
    Ok(types::Fetching { request: upstream(request, allowed)?, token, expires_in, expires_at, lasts })
}

/// Who asks.
pub(super) fn grant(grant: auth::Grant) -> Checked<types::Grant> {
    let auth::Grant { subject, tenant, attributes, cache_ms } = grant;
    if subject.is_empty() {
        return invalid("a caller without a name");
    }
    if attributes.len() > ATTRIBUTES_MAX {
        return invalid(format!("a caller with {} attributes, at most {ATTRIBUTES_MAX}", attributes.len()));
    }
    for text in attributes.iter().flat_map(|(name, value)| [name, value]).chain([&subject]).chain(&tenant) {
        name("an attribute of a caller", text)?;
    }
    Ok(types::Grant { subject, tenant, attributes, cache_ms })
}

/// The counters of a call.
/// `namespace` keeps the counters of one plugin apart from those of others.
pub(super) fn checks(namespace: &str, checks: Vec<limits::Check>) -> Checked<Box<[types::Check]>> {
    if checks.len() > CHECKS_MAX {
        return invalid(format!("{} counters for one call, at most {CHECKS_MAX}", checks.len()));
    }
    checks.into_iter().map(|each| check(namespace, each)).collect()
}

fn check(namespace: &str, check: limits::Check) -> Checked<types::Check> {
    let limits::Check { key, algorithm, counted, limit, window_ms, burst, label } = check;
    name("a counter", &key)?;
    name("a label", &label)?;
    let Some(algorithm) = Algorithm::of_name(&algorithm) else {
        return invalid(format!("an unknown algorithm {algorithm:?}"));
    };
    let Some(counted) = types::Counted::of_name(&counted) else {
        return invalid(format!("an unknown thing to count {counted:?}"));
    };
    let has_length = matches!(algorithm, Algorithm::TokenBucket | Algorithm::FixedWindow | Algorithm::SlidingWindow);
    if window_ms == 0 && has_length {
        return invalid("a window of no length");
    }
    let burst = if burst == 0 { limit } else { burst };
    // The same name may count several things.
    let name = format!("{}|{key}", counted.name());
    let charge = Charge { burst, ..Charge::new(namespace, &name, algorithm, limit, window_ms) };
    Ok(types::Check { key, window_ms, charge, counted, label: label.into() })
}

/// A rule, for a guest.
pub(super) fn rule(rule: &types::Rule) -> rules::Rule {
    rules::Rule {
        scope: rule.scope.to_string(),
        algorithm: rule.algorithm.name().to_owned(),
        counted: rule.counted.name().to_owned(),
        limit: rule.limit,
        window_ms: rule.window_ms,
        burst: rule.burst,
        label: rule.label.to_string(),
    }
}

/// An order of so many targets; empty groups are left out.
pub(super) fn order(groups: Vec<Vec<routing::Share>>, targets: usize) -> Checked<Order> {
    let mut seen = vec![false; targets];
    let mut order = Vec::with_capacity(groups.len().min(targets));
    for group in groups.into_iter().filter(|group| !group.is_empty()) {
        let mut shares = Vec::with_capacity(group.len().min(targets));
        for routing::Share { target, weight } in group {
            match seen.get_mut(target as usize) {
                None => return invalid(format!("target {target} of {targets}")),
                Some(true) => return invalid(format!("target {target} twice")),
                Some(seen) => *seen = true,
            }
            shares.push(Share { target: target as usize, weight });
        }
        order.push(shares);
    }
    Ok(Order(order))
}

/// What a filter makes of a head.
pub(super) fn verdict(verdict: filter_types::Verdict) -> Checked<types::Verdict> {
    let answer = verdict.answer.map(reply).transpose()?;
    Ok(types::Verdict { request: edits(verdict.request)?, response: edits(verdict.response)?, answer })
}

/// Changes to a head.
pub(super) fn edits(edits: Vec<filter_types::Edit>) -> Checked<Vec<types::Edit>> {
    if edits.len() > FIELDS_MAX {
        return invalid(format!("{} edits, at most {FIELDS_MAX}", edits.len()));
    }
    edits
        .into_iter()
        .map(|edit| {
            Ok(match edit {
                filter_types::Edit::Set((name, value)) => {
                    types::Edit::Set(header_name(&name)?, header_value(&name, &value)?)
                }
                filter_types::Edit::Add((name, value)) => {
                    types::Edit::Add(header_name(&name)?, header_value(&name, &value)?)
                }
                filter_types::Edit::Remove(name) => types::Edit::Remove(header_name(&name)?),
            })
        })
        .collect()
}

fn reply(reply: filter_types::Reply) -> Checked<types::Reply> {
    let status = StatusCode::from_u16(reply.status).ok().filter(|status| !status.is_informational());
    let Some(status) = status.filter(|status| status.as_u16() < 600) else {
        return invalid(format!("the status {}", reply.status));
    };
    if reply.headers.len() > FIELDS_MAX {
        return invalid(format!("{} headers, at most {FIELDS_MAX}", reply.headers.len()));
    }
    let header = |(name, value): &(String, String)| Ok((header_name(name)?, header_value(name, value)?));
    Ok(types::Reply { status, headers: reply.headers.iter().map(header).collect::<Checked<_>>()?, body: reply.body })
}

fn endpoint_name(name: String) -> Checked<String> {
    if name.len() > NAME_BYTES_MAX { invalid(format!("the endpoint {:?}", shortened(&name))) } else { Ok(name) }
}

fn method(method: &str) -> Checked<Method> {
    match Method::from_bytes(method.as_bytes()) {
        Ok(method) if method != Method::CONNECT && method != Method::TRACE && method.as_str().len() <= 32 => Ok(method),
        _ => invalid(format!("the method {:?}", shortened(method))),
    }
}

/// A path below the base: visible, encoded, without a query, and without a segment that climbs.
fn path(path: String) -> Checked<String> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(byte);
    if !path.starts_with('/') || path.len() > FIELD_BYTES_MAX || !path.bytes().all(|byte| allowed(&byte)) {
        return invalid(format!("the path {:?}", shortened(&path)));
    }
    let well_encoded =
        path.split('%').skip(1).all(|rest| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit));
    let climbs = |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    // Also where an encoded slash separates: some servers decode before they split.
    let segments = || path.split('/').flat_map(|segment| segment.split("%2f")).flat_map(|segment| segment.split("%2F"));
    if !well_encoded || (path.contains('.') || path.contains('%')) && segments().any(climbs) {
        return invalid(format!("the path {:?}", shortened(&path)));
    }
    Ok(path)
}

fn fields(fields: Vec<requests::Placed>, allowed: Allowed<'_>, headers: bool) -> Checked<Vec<types::Placed>> {
    if fields.len() > FIELDS_MAX {
        return invalid(format!("{} headers or query parameters, at most {FIELDS_MAX}", fields.len()));
    }
    fields.into_iter().map(|field| self::field(field, allowed, headers)).collect()
}

fn field(field: requests::Placed, allowed: Allowed<'_>, header: bool) -> Checked<types::Placed> {
    let requests::Placed { name, value } = field;
    if header {
        header_name(&name)?;
    } else if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return invalid(format!("the query parameter {:?}", shortened(&name)));
    }
    let text = match &value {
        requests::Value::Text(text) | requests::Value::Secret((text, _)) => text,
    };
    if text.len() > FIELD_BYTES_MAX || (header && !text.bytes().all(is_header_byte)) {
        return invalid(format!("a value of {name} that no header can have"));
    }
    let value = match value {
        requests::Value::Text(text) => types::Value::Text(text),
        requests::Value::Secret((_, secret)) if !allowed.has(&secret) => {
            return invalid(format!("the secret {:?}, which was not granted", shortened(&secret)));
        }
        requests::Value::Secret((prefix, name)) => types::Value::Secret { prefix, name },
    };
    let name = if header { name.to_ascii_lowercase() } else { name };
    Ok(types::Placed { name, value })
}

fn body(body: requests::Body) -> Checked<types::Body> {
    match body {
        requests::Body::None => Ok(types::Body::None),
        requests::Body::Bytes(bytes) => Ok(types::Body::Bytes(bytes)),
        requests::Body::Splice(members) => {
            if members.len() > MEMBERS_MAX {
                return invalid(format!("{} members to splice, at most {MEMBERS_MAX}", members.len()));
            }
            for (name, value) in &members {
                if !value.is_empty() && serde_json::from_str::<serde::de::IgnoredAny>(value).is_err() {
                    return invalid(format!("the member {:?} that is no JSON", shortened(name)));
                }
            }
            Ok(types::Body::Splice(members))
        }
    }
}

fn events(events: Vec<adapter::Event>) -> Checked<Vec<ir::Event>> {
    if events.len() > EVENTS_MAX {
        return invalid(format!("{} events at once, at most {EVENTS_MAX}", events.len()));
    }
    Ok(events.into_iter().map(event).collect())
}

fn event(event: adapter::Event) -> ir::Event {
    match event {
        adapter::Event::Start((id, model)) => ir::Event::Start { id, model },
        adapter::Event::Text(text) => ir::Event::Text(text),
        adapter::Event::Reasoning(text) => ir::Event::Reasoning(text),
        adapter::Event::Signature(text) => ir::Event::Signature(text),
        adapter::Event::Redacted(text) => ir::Event::Redacted(text),
        adapter::Event::Tool(adapter::ToolHead { index, id, name }) => ir::Event::Tool { index, id, name },
        adapter::Event::ToolInput(adapter::ToolPiece { index, json }) => ir::Event::ToolInput { index, json },
        adapter::Event::Refusal(text) => ir::Event::Refusal(text),
        adapter::Event::BlockEnd => ir::Event::BlockEnd,
        adapter::Event::Usage(usage) => ir::Event::Usage(self::usage(usage)),
        adapter::Event::Finish(adapter::Finish { reason, sequence }) => {
            ir::Event::Finish(ir::Finish { reason, sequence })
        }
        adapter::Event::Fault(fault) => ir::Event::Fault(self::fault(fault)),
        adapter::Event::Other((name, json)) => ir::Event::Other { name, json },
    }
}

fn usage(usage: wit::Usage) -> ir::Usage {
    let wit::Usage { input, cache_read, cache_write, output, reasoning, more, stated } = usage;
    ir::Usage { input, cache_read, cache_write, output, reasoning, more, stated }
}

fn header_name(name: &str) -> Checked<HeaderName> {
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(parsed) if RESERVED.contains(&parsed.as_str()) => {
            invalid(format!("the header {parsed}, which is the host's"))
        }
        Ok(parsed) if name.len() <= NAME_BYTES_MAX => Ok(parsed),
        _ => invalid(format!("the header {:?}", shortened(name))),
    }
}

fn header_value(name: &str, value: &str) -> Checked<HeaderValue> {
    if value.len() > FIELD_BYTES_MAX || !value.bytes().all(is_header_byte) {
        return invalid(format!("a value of {name} that no header can have"));
    }
    HeaderValue::from_str(value).or_else(|_| invalid(format!("a value of {name} that no header can have")))
}

/// Visible ASCII, space and tab: no line end, no control character, nothing that two parsers read in two ways.
fn is_header_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e)
}

fn name(what: &str, text: &str) -> Checked<()> {
    if text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
        return invalid(format!("{what} that is too long or holds control characters: {:?}", shortened(text)));
    }
    Ok(())
}

/// What can stand in a header of the answer, where these paths go.
fn visible(text: String) -> String {
    let text = cut(text, NAME_BYTES_MAX);
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return text;
    }
    text.chars().map(|character| if character.is_ascii_graphic() { character } else { '?' }).collect()
}

fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(80)]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::keys::Secret;

    fn request() -> requests::Upstream {
        requests::Upstream {
            method: "POST".into(),
            endpoint: String::new(),
            path: "/v1/chat".into(),
            query: vec![],
            headers: vec![],
            body: requests::Body::None,
            framing: requests::Framing::Sse,
            after_ms: 0,
            dropped: vec![],
        }
    }

    fn refusal(request: requests::Upstream) -> Option<String> {
        let grants: Grants = [("key".to_owned(), Arc::new(Secret::new(b"k".to_vec())))].into_iter().collect();
        upstream(request, Allowed { grants: &grants, bare: false, fetches: false }).err().map(|invalid| invalid.0)
    }

    #[test]
    fn a_path_stays_below_its_base() {
        for good in ["/", "/v1/models/a.b:c@1", "/a/%20b/.../x", "/models/org%2Fname:generate"] {
            assert_eq!(refusal(requests::Upstream { path: good.into(), ..request() }), None, "{good}");
        }
        let bad = [
            "",
            "v1",
            "http://evil/",
            "/a?b",
            "/a#b",
            "/a/../b",
            "/..",
            "/.",
            "/a/%2e%2E/b",
            "/a/.%2e",
            "/x%2f..%2fy",
            "/a b",
            "/a\r\nb",
            "/a\\..\\b",
            "/%zz",
            "/%2",
            "/ü",
        ];
        for bad in bad {
            assert!(refusal(requests::Upstream { path: bad.into(), ..request() }).is_some(), "{bad:?} passes");
        }
    }

    #[test]
    fn a_header_has_no_line_end_and_is_not_one_of_the_hosts() {
        let with = |name: &str, value: &str| {
            let header = requests::Placed { name: name.into(), value: requests::Value::Text(value.into()) };
            refusal(requests::Upstream { headers: vec![header], ..request() })
        };
        assert_eq!(with("x-a", "b c\td"), None);
        for (name, value) in
            [("x-a", "a\r\nx: y"), ("x-a", "a\nb"), ("x-a", "\0"), ("x a", ""), ("", ""), ("x-a\r\n", "")]
        {
            assert!(with(name, value).is_some(), "{name:?}: {value:?} passes");
        }
        for name in RESERVED {
            assert!(with(name, "1").is_some(), "{name} passes");
            assert!(with(&name.to_uppercase(), "1").is_some(), "{name} passes in capitals");
        }
    }

    #[test]
    fn a_secret_is_placed_only_if_it_was_granted() {
        let with = |name: &str, prefix: &str| {
            let value = requests::Value::Secret((prefix.into(), name.into()));
            refusal(requests::Upstream { headers: vec![requests::Placed { name: "x-key".into(), value }], ..request() })
        };
        assert_eq!(with("key", "Bearer "), None);
        assert!(with("admin", "").is_some_and(|why| why.contains("not granted")));
        assert!(with("key", "a\r\n").is_some());
    }

    #[test]
    fn a_splice_is_json_and_a_method_is_sane() {
        let splice = |value: &str| {
            let body = requests::Body::Splice(vec![("model".into(), value.into())]);
            refusal(requests::Upstream { body, ..request() })
        };
        assert_eq!(splice("\"m\""), None);
        assert_eq!(splice(""), None);
        assert!(splice("1,\"x\":2").is_some());
        for method in ["CONNECT", "TRACE", "", "G T", "GET / HTTP/1.1\r\n"] {
            assert!(refusal(requests::Upstream { method: method.into(), ..request() }).is_some(), "{method:?}");
        }
    }

    #[test]
    fn an_order_names_each_target_once() {
        let groups = |groups: &[&[u32]]| {
            let share = |target: &u32| routing::Share { target: *target, weight: 1 };
            order(groups.iter().map(|group| group.iter().map(share).collect()).collect(), 3)
        };
        let drawn = |groups: Checked<Order>| groups.ok().map(|order| order.drawn(|_| 0));
        assert_eq!(drawn(groups(&[&[2], &[], &[0, 1]])), Some(vec![2, 0, 1]));
        assert_eq!(drawn(groups(&[])), Some(vec![]));
        for wrong in [&[&[3_u32][..]][..], &[&[1, 1]], &[&[1], &[1]], &[&[0; 1 << 20]]] {
            assert!(groups(wrong).is_err());
        }
    }

    #[test]
    fn dropped_paths_can_stand_in_a_header() {
        let dropped = vec!["tools[0].käse\r\nx: y".to_owned(); 1000];
        let allowed = Allowed { grants: &Grants::default(), bare: false, fetches: false };
        let Ok(request) = upstream(requests::Upstream { dropped, ..request() }, allowed) else {
            panic!("a path of what was dropped is no reason to refuse")
        };
        assert_eq!(request.dropped.len(), DROPPED_MAX);
        assert_eq!(request.dropped[0], "tools[0].k?se??x:?y");
    }
}
