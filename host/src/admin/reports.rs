// SPDX-License-Identifier: Apache-2.0
//! What has happened and what things cost: usage, audit, prices, jobs.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::Uri;
use axum::response::IntoResponse;
use penstock_prices::price::{Price, Rates};
use serde_json::{Map, Value, json};

use super::Shared;
use super::body::{Failed, Name, Query, bad_request, name_of};
use super::documents::page;
use crate::calendar::Date;
use crate::clock;
use crate::directory::audit;
use crate::directory::settings::NUMBER_MAX;
use crate::directory::usage::{Row, day_of};
use crate::jobs::record::Record;
use crate::library::Refused;

/// Days that are summed up if nothing else is asked for.
const DAYS: u64 = 30;
/// Days that can be asked for.
const DAYS_MAX: u64 = 400;

pub(super) async fn usage(State(admin): State<Shared>, uri: Uri) -> Result<impl IntoResponse, Failed> {
    let query = Query::of(&uri, &["by", "days", "key", "team", "model", "vendor", "subject", "limit"])?;
    let by = query.text("by").unwrap_or_else(|| "key".to_owned());
    if !["key", "team", "subject", "vendor", "model", "day"].contains(&by.as_str()) {
        return Err(bad_request("by: there is no such sum", "by is one of key, team, subject, vendor, model, day"));
    }
    let days = query.number("days")?.unwrap_or(DAYS);
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(bad_request(&format!("days: expected from 1 to {DAYS_MAX}"), "leave it out for 30"));
    }
    let limit = query.limit()?;
    let today = day_of(clock::unix_s());
    let rows = admin.directory.used((today + 1).saturating_sub(days), today).await?;
    let is = |name: &str, value: &str| query.text(name).is_none_or(|wanted| wanted == value);
    let rows = rows.iter().filter(|row| {
        is("key", &row.key)
            && is("team", &row.team)
            && is("model", &row.model)
            && is("vendor", &row.vendor)
            && is("subject", &row.subject)
    });
    let (mut sums, mut total): (BTreeMap<String, Row>, Row) = Default::default();
    for row in rows {
        sums.entry(name_in(row, &by)).or_default().add(row);
        total.add(row);
    }
    let mut items: Vec<_> = sums.into_iter().collect();
    if by != "day" {
        items.sort_by_key(|(_, sum)| std::cmp::Reverse((sum.nano_usd, sum.requests)));
    }
    let items: Vec<_> = items.into_iter().take(limit).map(|(name, sum)| sum_of(Some((&by, &name)), &sum)).collect();
    Ok(axum::Json(json!({ "by": by, "days": days, "items": items, "total": sum_of(None, &total) })))
}

fn name_in(row: &Row, by: &str) -> String {
    match by {
        "team" => row.team.clone(),
        "subject" => row.subject.clone(),
        "vendor" => row.vendor.clone(),
        "model" => row.model.clone(),
        "day" => Date::of(row.day).to_string(),
        _ => row.key.clone(),
    }
}

fn sum_of(name: Option<(&str, &str)>, sum: &Row) -> Value {
    let mut json = Map::new();
    if let Some((by, name)) = name {
        json.insert(by.to_owned(), json!(name));
    }
    json.insert("requests".to_owned(), json!(sum.requests));
    json.insert("failed".to_owned(), json!(sum.failed));
    json.insert("input_tokens".to_owned(), json!(sum.input_tokens));
    json.insert("output_tokens".to_owned(), json!(sum.output_tokens));
    #[allow(clippy::cast_precision_loss, reason = "exact up to nine million dollars, and for people")]
    json.insert("usd".to_owned(), json!(sum.nano_usd as f64 / 1e9));
    Value::Object(json)
}

pub(super) async fn audit(State(admin): State<Shared>, uri: Uri) -> Result<impl IntoResponse, Failed> {
    let query = Query::of(&uri, &["limit", "before", "actor", "action", "kind", "id"])?;
    let limit = query.limit()?;
    let before = query.number("before")?;
    if before.is_some_and(|before| before > NUMBER_MAX) {
        return Err(bad_request(&format!("before: expected at most {NUMBER_MAX}"), "send `next` of the page before"));
    }
    let asked = audit::Query {
        before,
        limit,
        actor: query.text("actor"),
        action: query.text("action"),
        kind: query.text("kind"),
        id: query.text("id"),
    };
    let lines = admin.directory.audit(asked).await?;
    let next = lines.last().filter(|line| lines.len() == limit && line.number > 1).map(|line| line.number);
    Ok(axum::Json(json!({ "items": lines, "next": next })))
}

pub(super) async fn prices(State(admin): State<Shared>, uri: Uri) -> Result<impl IntoResponse, Failed> {
    let query = Query::of(&uri, &["limit", "after", "model"])?;
    let (limit, after) = (query.limit()?, query.text("after"));
    let snapshot = admin.snapshot.load();
    if let Some(model) = query.text("model") {
        let (vendor, name) = model.split_once('/').unwrap_or(("", &model));
        let found = snapshot.models.prices.find(vendor, name).map(|price| (model.clone(), price_of(&model, price)));
        return Ok(axum::Json(page(found.into_iter(), limit)));
    }
    let mut prices: Vec<_> = snapshot.models.prices.iter().collect();
    prices.sort_by(|(one, _), (other, _)| one.cmp(other));
    let further = prices.into_iter().filter(|(name, _)| after.as_deref().is_none_or(|after| name.as_str() > after));
    Ok(axum::Json(page(further.map(|(name, price)| (name.clone(), price_of(&name, price))), limit)))
}

/// A price as JSON: dollars for a million tokens, or for one of what is no token.
fn price_of(name: &str, price: &Price) -> Value {
    let rates = |rates: &Rates| {
        let of = rates.of.iter().map(|(rate, usd)| (rate.key().to_owned(), json!(usd.to_f64())));
        Value::Object(of.collect())
    };
    json!({
        "model": name,
        "like": price.like,
        "rates": rates(&price.rates),
        "tiers": price.tiers.iter().map(|(tier, of)| (tier.clone(), rates(of))).collect::<BTreeMap<_, _>>(),
        "images": price.images.iter().map(|(size, usd)| (size.clone(), usd.to_f64())).collect::<BTreeMap<_, _>>(),
    })
}

pub(super) async fn jobs(State(admin): State<Shared>, uri: Uri) -> Result<impl IntoResponse, Failed> {
    let query = Query::of(&uri, &["limit", "before", "status", "subject"])?;
    let (limit, before) = (query.limit()?, query.text("before"));
    let (status, subject) = (query.text("status"), query.text("subject"));
    let is_meant = |record: &Record| {
        before.as_deref().is_none_or(|before| *record.id < *before)
            && status.as_deref().is_none_or(|status| record.status.name() == status)
            && subject.as_deref().is_none_or(|subject| record.owner.subject == subject)
    };
    let jobs = admin.jobs.newest(limit + 1, is_meant);
    Ok(axum::Json(page(jobs.iter().map(|record| (record.id.clone(), job_of(record))), limit)))
}

pub(super) async fn job(State(admin): State<Shared>, id: Name, uri: Uri) -> Result<impl IntoResponse, Failed> {
    Query::of(&uri, &[])?;
    let id = name_of(id)?;
    let found = admin.jobs.newest(1, |record| record.id == id);
    let record =
        found.first().ok_or_else(|| Refused::new("not-found", "there is no job of this id", "GET the list"))?;
    Ok(axum::Json(job_of(record)))
}

/// A job without what was asked and answered.
fn job_of(record: &Record) -> Value {
    json!({
        "id": record.id,
        "status": record.status.name(),
        "operation": record.asked.operation,
        "model": record.asked.model,
        "route": record.owner.route,
        "subject": record.owner.subject,
        "team": record.owner.tenant,
        "request_id": record.asked.request_id,
        "target": record.target,
        "created_unix_s": record.created_ms / 1000,
        "started_unix_s": record.started_ms.map(|at| at / 1000),
        "ended_unix_s": record.ended_ms.map(|at| at / 1000),
        "bytes": record.bytes,
    })
}
