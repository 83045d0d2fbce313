// SPDX-License-Identifier: Apache-2.0
//! Keeps what belongs together at one target: a session, a caller, a conversation. The vendor's cache of the beginning is then
//! there. Targets are drawn by rendezvous: one that comes or goes moves only those calls that are its own, and every gateway
//! draws the same.

use penstock_sdk::prelude::{Call, Config, Fault, Issue, Order, Routing, Target, Wants};
use penstock_sdk::random::hash;

const CONVERSATION: &str = "conversation";
const SUBJECT: &str = "subject";
const TENANT: &str = "tenant";
const HEADER: &str = "header:";

/// By what calls belong together.
#[derive(Debug, Config)]
pub struct Options {
    /// The first of these that a call has: `header:NAME`, `subject`, `tenant`, `conversation`.
    #[config(default = ["header:x-session-id", "conversation", "subject"].map(String::from))]
    by: Vec<String>,
}

/// The plugin.
#[derive(Debug)]
pub struct Sticky(Vec<By>);

#[derive(Debug)]
enum By {
    Header(String),
    Subject,
    Tenant,
    Conversation,
}

impl Routing for Sticky {
    type Config = Options;

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        let (mut known, mut issues) = (Vec::new(), Vec::new());
        for (index, by) in options.by.iter().enumerate() {
            match by.as_str() {
                SUBJECT => known.push(By::Subject),
                TENANT => known.push(By::Tenant),
                CONVERSATION => known.push(By::Conversation),
                other => match other.strip_prefix(HEADER).filter(|name| !name.is_empty()) {
                    Some(name) => known.push(By::Header(name.to_ascii_lowercase())),
                    None => issues.push(Issue::new(
                        format!("by[{index}]"),
                        "expected `header:NAME`, `subject`, `tenant` or `conversation`",
                    )),
                },
            }
        }
        if issues.is_empty() { Ok(Self(known)) } else { Err(issues) }
    }

    fn wants(&self) -> Wants {
        let headers = self.0.iter().filter_map(|by| if let By::Header(name) = by { Some(name.as_str()) } else { None });
        let wants = Wants::nothing().headers(headers);
        if self.0.iter().any(|by| matches!(by, By::Conversation)) { wants.facts([CONVERSATION]) } else { wants }
    }

    fn rank(&self, call: &Call, targets: &[Target], seed: u64) -> Result<Order, Fault> {
        let by_chance = seed.to_string();
        let key = self.0.iter().find_map(|by| by.of(call)).unwrap_or(("chance", &by_chance));
        let scores: Vec<f64> = targets.iter().map(|target| score(key, target)).collect();
        let mut order: Vec<usize> = (0..targets.len()).collect();
        order.sort_by(|one, other| {
            let sick = |index: &usize| !targets[*index].healthy;
            sick(one).cmp(&sick(other)).then(scores[*other].total_cmp(&scores[*one]))
        });
        Ok(order.into())
    }
}

impl By {
    fn of<'c>(&self, call: &'c Call) -> Option<(&'static str, &'c str)> {
        let (kind, value) = match self {
            Self::Header(name) => ("header", call.fact(&format!("header.{name}"))),
            Self::Subject => (SUBJECT, call.subject.as_deref()),
            Self::Tenant => (TENANT, call.tenant.as_deref()),
            Self::Conversation => (CONVERSATION, call.fact(CONVERSATION)),
        };
        value.filter(|value| !value.is_empty()).map(|value| (kind, value))
    }
}

/// Weighted rendezvous (Schindelhauer and Schomaker, 2005): the highest score wins, each target as often as its weight says.
fn score((kind, value): (&str, &str), target: &Target) -> f64 {
    // 53 bits are what a double holds; a half keeps it away from 0 and 1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    let unit = ((hash(&[kind, value, &target.id]) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(target.weight) / unit.ln()
}

penstock_sdk::routing!(Sticky);

#[cfg(test)]
mod tests {
    use penstock_sdk::prelude::{Call, Routing, Target};

    use super::{By, Sticky};

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<Sticky>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    fn targets(weights: &[u32]) -> Vec<Target> {
        let target =
            |(at, weight): (usize, &u32)| Target { id: format!("t{at}"), weight: *weight, ..Target::default() };
        weights.iter().enumerate().map(target).collect()
    }

    fn first(caller: u32, targets: &[Target]) -> String {
        let call = Call { subject: Some(caller.to_string()), ..Call::default() };
        let order = Sticky(vec![By::Subject]).rank(&call, targets, 0).unwrap();
        targets[order.groups()[0][0].target].id.clone()
    }

    #[test]
    fn callers_are_spread_by_weight_and_a_target_that_goes_moves_only_its_own() {
        let all = targets(&[1, 2, 1, 0]);
        let mut firsts = [0_u32; 4];
        for caller in 0..4_000 {
            let at = first(caller, &all);
            firsts[at[1..].parse::<usize>().unwrap()] += 1;
            if at != "t1" {
                let fewer: Vec<_> = all.iter().filter(|target| target.id != "t1").cloned().collect();
                assert_eq!(first(caller, &fewer), at);
            }
        }
        assert_eq!(firsts[3], 0);
        for (count, expected) in firsts.into_iter().zip([1_000, 2_000, 1_000, 0_u32]) {
            assert!(count.abs_diff(expected) < 150, "{firsts:?}");
        }
    }
}
