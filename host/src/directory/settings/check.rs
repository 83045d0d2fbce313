// SPDX-License-Identifier: Apache-2.0
//! What the settings of a document may be, beyond their types.

use std::collections::BTreeMap;

use super::{NUMBER_MAX, Service, Settings, USD_MAX, VirtualKey, bad};
use crate::directory::document::is_id;
use crate::library::Refused;

/// Longest text of a member, in characters.
const TEXT_MAX: usize = 256;
/// Longest list or map.
const ITEMS_MAX: usize = 256;
/// Latest time, in seconds since 1970: the end of the year 9999.
const UNIX_S_MAX: u64 = 253_402_300_799;
/// Longest window: a year and a day, in seconds.
const WINDOW_S_MAX: u64 = 366 * 86_400;

impl Settings {
    /// Looks at every member.
    ///
    /// # Errors
    /// `bad-request`: which member is wrong.
    pub(super) fn check(&self) -> Result<(), Refused> {
        match self {
            Self::AdminToken(token) => {
                name("name", &token.name)?;
                time(token.expires_unix_s)
            }
            Self::Budget(budget) => {
                text("name", &budget.name)?;
                if !(0.0..=USD_MAX).contains(&budget.usd) {
                    return Err(bad(&format!("usd: expected from 0 to {USD_MAX}")));
                }
                budget.window_s.map_or(Ok(()), |window| within("window_s", window, 1, WINDOW_S_MAX))?;
                texts("models", budget.models.as_deref())
            }
            Self::Feature(feature) => {
                text("description", &feature.description)?;
                known_operation("operation", &feature.operation)?;
                feature.model.as_deref().map_or(Ok(()), |model| name("model", model))?;
                metadata(&feature.metadata)
            }
            Self::Limit(limit) => {
                text("name", &limit.name)?;
                within("limit", limit.limit, 1, NUMBER_MAX)?;
                within("window_s", limit.window_s, 1, WINDOW_S_MAX)?;
                limit.burst.map_or(Ok(()), |burst| within("burst", burst, 1, NUMBER_MAX))?;
                within("per", limit.per.len() as u64, 0, 2)?;
                texts("models", limit.models.as_deref())?;
                texts("routes", limit.routes.as_deref())
            }
            Self::Service(service) => check_service(service),
            Self::Team(team) => {
                text("name", &team.name)?;
                texts("models", team.models.as_deref())?;
                operations(team.operations.as_deref())?;
                ids("limits", &team.limits)?;
                ids("budgets", &team.budgets)?;
                metadata(&team.metadata)
            }
            Self::VendorKey(key) => {
                id("vendor", &key.vendor)?;
                key.service.as_deref().map_or(Ok(()), |service| name("service", service))?;
                name("key_name", &key.key_name)?;
                within("weight", key.weight.into(), 1, 1_000_000)
            }
            Self::VirtualKey(key) => check_virtual_key(key),
        }
    }
}

fn check_service(service: &Service) -> Result<(), Refused> {
    name("name", &service.name)?;
    name("url", &service.url)?;
    let has_scheme = ["http://", "https://"].iter().any(|scheme| service.url.starts_with(scheme));
    if !has_scheme || service.url.parse::<http::Uri>().is_err() {
        return Err(bad("url: expected a URL such as http://10.0.0.7:8000"));
    }
    within("ttl_s", service.ttl_s, 1, 86_400)?;
    service.version.as_deref().map_or(Ok(()), |version| name("version", version))?;
    metadata(&service.metadata)
}

fn check_virtual_key(key: &VirtualKey) -> Result<(), Refused> {
    name("name", &key.name)?;
    key.subject.as_deref().map_or(Ok(()), |subject| name("subject", subject))?;
    key.team.as_deref().map_or(Ok(()), |team| id("team", team))?;
    time(key.expires_unix_s)?;
    texts("models", key.models.as_deref())?;
    operations(key.operations.as_deref())?;
    ids("limits", &key.limits)?;
    ids("budgets", &key.budgets)?;
    metadata(&key.metadata)
}

fn within(member: &str, value: u64, min: u64, max: u64) -> Result<(), Refused> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(bad(&format!("{member}: expected from {min} to {max}"))) }
}

fn time(unix_s: Option<u64>) -> Result<(), Refused> {
    unix_s.map_or(Ok(()), |time| within("expires_unix_s", time, 0, UNIX_S_MAX))
}

fn text(member: &str, value: &str) -> Result<(), Refused> {
    if value.chars().count() > TEXT_MAX || value.chars().any(char::is_control) {
        return Err(bad(&format!("{member}: expected at most {TEXT_MAX} characters, without control characters")));
    }
    Ok(())
}

fn name(member: &str, value: &str) -> Result<(), Refused> {
    if value.is_empty() { Err(bad(&format!("{member}: is empty"))) } else { text(member, value) }
}

fn id(member: &str, value: &str) -> Result<(), Refused> {
    if is_id(value) { Ok(()) } else { Err(bad(&format!("{member}: expected letters, digits, `.`, `_` and `-`"))) }
}

fn ids(member: &str, values: &[String]) -> Result<(), Refused> {
    within(member, values.len() as u64, 0, ITEMS_MAX as u64)?;
    values.iter().try_for_each(|value| id(member, value))
}

fn texts(member: &str, values: Option<&[String]>) -> Result<(), Refused> {
    let values = values.unwrap_or_default();
    within(member, values.len() as u64, 0, ITEMS_MAX as u64)?;
    values.iter().try_for_each(|value| name(member, value))
}

fn operations(values: Option<&[String]>) -> Result<(), Refused> {
    let values = values.unwrap_or_default();
    within("operations", values.len() as u64, 0, ITEMS_MAX as u64)?;
    values.iter().try_for_each(|value| known_operation("operations", value))
}

fn known_operation(member: &str, value: &str) -> Result<(), Refused> {
    match penstock_dialects::codec::Operation::from_name(value) {
        Some(_) => Ok(()),
        None => Err(bad(&format!("{member}: there is no such operation"))),
    }
}

fn metadata(values: &BTreeMap<String, String>) -> Result<(), Refused> {
    within("metadata", values.len() as u64, 0, ITEMS_MAX as u64)?;
    for (key, value) in values {
        id("metadata", key)?;
        text("metadata", value)?;
    }
    Ok(())
}
