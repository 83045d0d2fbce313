// SPDX-License-Identifier: Apache-2.0
//! Puts the targets of a call in order, and tells routing plugins what they want to know for it.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use penstock_prices::price::Rate;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::config::place::hex;
use crate::failure::{Failure, Kind};
use crate::inbound::{Content, wanted};
use crate::plugin::Routing;
use crate::plugin::types::{Call, Candidate, Pair};
use crate::random;
use crate::routes::Target;
use crate::upstream::Health;

/// The fact that is a digest of how a conversation begins.
const CONVERSATION: &str = "conversation";
/// The fact that asks for the prices of targets.
const PRICES: &str = "prices";
/// Members in which a dialect has what stands before the turns of a conversation.
const PREAMBLES: [&str; 4] = ["system", "systemInstruction", "system_instruction", "instructions"];
/// Members in which a dialect has the turns.
const TURNS: [&str; 3] = ["messages", "contents", "input"];

/// What a routing plugin can be shown of a call, if it wants to see it.
#[derive(Clone, Copy)]
pub struct Sight<'s> {
    /// Headers of the request.
    pub headers: &'s HeaderMap,
    /// Its body.
    pub content: &'s Content<'s>,
}

/// Puts the targets of a call in the order in which to try them. Without a routing plugin the order of the policy holds,
/// with targets that the breaker has closed at the end.
///
/// # Errors
/// What the plugin says; `no-target` if it leaves none.
pub fn rank(
    routing: Option<&Arc<Routing>>,
    call: &Call<'_>,
    targets: &[Target],
    sight: &Sight<'_>,
) -> Result<Vec<Target>, Failure> {
    if targets.len() == 1 && routing.is_none() {
        return Ok(targets.to_vec());
    }
    let now = Instant::now();
    let health = |target: &Target| target.vendor.endpoint.as_ref().map(|endpoint| Arc::clone(&endpoint.health));
    let Some(routing) = routing else {
        let mut targets = targets.to_vec();
        targets.sort_by_cached_key(|target| !target.is_healthy(now));
        return Ok(targets);
    };
    let wanted = sight.facts(routing);
    let wanted: Vec<Pair<'_>> = pairs(&wanted).collect();
    let prices = prices(routing, targets);
    let prices: Vec<Vec<Pair<'_>>> = prices.iter().map(|prices| pairs(prices).collect()).collect();
    let candidates: Vec<_> = targets
        .iter()
        .enumerate()
        .map(|(index, target)| {
            let facts = prices.get(index).map_or(&[][..], Vec::as_slice);
            candidate(target, health(target).as_deref(), facts, now)
        })
        .collect();
    let order = routing.rank(call, &wanted, &candidates, random::u64());
    let order = order.map_err(|error| Failure::of_policy(error, Kind::NoTarget))?.drawn(random::below);
    if order.is_empty() {
        let message = format!("no target of {} is left to try; try again later", call.model);
        return Err(Failure::new(Kind::NoTarget, message));
    }
    Ok(order.into_iter().filter_map(|index| targets.get(index).cloned()).collect())
}

impl Sight<'_> {
    /// The facts that a plugin wants of this request.
    fn facts(&self, routing: &Routing) -> Vec<(String, String)> {
        let wants = routing.wants();
        let headers = wanted(&wants.headers, self.headers);
        let mut facts: Vec<_> =
            headers.into_iter().map(|(name, value)| (format!("header.{name}"), value.to_owned())).collect();
        if wants.facts.iter().any(|fact| fact == CONVERSATION) {
            facts.extend(beginning(self.content).map(|digest| (CONVERSATION.to_owned(), digest)));
        }
        facts
    }
}

/// What the model of each target costs; nothing if the plugin does not want to know.
fn prices(routing: &Routing, targets: &[Target]) -> Vec<Vec<(&'static str, String)>> {
    if !routing.wants().facts.iter().any(|fact| fact == PRICES) {
        return Vec::new();
    }
    targets.iter().map(prices_of).collect()
}

/// What a target's model costs, in US dollars for a million tokens.
fn prices_of(target: &Target) -> Vec<(&'static str, String)> {
    let Some(price) = &target.price else { return Vec::new() };
    let rate = |wanted: Rate| price.rates.of.iter().find(|(rate, _)| *rate == wanted);
    let named = [("input-price", Rate::Input), ("output-price", Rate::Output)];
    named.into_iter().filter_map(|(name, wanted)| Some((name, rate(wanted)?.1.to_string()))).collect()
}

fn pairs<'p, N: AsRef<str>>(owned: &'p [(N, String)]) -> impl Iterator<Item = Pair<'p>> {
    owned.iter().map(|(name, value)| (name.as_ref(), value.as_str()))
}

/// A digest of how a conversation begins: what stands before it, and its turns up to the first of the user. Later turns of
/// the same conversation begin alike, so this finds the vendor whose cache has the beginning.
fn beginning(content: &Content<'_>) -> Option<String> {
    let turns = TURNS.iter().find_map(|name| content.member(name))?;
    let mut hash = Sha256::new();
    for preamble in PREAMBLES.iter().filter_map(|name| content.member(name)) {
        hash.update(preamble);
    }
    match serde_json::from_str::<Vec<&RawValue>>(turns) {
        Ok(turns) => {
            for turn in turns {
                hash.update(turn.get());
                if is_of_the_user(turn) {
                    break;
                }
            }
        }
        Err(_) => hash.update(turns),
    }
    Some(hex(&hash.finalize()[..8]))
}

/// Whether a turn is the user's; one that does not say whose it is is taken for one.
fn is_of_the_user(turn: &RawValue) -> bool {
    #[derive(serde::Deserialize)]
    struct Turn<'t> {
        #[serde(borrow)]
        role: Option<std::borrow::Cow<'t, str>>,
    }
    serde_json::from_str(turn.get()).map_or(true, |turn: Turn<'_>| turn.role.is_none_or(|role| role == "user"))
}

fn candidate<'a>(target: &'a Target, health: Option<&Health>, facts: &'a [Pair<'a>], now: Instant) -> Candidate<'a> {
    Candidate {
        id: &target.id,
        vendor: &target.vendor.name,
        model: &target.model,
        weight: target.weight,
        priority: target.priority,
        healthy: target.is_healthy(now),
        latency_ms: health.map_or(0, |health| u32::try_from(health.first_byte().as_millis()).unwrap_or(u32::MAX)),
        inflight: health.map_or(0, Health::in_flight),
        facts,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use penstock_dialects::splice::Members;

    use super::*;

    #[test]
    fn a_conversation_is_known_by_its_beginning_in_every_dialect() {
        let digest = |body: &str| {
            let body = Bytes::copy_from_slice(body.as_bytes());
            let members = Members::index(&body).expect("an object");
            beginning(&Content::Json(members))
        };
        let same = [
            (
                r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"}]}"#,
                r#"{"temperature":1,"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]}"#,
            ),
            (
                r#"{"system":"s","messages":[{"role":"user","content":"a"}]}"#,
                r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"system":"s"}"#,
            ),
            (
                r#"{"contents":[{"parts":[{"text":"a"}]}]}"#,
                r#"{"contents":[{"parts":[{"text":"a"}]},{"role":"model"}]}"#,
            ),
            (r#"{"input":"a"}"#, r#"{"input":"a","store":false}"#),
        ];
        let mut seen = Vec::new();
        for (first, later) in same {
            assert_eq!(digest(first), digest(later), "{first}");
            assert!(!seen.contains(&digest(first)), "others begin otherwise: {first}");
            seen.push(digest(first));
        }
        assert_ne!(digest(r#"{"input":"a"}"#), digest(r#"{"input":"a","instructions":"s"}"#));
        assert_eq!(digest(r#"{"query":"a"}"#), None);
    }
}
