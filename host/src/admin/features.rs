// SPDX-License-Identifier: Apache-2.0
//! Capabilities by names of their own, and the decision that routing would take for one: which vendors and models would be
//! asked, in which order and why, without asking any of them.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use penstock_dialects::ir::Usage;
use penstock_prices::cost::{self, Made};
use penstock_prices::price::{Price, Rate};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Shared;
use super::body::{Failed, Name, Query, bad_request, members, name_of, object};
use super::documents::answer;
use crate::clock;
use crate::directory::document::Kind;
use crate::directory::settings::{Feature, Settings};
use crate::directory::{View, matches_any};
use crate::inbound::Content;
use crate::library::Refused;
use crate::plugin::types::Call;
use crate::routes::{Routes, Serves, Target, Vendor};
use crate::snapshot::Snapshot;
use crate::stages::{self, Sight};

/// Features that are there without anybody having made them: a name, what it asks for, and what it is.
const BUILT_IN: &[(&str, &str, &str)] = &[
    ("chat", "chat", "An answer to a conversation."),
    ("embeddings", "embeddings", "Vectors of texts."),
    ("image_to_image", "image_edits", "Pictures made of pictures."),
    ("moderation", "moderations", "Whether a text is harmful."),
    ("realtime", "realtime", "A spoken conversation."),
    ("rerank", "rerank", "Documents in the order of their relevance."),
    ("speech_to_text", "transcription", "A text of speech."),
    ("speech_translation", "translation", "An English text of speech."),
    ("text_to_image", "images", "Pictures made of a text."),
    ("text_to_speech", "speech", "Speech of a text."),
    ("text_to_video", "videos", "Films made of a text."),
];
/// Targets of a vendor that are shown, where nobody has said which model serves a feature.
const OF_VENDOR_MAX: usize = 3;
/// What a request costs is estimated for so many output tokens, if it does not say how many there may be.
const OUTPUT_TOKENS: u64 = 512;
/// Seconds of a film, if the request does not say how many.
const FILM_S: u64 = 5;
/// Pixels of a side, pictures and tokens that a request can ask for.
const NUMBER_MAX: u64 = 1_000_000;

pub(super) async fn list(State(admin): State<Shared>, uri: Uri) -> Result<impl IntoResponse, Failed> {
    Query::of(&uri, &[])?;
    let (view, snapshot) = (admin.directory.view(), admin.snapshot.load());
    let made = view.iter(Kind::Feature).map(|document| document.id.clone());
    let mut names: Vec<_> = BUILT_IN.iter().map(|(name, ..)| (*name).to_owned()).chain(made).collect();
    names.sort();
    names.dedup();
    let shown = names.iter().filter_map(|name| Some(shown(name, &of_name(&view, name)?, &view, &snapshot)));
    Ok(axum::Json(json!({ "items": shown.collect::<Vec<_>>(), "next": null })))
}

pub(super) async fn read(State(admin): State<Shared>, name: Name, uri: Uri) -> Result<Response, Failed> {
    Query::of(&uri, &[])?;
    let name = name_of(name)?;
    let (view, snapshot) = (admin.directory.view(), admin.snapshot.load());
    let feature = of_name(&view, &name).ok_or_else(unknown)?;
    let Value::Object(all) = shown(&name, &feature, &view, &snapshot) else { return Err(unknown().into()) };
    Ok(match view.get(Kind::Feature, &name) {
        Some(document) => answer(StatusCode::OK, document, all),
        None => axum::Json(Value::Object(all)).into_response(),
    })
}

/// What a request for a feature would be.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    prompt: String,
    model: Option<String>,
    width: Option<u64>,
    height: Option<u64>,
    n: Option<u64>,
    quality: Option<String>,
    seconds: Option<u64>,
    max_tokens: Option<u64>,
    /// Whatever else would be sent; it has no part in the decision.
    #[allow(dead_code, reason = "accepted, since it is a part of a request")]
    parameters: Map<String, Value>,
}

pub(super) async fn route(
    State(admin): State<Shared>,
    name: Name,
    uri: Uri,
    request: Request,
) -> Result<impl IntoResponse, Failed> {
    Query::of(&uri, &[])?;
    let name = name_of(name)?;
    let help = r#"send such as {"prompt": "a cat", "width": 1024, "height": 1024}"#;
    let asked: Asked = members(object(request).await?, help)?;
    for (member, value) in [
        ("width", asked.width),
        ("height", asked.height),
        ("n", asked.n),
        ("seconds", asked.seconds),
        ("max_tokens", asked.max_tokens),
    ] {
        if value.is_some_and(|value| !(1..=NUMBER_MAX).contains(&value)) {
            return Err(bad_request(&format!("{member}: expected from 1 to {NUMBER_MAX}"), help));
        }
    }
    let (view, snapshot) = (admin.directory.view(), admin.snapshot.load());
    let feature = of_name(&view, &name).ok_or_else(unknown)?;
    Ok(axum::Json(decision(&name, &feature, &asked, &view, &snapshot)))
}

fn unknown() -> Refused {
    Refused::new("not-found", "there is no feature of this name", "GET /api/v1/features lists them")
}

/// The feature of a name: as somebody has made it, or as it is without.
fn of_name(view: &View, name: &str) -> Option<Feature> {
    if let Some(Settings::Feature(feature)) = view.get(Kind::Feature, name).map(|document| &document.settings) {
        return Some(feature.clone());
    }
    let (_, operation, description) = BUILT_IN.iter().find(|(known, ..)| *known == name)?;
    Some(Feature {
        description: (*description).to_owned(),
        operation: (*operation).to_owned(),
        model: None,
        enabled: true,
        metadata: std::collections::BTreeMap::new(),
    })
}

fn shown(name: &str, feature: &Feature, view: &View, snapshot: &Snapshot) -> Value {
    let (targets, _) = targets(name, feature, None, snapshot);
    let mut vendors: Vec<_> = serving(snapshot, &feature.operation).into_iter().map(|vendor| &*vendor.name).collect();
    vendors.sort_unstable();
    json!({
        "name": name,
        "description": feature.description,
        "operation": feature.operation,
        "model": feature.model,
        "enabled": feature.enabled,
        "built_in": view.get(Kind::Feature, name).is_none(),
        "available": feature.enabled && !targets.is_empty(),
        "vendors": vendors,
        "targets": targets.iter().map(|target| target.id.to_string()).collect::<Vec<_>>(),
        "metadata": feature.metadata,
    })
}

fn decision(name: &str, feature: &Feature, asked: &Asked, view: &View, snapshot: &Snapshot) -> Value {
    let (found, mut why) = targets(name, feature, asked.model.as_deref(), snapshot);
    let served = found.iter().filter(|target| target.vendor.adapter.serves(&feature.operation)).cloned();
    let served: Vec<_> = served.collect();
    if served.len() < found.len() {
        why.push(format!(
            "{} of {} targets do not serve {}",
            found.len() - served.len(),
            found.len(),
            feature.operation
        ));
    }
    let model = asked.model.as_ref().or(feature.model.as_ref());
    let (ranked, routing) = match ranked(name, feature, model.map_or("", String::as_str), served, snapshot) {
        Ok(ranked) => ranked,
        Err(refused) => {
            why.push(refused);
            (Vec::new(), None)
        }
    };
    match &routing {
        Some(plugin) => why.push(format!("the routing plugin {plugin} has ranked them")),
        None => why.push("the order of the policy holds, unhealthy ones last".to_owned()),
    }
    if !feature.enabled {
        why.push("the feature is disabled".to_owned());
    }
    if ranked.is_empty() {
        let missing = snapshot.dormant.iter().map(|(vendor, lacks)| format!("{vendor} ({lacks})"));
        why.push(format!(
            "nobody is left to ask; vendors that wait for something: {}",
            missing.collect::<Vec<_>>().join(", ")
        ));
    }
    let targets: Vec<_> =
        ranked.iter().enumerate().map(|(rank, target)| candidate(rank, target, feature, asked, view)).collect();
    json!({
        "feature": name,
        "operation": feature.operation,
        "model": model,
        "enabled": feature.enabled,
        "decision": targets.first().filter(|_| feature.enabled),
        "targets": targets,
        "routing": routing,
        "why": why,
        "generation": snapshot.generation,
    })
}

/// Where a feature is served, in the order of the policy, and why there.
fn targets(name: &str, feature: &Feature, model: Option<&str>, snapshot: &Snapshot) -> (Vec<Target>, Vec<String>) {
    let named = [
        (model, "the request names the model"),
        (feature.model.as_deref(), "the feature names the model"),
        (snapshot.models.aliases.contains_key(name).then_some(name), "the policy has a model of the feature's name:"),
    ];
    if let Some((model, reason)) = named.into_iter().find_map(|(model, reason)| Some((model?, reason))) {
        let why = format!("{reason} {model}");
        return match snapshot.models.resolve(model) {
            Some(alias) => (alias.targets.clone(), vec![why]),
            None => (Vec::new(), vec![why, "no vendor in force has this model".to_owned()]),
        };
    }
    let vendors = serving(snapshot, &feature.operation);
    let targets = vendors.iter().flat_map(|vendor| priced(vendor, &feature.operation, snapshot)).collect();
    let why = format!("{} vendors in force serve {}; nobody has named a model", vendors.len(), feature.operation);
    (targets, vec![why])
}

fn serving<'s>(snapshot: &'s Snapshot, operation: &str) -> Vec<&'s std::sync::Arc<Vendor>> {
    let vendors = snapshot.models.vendors.values();
    let mut vendors: Vec<_> = vendors.filter(|vendor| vendor.adapter.serves(operation)).collect();
    vendors.sort_by(|one, other| one.name.cmp(&other.name));
    vendors
}

/// The models of a vendor that seem to serve an operation: those that it lists by name if it serves nothing else, and
/// otherwise those whose prices are of that kind.
fn priced(vendor: &std::sync::Arc<Vendor>, operation: &str, snapshot: &Snapshot) -> Vec<Target> {
    let begin = format!("{}/", vendor.name);
    let mut names: Vec<String> = snapshot
        .models
        .prices
        .iter()
        .filter(|(_, price)| is_price_of(operation, price))
        .filter_map(|(name, _)| name.strip_prefix(&begin).map(str::to_owned))
        .filter(|model| !model.contains('*') && matches_any(&vendor.models, model))
        .collect();
    names.sort();
    names.truncate(OF_VENDOR_MAX);
    if names.is_empty() {
        let listed = vendor.models.iter().filter(|model| !model.contains('*')).cloned();
        names = listed.filter(|_| operation == "chat" || vendor.adapter.operations().len() == 1).take(1).collect();
    }
    names.iter().map(|model| snapshot.models.target(vendor, model)).collect()
}

fn is_price_of(operation: &str, price: &Price) -> bool {
    let has = |wanted: Rate| price.rates.of.iter().any(|(rate, _)| *rate == wanted);
    match operation {
        "images" | "image_edits" => has(Rate::Image) || has(Rate::OutputImage) || !price.images.is_empty(),
        "videos" => has(Rate::VideoSecond) || !price.video_seconds.is_empty(),
        "speech" => has(Rate::Character),
        "transcription" | "translation" => has(Rate::AudioSecond),
        "rerank" => has(Rate::SearchUnit),
        "chat" => has(Rate::Output) && !has(Rate::OutputImage),
        "embeddings" => has(Rate::Input) && !has(Rate::Output),
        _ => false,
    }
}

type Ranked = (Vec<Target>, Option<String>);

/// The targets as routing would order them, and which plugin it was.
fn ranked(
    name: &str,
    feature: &Feature,
    model: &str,
    targets: Vec<Target>,
    snapshot: &Snapshot,
) -> Result<Ranked, String> {
    let alias = snapshot.models.resolve(if model.is_empty() { name } else { model });
    let of_model = alias.as_ref().and_then(|alias| alias.routing.as_ref());
    let route = first_route(&snapshot.routes);
    let routing = of_model.or_else(|| route.and_then(|route| route.routing.as_ref()));
    let plugin = routing.map(|routing| routing.name().to_owned());
    if targets.is_empty() {
        return Ok((targets, plugin));
    }
    let facts = [("route", route.map_or("", |route| &*route.name))];
    let call = Call {
        id: "preview",
        operation: &feature.operation,
        dialect: "",
        model,
        streaming: false,
        attempt: 0,
        deadline_ms: u32::try_from(snapshot.timeouts.total_ms).unwrap_or(u32::MAX),
        subject: None,
        tenant: None,
        facts: &facts,
    };
    let (headers, content) = (HeaderMap::new(), Content::Raw);
    let sight = Sight { headers: &headers, content: &content };
    let ranked = stages::rank(routing, &call, &targets, &sight);
    ranked.map(|ranked| (ranked, plugin)).map_err(|failure| failure.fault.message)
}

/// The route whose routing is used, where a model has none of its own: the first AI route by name.
fn first_route(routes: &Routes) -> Option<&crate::routes::Route> {
    let routes = routes.iter().filter(|route| matches!(route.serves, Serves::Models));
    routes.min_by(|one, other| (&one.prefix, &one.name).cmp(&(&other.prefix, &other.name))).map(|route| &**route)
}

fn candidate(rank: usize, target: &Target, feature: &Feature, asked: &Asked, view: &View) -> Value {
    let health = target.vendor.endpoint.as_ref().map(|endpoint| &endpoint.health);
    let keys = view.pool(&target.vendor.keys_of).map(|keys| keys.iter()).into_iter().flatten();
    let is_cooling = |id: &str| target.vendor.pool.as_ref().is_some_and(|pool| pool.is_cooling(id, Instant::now()));
    let pool = keys.min_by_key(|key| (is_cooling(&key.id), key.tier));
    let key = match pool {
        Some(key) => json!({ "source": "directory", "id": &*key.id, "key_name": key.name, "tier": key.tier.name() }),
        None if target.vendor.adapter.secrets().secret("key").is_some() => {
            json!({ "source": "policy", "id": null, "key_name": null, "tier": "primary" })
        }
        None => Value::Null,
    };
    json!({
        "rank": rank + 1,
        "target": &*target.id,
        "vendor": &*target.vendor.name,
        "adapter": target.vendor.adapter.component(),
        "model": &*target.model,
        "operation": feature.operation,
        "weight": target.weight,
        "priority": target.priority,
        "healthy": target.is_healthy(Instant::now()),
        "latency_ms": health.map_or(0, |health| clock::millis(health.first_byte())),
        "in_flight": health.map_or(0, |health| health.in_flight()),
        "key": key,
        "estimated_usd": estimate(target, &feature.operation, asked),
    })
}

/// What the request would cost at a target; none if nobody knows.
fn estimate(target: &Target, operation: &str, asked: &Asked) -> Option<f64> {
    let count = asked.n.unwrap_or(1);
    let mut usage = Usage { input: (asked.prompt.len() as u64).div_ceil(4), ..Usage::default() };
    let mut made = Made::default();
    match operation {
        "images" | "image_edits" => {
            usage.more = vec![(Rate::Image.bucket().to_owned(), count)];
            made.size = Some(format!("{}x{}", asked.width.unwrap_or(1024), asked.height.unwrap_or(1024)));
            made.quality.clone_from(&asked.quality);
        }
        "videos" => {
            usage.more = vec![(Rate::VideoSecond.bucket().to_owned(), asked.seconds.unwrap_or(FILM_S))];
            made.size = asked.width.zip(asked.height).map(|(width, height)| format!("{width}x{height}"));
        }
        "speech" => made.characters = asked.prompt.chars().count() as u64,
        "chat" => usage.output = asked.max_tokens.unwrap_or(OUTPUT_TOKENS),
        _ => {}
    }
    let price = target.price.as_deref()?;
    let is_by_tokens = price.images.is_empty() && !price.rates.of.iter().any(|(rate, _)| *rate == Rate::Image);
    if is_by_tokens && matches!(operation, "images" | "image_edits") {
        return None; // how many tokens a picture has, only the vendor knows
    }
    let cost = cost::of(Some(price), Some(&usage), &made);
    cost.map(|cost| cost.usd.to_f64())
}
