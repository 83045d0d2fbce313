// SPDX-License-Identifier: Apache-2.0
//! What has a counter of its own: each caller, each group, each model … The same words in every limits plugin.

use penstock_sdk_macros::Config;

use crate::call::{Call, Wants};
use crate::config::Issue;
use crate::pattern::fits_any;

/// What may have a counter of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Config)]
pub enum Per {
    /// Each caller; callers of open routes by their address.
    Subject,
    /// Each group of callers.
    Tenant,
    /// Each model: by the name that callers use, and among the limits of a vendor by the vendor's.
    Model,
    /// Each route.
    Route,
    /// Each vendor, among the limits of vendors.
    Vendor,
}

/// The name of a counter. Each part is escaped, so that no choice of names can meet the counter of another rule: without a
/// name of its own a rule is called by its position, `#0`.
#[must_use]
pub fn key(name: Option<&str>, index: usize, per: &[Per], call: &Call) -> String {
    let mut key = match name {
        Some(name) => escape(name),
        None => format!("#{index}"),
    };
    for per in per {
        let (kind, value) = match per {
            Per::Subject => match (&call.subject, call.fact("client-ip")) {
                (Some(subject), _) => ("subject", subject.as_str()),
                (None, address) => ("client-ip", address.unwrap_or_default()),
            },
            Per::Tenant => ("tenant", call.tenant.as_deref().unwrap_or_default()),
            Per::Model => ("model", call.model.as_str()),
            Per::Route => ("route", call.fact("route").unwrap_or_default()),
            Per::Vendor => ("vendor", call.fact("vendor").unwrap_or_default()),
        };
        key.push_str(&format!("/{kind}={}", escape(value)));
    }
    key
}

/// What a plugin promises whose rules look at nothing but the model, the caller, the group, what they count for (`per`) and
/// the rules that are kept as data: calls that agree in that are charged alike.
#[must_use]
pub fn alike<'p>(per: impl Iterator<Item = &'p Per>) -> Wants {
    let further = per.filter_map(|per| match per {
        Per::Subject | Per::Tenant | Per::Model => None,
        Per::Route => Some("fact.route"),
        Per::Vendor => Some("fact.vendor"),
    });
    let mut names: Vec<_> = ["model", "caller", "tenant", "rules"].into_iter().chain(further).collect();
    names.sort_unstable();
    names.dedup();
    Wants::nothing().alike(names)
}

/// What a counter is for, in words: " for this key and model".
#[must_use]
pub fn words(per: &[Per]) -> String {
    let names: Vec<_> = per
        .iter()
        .map(|per| match per {
            Per::Subject => "key",
            Per::Tenant => "tenant",
            Per::Model => "model",
            Per::Route => "route",
            Per::Vendor => "vendor",
        })
        .collect();
    if names.is_empty() { " for all callers together".to_owned() } else { format!(" for this {}", names.join(" and ")) }
}

/// What is wrong with the name of the rule at `index`, if one above it has the same: they would share a counter.
#[must_use]
pub fn repeated_name<'r>(names: impl Iterator<Item = Option<&'r str>>, index: usize) -> Option<Issue> {
    let mut names = names.take(index + 1).collect::<Vec<_>>();
    let name = names.pop()??;
    let message = || format!("a rule `{name}` stands above: give each a name of its own");
    names.contains(&Some(name)).then(|| Issue::new(format!("rules[{index}].name"), message()))
}

/// Whether a list of patterns takes a text; one without patterns takes every text.
#[must_use]
pub fn takes(patterns: &[String], text: &str) -> bool {
    patterns.is_empty() || fits_any(patterns, text)
}

fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('/', "%2F").replace('#', "%23")
}
