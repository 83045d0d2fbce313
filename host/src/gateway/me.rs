// SPDX-License-Identifier: Apache-2.0
//! `GET /v1/me`: what a caller may do, and what it has used today.

use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::clock;
use crate::directory::rules::Rule;
use crate::directory::{Directory, VirtualKey, matches_any};
use crate::failure::Failure;
use crate::plugin::types::{Call, Counted, Reply};
use crate::routes::Route;
use crate::stages::{Gate, Left, Principal};

/// Whether a request asks for it: `/me` below the path of its route, `/v1/me` where that is the root.
pub(super) fn is_wanted(head: &Parts, route: &Route) -> bool {
    let path = head.uri.path();
    let below = if route.prefix.is_empty() { path.strip_prefix("/v1") } else { path.strip_prefix(&*route.prefix) };
    head.method == Method::GET && below == Some("/me")
}

/// The answer.
///
/// # Errors
/// `plugin-broken`
pub(super) fn answer(
    gate: &Gate,
    route: &Route,
    principal: &Principal,
    call: &Call<'_>,
    directory: &Directory,
) -> Result<Reply, Failure> {
    let left = gate.left(&route.limits, principal, call)?;
    let mut me = json!({
        "object": "me",
        "subject": principal.subject,
        "team": principal.tenant,
        "key": null,
        "left": left.iter().map(left_of).collect::<Vec<_>>(),
    });
    if let Some(key) = &principal.key {
        me["key"] = of_key(key, directory);
    }
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(Reply { status: StatusCode::OK, headers: vec![json], body: me.to_string().into_bytes() })
}

/// What is left of a limit; money in dollars.
fn left_of(left: &Left) -> Value {
    let amount = |number: u64| if left.counted == Counted::Cost { json!(dollars(number)) } else { json!(number) };
    json!({
        "limit": left.label,
        "counted": if left.counted == Counted::Cost { "usd" } else { left.counted.name() },
        "of": amount(left.limit),
        "left": amount(left.remaining),
        "reset_s": left.reset_s,
    })
}

fn of_key(key: &VirtualKey, directory: &Directory) -> Value {
    let used = directory.usage().today(&key.id, clock::unix_s());
    let (budgets, limits): (Vec<_>, Vec<_>) = key.rules().iter().partition(|rule| rule.counted == "cost");
    let allowed = |of: fn(&crate::directory::Allowed) -> &Option<Vec<String>>| {
        key.allowed
            .iter()
            .filter_map(|allowed| of(allowed).as_ref())
            .cloned()
            .reduce(|one, other| in_both(&one, &other))
    };
    json!({
        "id": key.id,
        "name": key.name,
        "expires_unix_s": key.expires_unix_s,
        // null for all
        "models": allowed(|allowed| &allowed.models),
        "operations": allowed(|allowed| &allowed.operations),
        "metadata": key.attributes.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "limits": limits.into_iter().map(|rule| limit(rule)).collect::<Vec<_>>(),
        "budgets": budgets.into_iter().map(|rule| budget(rule)).collect::<Vec<_>>(),
        "used_today": {
            "requests": used.requests,
            "failed": used.failed,
            "input_tokens": used.input_tokens,
            "output_tokens": used.output_tokens,
            "usd": dollars(used.nano_usd),
        },
    })
}

/// What two lists of patterns have in common: of each pair that has something in common, the narrower pattern.
fn in_both(one: &[String], other: &[String]) -> Vec<String> {
    let narrower = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|pattern| matches_any(those, pattern)).cloned().collect()
    };
    let mut common = narrower(one, other);
    common.extend(narrower(other, one));
    common.sort_unstable();
    common.dedup();
    common
}

fn limit(rule: &Rule) -> Value {
    let window_s = (rule.window_ms > 0).then_some(rule.window_ms / 1000);
    json!({
        "id": rule.id, "scope": rule.scope, "counted": rule.counted, "algorithm": rule.algorithm,
        "limit": rule.limit, "burst": rule.burst, "window_s": window_s,
    })
}

fn budget(rule: &Rule) -> Value {
    let window_s = (rule.window_ms > 0).then_some(rule.window_ms / 1000);
    json!({ "id": rule.id, "scope": rule.scope, "usd": dollars(rule.limit), "window_s": window_s })
}

/// Nano-dollars as dollars.
#[allow(clippy::cast_precision_loss, reason = "exact up to nine million dollars, and for people")]
fn dollars(nano: u64) -> f64 {
    nano as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::in_both;

    #[test]
    fn what_a_key_may_is_what_both_lists_have() {
        let list = |names: &str| names.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (one, other, common) in [
            ("a b", "b c", "b"),
            ("big-*", "big-4* o3", "big-4*"),
            ("big-4o *mini", "big-*", "big-4o"),
            ("*", "a b*", "a b*"),
            ("a", "b", ""),
            ("a*", "a*", "a*"),
        ] {
            assert_eq!(in_both(&list(one), &list(other)), list(common), "{one} and {other}");
        }
    }
}
