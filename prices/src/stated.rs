// SPDX-License-Identifier: Apache-2.0
//! What a vendor says itself that a call has cost, in its usage object. Seen in recorded answers:
//!
//! - `cost`, a number of dollars (of resellers, mostly). With `is_byok` it is only the fee for a call that the caller's
//!   own key at the upstream pays for, and `cost_details.upstream_inference_cost` is charged there;
//! - `cost.total_cost` in dollars (Perplexity);
//! - `cost_in_usd_ticks`, where 10^10 are a dollar (xAI). Azure passes the member on as zero, so that zero says nothing.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::money::Usd;

/// Decimals of a dollar that a tick is.
const TICK_DECIMALS: u32 = 10;

#[derive(Deserialize)]
struct Stated<'j> {
    #[serde(borrow)]
    cost: Option<&'j RawValue>,
    #[serde(default)]
    is_byok: bool,
    #[serde(borrow)]
    cost_details: Option<Details<'j>>,
    #[serde(borrow)]
    cost_in_usd_ticks: Option<&'j RawValue>,
}

#[derive(Deserialize)]
struct Details<'j> {
    #[serde(borrow)]
    upstream_inference_cost: Option<&'j RawValue>,
}

#[derive(Deserialize)]
struct Total<'j> {
    #[serde(borrow)]
    total_cost: &'j RawValue,
    #[serde(default)]
    currency: Option<String>,
}

/// The cost that a usage object states.
#[must_use]
pub fn cost(usage: &str) -> Option<Usd> {
    static COST: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"cost"));
    COST.find(usage.as_bytes())?;
    let stated: Stated<'_> = serde_json::from_str(usage).ok()?;
    if let Some(cost) = stated.cost.and_then(dollars) {
        let details = stated.cost_details.filter(|_| stated.is_byok);
        let upstream = details.and_then(|details| details.upstream_inference_cost).and_then(dollars);
        return Some(cost + upstream.unwrap_or_default());
    }
    let ticks = stated.cost_in_usd_ticks.and_then(|ticks| ticks.get().parse::<u64>().ok()).filter(|ticks| *ticks > 0);
    ticks.map(|ticks| Usd::of(ticks.into(), TICK_DECIMALS))
}

/// A number, or an object with a total.
fn dollars(json: &RawValue) -> Option<Usd> {
    if let Ok(total) = serde_json::from_str::<Total<'_>>(json.get()) {
        let is_dollars = total.currency.is_none_or(|currency| currency.eq_ignore_ascii_case("USD"));
        return Usd::parse_rounded(total.total_cost.get()).ok().filter(|_| is_dollars);
    }
    Usd::parse_rounded(json.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_state_a_cost_is_read() {
        for (usage, dollars) in [
            (r#"{"prompt_tokens":1,"cost":0.000971,"is_byok":false}"#, Some("0.000971")),
            (
                r#"{"cost":1.4e-07,"cost_details":{"upstream_inference_cost":1.4e-07},"is_byok":false}"#,
                Some("0.00000014"),
            ),
            (r#"{"cost":0.05,"is_byok":true,"cost_details":{"upstream_inference_cost":1}}"#, Some("1.05")),
            (r#"{"cost":0,"cost_details":{"upstream_inference_cost":null}}"#, Some("0")),
            (r#"{"cost":{"input_tokens_cost":2e-05,"request_cost":0.005,"total_cost":0.00504}}"#, Some("0.00504")),
            (r#"{"cost":{"currency":"USD","total_cost":1.2e-08}}"#, Some("0.000000012")),
            (r#"{"cost":{"currency":"EUR","total_cost":1}}"#, None),
            (r#"{"cost_in_usd_ticks":11706000}"#, Some("0.0011706")),
            (r#"{"cost_in_usd_ticks":0}"#, None),
            (r#"{"cost":null}"#, None),
            (r#"{"cost":-1}"#, None),
            (r#"{"prompt_tokens":1}"#, None),
            (r#"{"cost":"#, None),
            ("", None),
        ] {
            assert_eq!(cost(usage).map(|cost| cost.to_string()).as_deref(), dollars, "{usage}");
        }
    }
}
