// SPDX-License-Identifier: Apache-2.0
//! What an operator can say of each kind of document. Members that are not here are refused; every text, list and number
//! has a ceiling. The schemas of the admin API (`admin/schemas.json`) say the same.

mod check;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::document::Kind;
use crate::library::Refused;

/// Largest number that every reader of JSON gives back unchanged.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;
/// The same as a floating-point number: from here on not every whole number has one.
const NUMBER_LIMIT: f64 = 9_007_199_254_740_992.0;
/// Largest budget, in US dollars.
const USD_MAX: f64 = 1e9;
/// Nano-dollars of a dollar.
const NANO: f64 = 1e9;

/// A credential of the admin API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminToken {
    /// Who has it, for the audit log.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whether it is accepted.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// From when on it is not accepted, in seconds since 1970.
    #[serde(default)]
    pub expires_unix_s: Option<u64>,
}

/// What the bearer of an admin token may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read.
    Viewer,
    /// Change keys of callers, teams, budgets, limits, features and services.
    Operator,
    /// Change everything: plugins, generations, vendor keys, admin tokens.
    Admin,
}

impl Role {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Money that whoever refers to it may spend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// For people.
    #[serde(default)]
    pub name: String,
    /// US dollars, to nine decimals.
    pub usd: f64,
    /// After so many seconds it begins anew; none for never.
    #[serde(default)]
    pub window_s: Option<u64>,
    /// Whether it holds.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Only calls for these models count; none for all. A trailing `*` matches any rest.
    #[serde(default)]
    pub models: Option<Vec<String>>,
}

impl Budget {
    /// The money in nano-dollars.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be from 0 to USD_MAX")]
    pub fn nano_usd(&self) -> u64 {
        (self.usd * NANO).round() as u64
    }
}

/// A capability by a name of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    /// For people.
    #[serde(default)]
    pub description: String,
    /// What is asked for: `images`, `chat` …
    pub operation: String,
    /// The model that serves it, by any name that a caller could use; none for every vendor that serves the operation.
    #[serde(default)]
    pub model: Option<String>,
    /// Whether it is offered.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whatever else is to be known of it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// Requests or tokens that whoever refers to it may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// For people.
    #[serde(default)]
    pub name: String,
    /// What is counted.
    pub counted: Counted,
    /// How it is counted; of no meaning for what is under way at a time.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How much.
    pub limit: u64,
    /// In how many seconds; of no meaning for what is under way at a time.
    #[serde(default = "minute")]
    pub window_s: u64,
    /// Token buckets: how much at once; none for as much as the limit.
    #[serde(default)]
    pub burst: Option<u64>,
    /// A counter for each of these instead of one for all.
    #[serde(default)]
    pub per: Vec<Per>,
    /// Only calls for these models count; none for all. A trailing `*` matches any rest.
    #[serde(default)]
    pub models: Option<Vec<String>>,
    /// Only calls on these routes count; none for all.
    #[serde(default)]
    pub routes: Option<Vec<String>>,
    /// Whether it holds.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether it holds for every key that names no limits of its own.
    #[serde(default)]
    pub default: bool,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counted {
    /// Requests that begin.
    Requests,
    /// Tokens, in and out.
    Tokens,
    /// Tokens that go in.
    InputTokens,
    /// Tokens that come out.
    OutputTokens,
    /// Requests that are under way at a time.
    Concurrency,
}

/// How a limit is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Filled at a constant rate.
    #[default]
    TokenBucket,
    /// Begins anew with each window.
    FixedWindow,
    /// Looks back over the window at every moment.
    SlidingWindow,
}

/// What a limit has a counter for each of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// The model that the caller names.
    Model,
    /// The route.
    Route,
}

/// A service that tells that it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// What it is; several instances may have the same name.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// It is unhealthy when it has been silent for so many seconds.
    #[serde(default = "half_a_minute")]
    pub ttl_s: u64,
    /// Its version.
    #[serde(default)]
    pub version: Option<String>,
    /// Whatever else is to be known of it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// Keys that belong together. What it allows, limits and spends holds for all of them in sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Team {
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Whether its keys are accepted.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Models that its keys may use at most; none for all. A trailing `*` matches any rest.
    #[serde(default)]
    pub models: Option<Vec<String>>,
    /// Operations that its keys may use at most; none for all.
    #[serde(default)]
    pub operations: Option<Vec<String>>,
    /// Limits that its keys share.
    #[serde(default)]
    pub limits: Vec<String>,
    /// Budgets that its keys share.
    #[serde(default)]
    pub budgets: Vec<String>,
    /// Whatever else is to be known of it; plugins see it as attributes of the caller.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// A credential at a vendor; the key itself is hidden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VendorKey {
    /// The vendor, by its name in the policy.
    pub vendor: String,
    /// What it is for, where a vendor has several products; for people.
    #[serde(default)]
    pub service: Option<String>,
    /// Its name, for people and for metrics.
    pub key_name: String,
    /// In which turn it is used.
    #[serde(default)]
    pub tier: Tier,
    /// Its share of the calls among the keys of its tier.
    #[serde(default = "one")]
    pub weight: u32,
    /// Whether it is used.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// When a vendor key is used: as long as one of an earlier tier works, none of a later one is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// First.
    #[default]
    Primary,
    /// When no primary key works.
    Secondary,
    /// When nothing else works.
    Backup,
}

impl Tier {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
            Self::Backup => "backup",
        }
    }
}

/// A credential that the gateway has given to a caller; the secret itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VirtualKey {
    /// For people.
    pub name: String,
    /// Who the caller is, in logs, limits and jobs; none for the id of the key.
    #[serde(default)]
    pub subject: Option<String>,
    /// The team that it belongs to.
    #[serde(default)]
    pub team: Option<String>,
    /// Whether it is accepted.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// From when on it is not accepted, in seconds since 1970.
    #[serde(default)]
    pub expires_unix_s: Option<u64>,
    /// Models that it may use, by the names that callers use; none for all. A trailing `*` matches any rest.
    #[serde(default)]
    pub models: Option<Vec<String>>,
    /// Operations that it may use (`chat`, `images` …); none for all.
    #[serde(default)]
    pub operations: Option<Vec<String>>,
    /// Limits of its own; none for those that hold by default.
    #[serde(default)]
    pub limits: Vec<String>,
    /// Budgets of its own.
    #[serde(default)]
    pub budgets: Vec<String>,
    /// Whatever else is to be known of it; plugins see it as attributes of the caller.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

fn minute() -> u64 {
    60
}

fn half_a_minute() -> u64 {
    30
}

/// The settings of a document.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each is named like the kind that it belongs to")]
pub enum Settings {
    AdminToken(AdminToken),
    Budget(Budget),
    Feature(Feature),
    Limit(Limit),
    Service(Service),
    Team(Team),
    VendorKey(VendorKey),
    VirtualKey(VirtualKey),
}

impl Settings {
    /// Reads and checks the settings of a kind.
    ///
    /// # Errors
    /// `bad-request`: which member is wrong. The value that was given is not repeated, since it may be a key that was put in the
    /// wrong place.
    pub fn parse(kind: Kind, mut value: Value) -> Result<Self, Refused> {
        whole_numbers(&mut value);
        fn read<T: for<'d> Deserialize<'d>>(value: Value) -> Result<T, Refused> {
            serde_json::from_value(value).map_err(|error| bad(&without_values(&error.to_string())))
        }
        let settings = match kind {
            Kind::AdminToken => Self::AdminToken(read(value)?),
            Kind::Budget => Self::Budget(read(value)?),
            Kind::Feature => Self::Feature(read(value)?),
            Kind::Limit => Self::Limit(read(value)?),
            Kind::Service => Self::Service(read(value)?),
            Kind::Team => Self::Team(read(value)?),
            Kind::VendorKey => Self::VendorKey(read(value)?),
            Kind::VirtualKey => Self::VirtualKey(read(value)?),
        };
        settings.check()?;
        Ok(settings)
    }

    /// The settings as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let json = match self {
            Self::AdminToken(settings) => serde_json::to_value(settings),
            Self::Budget(settings) => serde_json::to_value(settings),
            Self::Feature(settings) => serde_json::to_value(settings),
            Self::Limit(settings) => serde_json::to_value(settings),
            Self::Service(settings) => serde_json::to_value(settings),
            Self::Team(settings) => serde_json::to_value(settings),
            Self::VendorKey(settings) => serde_json::to_value(settings),
            Self::VirtualKey(settings) => serde_json::to_value(settings),
        };
        json.unwrap_or_default()
    }

    /// The documents that must be there for this one to hold.
    pub(super) fn references(&self) -> Vec<(Kind, &str)> {
        let (limits, budgets, team) = match self {
            Self::Team(team) => (&team.limits, &team.budgets, None),
            Self::VirtualKey(key) => (&key.limits, &key.budgets, key.team.as_deref()),
            _ => return Vec::new(),
        };
        let limits = limits.iter().map(|id| (Kind::Limit, id.as_str()));
        let budgets = budgets.iter().map(|id| (Kind::Budget, id.as_str()));
        limits.chain(budgets).chain(team.map(|id| (Kind::Team, id))).collect()
    }
}

/// A refusal of what was sent.
pub(super) fn bad(message: &str) -> Refused {
    Refused::new("bad-request", message, "GET /api/v1/openapi.json says what is expected")
}

/// Writes whole numbers without decimals: to JSON, 60.0 and 60 are the same.
pub fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap_or(f64::NAN);
            #[allow(clippy::cast_possible_truncation, reason = "it is whole, and small enough to be exact")]
            if float.fract() == 0.0 && float.abs() < NUMBER_LIMIT {
                *value = Value::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(members) => members.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// The words of a reader of JSON, without the values that it repeats.
#[must_use]
pub fn without_values(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for (index, part) in message.split('"').enumerate() {
        text.push_str(if index % 2 == 0 { part } else { "…" });
    }
    // A value that holds a quote would end up on the wrong side.
    if message.matches('"').count() > 2 {
        return "a member is of the wrong type".to_owned();
    }
    match text.split_once("unknown variant `") {
        Some((before, rest)) => {
            format!("{before}unknown value{}", rest.rsplit_once("`, expected").map_or("", |(_, rest)| rest))
        }
        None => text.chars().take(512).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_unknown_or_too_large_is_refused_by_the_name_of_its_member_without_its_value() {
        let long = "sk-planted".repeat(30);
        for (kind, value, member) in [
            (Kind::VirtualKey, json!({}), "name"),
            (Kind::VirtualKey, json!({"name": ""}), "name"),
            (Kind::VirtualKey, json!({"name": long}), "name"),
            (Kind::VirtualKey, json!({"name": "a", "api_key": "sk-planted"}), "api_key"),
            (Kind::VirtualKey, json!({"name": "a", "expires_unix_s": "sk-planted"}), "string"),
            (Kind::VirtualKey, json!({"name": "a", "operations": ["sk-planted"]}), "operations"),
            (Kind::VendorKey, json!({"vendor": "v", "key_name": "k", "tier": "sk-planted"}), "primary"),
            (
                Kind::VendorKey,
                json!({"vendor": "v", "key_name": "k", "weight": "sk\"planted sk-planted"}),
                "wrong type",
            ),
            (Kind::Budget, json!({"usd": -1}), "usd"),
            (Kind::Limit, json!({"counted": "requests", "limit": 0}), "limit"),
            (Kind::Service, json!({"name": "s", "url": "ftp://sk-planted"}), "url"),
        ] {
            let refused = Settings::parse(kind, value.clone()).unwrap_err();
            assert!(refused.message.contains(member) && !refused.message.contains("planted"), "{value}: {refused}");
        }
    }

    #[test]
    fn settings_survive_being_written_and_read() {
        let value = json!({"name": "a", "models": ["big-*"], "metadata": {"cost-centre": "7"}});
        let settings = Settings::parse(Kind::VirtualKey, value).unwrap();
        assert_eq!(Settings::parse(Kind::VirtualKey, settings.to_json()).unwrap(), settings);
        let Settings::Budget(budget) = Settings::parse(Kind::Budget, json!({"usd": 0.1})).unwrap() else { panic!() };
        assert_eq!(budget.nano_usd(), 100_000_000);
    }
}
