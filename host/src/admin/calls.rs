// SPDX-License-Identifier: Apache-2.0
//! The calls about plugins, policies and generations, one function each, and the health checks.

use std::collections::BTreeMap;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::body::{BODY_BYTES_MAX, Failed, Name, Query, bad_request, name_of, parse, read};
use super::{Shared, failure, openapi};
use crate::control::{Answer, Change};
use crate::directory::audit::{Actor, Note};
use crate::library::Refused;
use crate::plugin::breaks::Condition;

type Outcome = Result<axum::Json<Answer>, Failed>;

pub(super) async fn probe(State(admin): State<Shared>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    match admin.probes.answer((&method, uri.path(), &headers), &admin.metrics, &admin.directory) {
        Some(answer) => answer.map(Body::from),
        None => not_found().await,
    }
}

pub(super) async fn plugins(State(admin): State<Shared>, uri: Uri) -> Result<impl IntoResponse, Failed> {
    Query::of(&uri, &[])?;
    let status = admin.control.status();
    let answer = json!({ "generation": status.generation, "plugins": status.plugins, "refused": status.refused });
    Ok(axum::Json(answer))
}

pub(super) async fn plugin(State(admin): State<Shared>, name: Name, uri: Uri) -> Result<impl IntoResponse, Failed> {
    Query::of(&uri, &[])?;
    let (name, status) = (name_of(name)?, admin.control.status());
    let absent =
        || Refused::new("no-such-plugin", format!("there is no plugin {name}"), "GET /api/v1/plugins lists them");
    let found = status.plugins.iter().find(|plugin| plugin.facts.name == name).ok_or_else(absent)?;
    let snapshot = admin.snapshot.load();
    let mut uses: Vec<_> = snapshot.made_of(&name).collect();
    uses.sort_unstable_by_key(|(name, _)| *name);
    let uses = uses.into_iter().map(|(name, plugin)| Use { name, condition: plugin.condition() }).collect::<Vec<_>>();
    Ok(axum::Json(json!({ "plugin": found, "uses": uses })))
}

/// A configured plugin that is made of a component.
#[derive(Serialize)]
struct Use<'u> {
    name: &'u str,
    #[serde(flatten)]
    condition: Condition,
}

pub(super) async fn upload(
    State(admin): State<Shared>,
    Extension(actor): Extension<Actor>,
    uri: Uri,
    request: Request,
) -> Outcome {
    let activate = match Query::of(&uri, &["activate"])?.text("activate").as_deref() {
        None | Some("true") => true,
        Some("false") => false,
        Some(_) => return Err(bad_request("activate: expected `true` or `false`", "leave it out to put it in force")),
    };
    let bytes = read(request, admin.component_bytes_max).await?;
    ask(&admin, actor, Change::Upload { bytes: bytes.into(), activate }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Activation {
    digest: String,
}

pub(super) async fn activate(
    State(admin): State<Shared>,
    Extension(actor): Extension<Actor>,
    name: Name,
    request: Request,
) -> Outcome {
    let name = name_of(name)?;
    let Activation { digest } = parse(&read(request, BODY_BYTES_MAX).await?, r#"send {"digest": "…"}"#)?;
    ask(&admin, actor, Change::Activate { name, digest }).await
}

pub(super) async fn roll_back(
    State(admin): State<Shared>,
    Extension(actor): Extension<Actor>,
    name: Name,
    uri: Uri,
) -> Outcome {
    Query::of(&uri, &[])?;
    ask(&admin, actor, Change::RollBack { name: name_of(name)? }).await
}

pub(super) async fn remove(
    State(admin): State<Shared>,
    Extension(actor): Extension<Actor>,
    name: Name,
    uri: Uri,
) -> Outcome {
    Query::of(&uri, &[])?;
    ask(&admin, actor, Change::Remove { name: name_of(name)? }).await
}

pub(super) async fn generations(State(admin): State<Shared>, uri: Uri) -> Result<impl IntoResponse, Failed> {
    Query::of(&uri, &[])?;
    let status = admin.control.status();
    Ok(axum::Json(json!({
        "generation": status.generation,
        "generations": status.generations,
        "policy_refused": status.policy_refused,
    })))
}

pub(super) async fn roll_back_generation(
    State(admin): State<Shared>,
    Extension(actor): Extension<Actor>,
    number: Result<Path<u64>, PathRejection>,
    uri: Uri,
) -> Outcome {
    Query::of(&uri, &[])?;
    let Ok(Path(number)) = number else {
        return Err(bad_request("the generation must be a number", "GET /api/v1/generations lists them"));
    };
    ask(&admin, actor, Change::RollBackGeneration { number }).await
}

pub(super) async fn policies(State(admin): State<Shared>, uri: Uri) -> Result<impl IntoResponse, Failed> {
    Query::of(&uri, &[])?;
    let status = admin.control.status();
    let in_force = status.generations.last();
    let dormant: Vec<_> = admin
        .snapshot
        .load()
        .dormant
        .iter()
        .map(|(vendor, lacks)| json!({ "vendor": vendor, "lacks": lacks }))
        .collect();
    Ok(axum::Json(json!({
        "generation": status.generation,
        "files": in_force.map(|generation| generation.policies.clone()).unwrap_or_default(),
        "digest": in_force.map(|generation| generation.policies_digest.clone()).unwrap_or_default(),
        "refused": status.policy_refused,
        "dormant": dormant,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    files: BTreeMap<String, String>,
}

pub(super) async fn validate(State(admin): State<Shared>, headers: HeaderMap, request: Request) -> Outcome {
    let bytes = read(request, BODY_BYTES_MAX).await?;
    if bytes.is_empty() {
        return Err(bad_request("there is no body", "send the policy files"));
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let files = if kind.starts_with("application/json") {
        let files: Files = parse(&bytes, r#"send {"files": {"name.toml": "…"}}, or TOML as text/plain"#)?;
        files.files.into_iter().collect()
    } else {
        let text = String::from_utf8(bytes.into()).map_err(|_| bad_request("the policy is not UTF-8", "send TOML"))?;
        vec![("policy.toml".to_owned(), text)]
    };
    Ok(axum::Json(admin.control.ask(Change::Validate { files }).await?))
}

pub(super) async fn reload(State(admin): State<Shared>, Extension(actor): Extension<Actor>, uri: Uri) -> Outcome {
    Query::of(&uri, &[])?;
    ask(&admin, actor, Change::Reload).await
}

pub(super) async fn cluster(State(admin): State<Shared>, uri: Uri) -> Result<impl IntoResponse, Failed> {
    Query::of(&uri, &[])?;
    Ok(axum::Json(match &admin.cluster {
        Some(cluster) => cluster.status().await,
        None => crate::cluster::alone(),
    }))
}

pub(super) async fn openapi(uri: Uri) -> Result<impl IntoResponse, Failed> {
    Query::of(&uri, &[])?;
    Ok(axum::Json(openapi::document()))
}

pub(super) async fn not_found() -> Response {
    let refused = Refused::new("no-such-path", "there is nothing here", "see /api/v1/openapi.json");
    failure(StatusCode::NOT_FOUND, &refused)
}

pub(super) async fn not_allowed() -> Response {
    let refused = Refused::new("bad-method", "this path has no such method", "see /api/v1/openapi.json");
    failure(StatusCode::METHOD_NOT_ALLOWED, &refused)
}

/// Asks for a change, and writes down that it was made.
async fn ask(admin: &Shared, actor: Actor, change: Change) -> Outcome {
    let action = change.cause();
    let (kind, named) = match &change {
        Change::Upload { .. } => ("plugin", None),
        Change::Activate { name, .. } | Change::RollBack { name } | Change::Remove { name } => {
            ("plugin", Some(name.clone()))
        }
        Change::RollBackGeneration { number } => ("generation", Some(number.to_string())),
        Change::Files | Change::Follow { .. } | Change::Keys | Change::Reload | Change::Validate { .. } => {
            ("policy", None)
        }
    };
    if let Some(cluster) = &admin.cluster {
        cluster.there().await?;
        if matches!(change, Change::RollBackGeneration { .. }) {
            let help = "put the files back into the policy directory of a node, or activate the version of the plugin";
            return Err(
                Refused::new("clustered", "a generation is of one node, and this one is in a cluster", help).into()
            );
        }
    }
    let before = admin.control.status().generation;
    let answer = admin.control.ask(change).await?;
    if let Some(cluster) = &admin.cluster {
        cluster.share().await;
    }
    let id = named.or_else(|| answer.plugin.as_ref().map(|plugin| plugin.name.clone())).unwrap_or_default();
    let (before, after) = (Some(json!({ "generation": before })), serde_json::to_value(&answer).ok());
    admin.directory.note(actor, Note { action, kind, id, before, after }).await?;
    Ok(axum::Json(answer))
}
