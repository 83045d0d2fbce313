// SPDX-License-Identifier: Apache-2.0
//! Services that tell that they are there. What they are is in the directory; when they were last heard of is in memory:
//! after a restart of the gateway a service is unhealthy until its next heartbeat.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::Shared;
use super::body::{Failed, Name, Query, expected, name_of, object};
use super::documents::{answer, find, id_in, made, page};
use crate::clock;
use crate::directory::Change;
use crate::directory::audit::Actor;
use crate::directory::beats::Beats;
use crate::directory::document::{Document, Kind};
use crate::directory::settings::Settings;

/// How a service is, by its last heartbeat.
fn health(beats: &Beats, document: &Document) -> Map<String, Value> {
    let ttl_s = if let Settings::Service(service) = &document.settings { service.ttl_s } else { 0 };
    let last = beats.last(&document.id);
    let silent_s = last.map(|last| clock::unix_s().saturating_sub(last));
    let healthy = silent_s.is_some_and(|silent| silent <= ttl_s);
    let mut health = Map::new();
    health.insert("healthy".to_owned(), json!(healthy));
    health.insert("last_seen_unix_s".to_owned(), json!(last));
    health.insert("silent_s".to_owned(), json!(silent_s));
    health
}

pub(super) async fn list(State(admin): State<Shared>, uri: Uri) -> Result<impl IntoResponse, Failed> {
    let query = Query::of(&uri, &["limit", "after", "name", "healthy"])?;
    let (limit, after, name) = (query.limit()?, query.text("after"), query.text("name"));
    let healthy = match query.text("healthy").as_deref() {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(super::body::bad_request("healthy: expected `true` or `false`", "leave it out for all")),
    };
    let view = admin.directory.view();
    let shown = view.iter(Kind::Service).filter_map(|document| {
        let mut shown = document.shown();
        if let Value::Object(members) = &mut shown {
            members.extend(health(&admin.beats, document));
        }
        let is_after = after.as_deref().is_none_or(|after| *document.id > *after);
        let is_named = name.as_deref().is_none_or(|name| shown["name"] == name);
        let is_so = healthy.is_none_or(|healthy| shown["healthy"] == healthy);
        (is_after && is_named && is_so).then(|| (document.id.clone(), shown))
    });
    Ok(axum::Json(page(shown, limit)))
}

/// Registers a service; one of the same id is replaced, so that a service which was restarted can register again.
pub(super) async fn register(
    State(admin): State<Shared>,
    Extension(actor): Extension<Actor>,
    uri: Uri,
    request: Request,
) -> Result<impl IntoResponse, Failed> {
    Query::of(&uri, &[])?;
    let mut settings = object(request).await?;
    let change = match id_in(&mut settings)? {
        Some(id) => Change::Put { kind: Kind::Service, id, settings: Value::Object(settings), expected: None },
        None => Change::Create { kind: Kind::Service, id: None, settings: Value::Object(settings), secret: None },
    };
    let changed = admin.directory.change(actor, change).await?;
    admin.beats.beat(&changed.document.id);
    made(&changed)
}

pub(super) async fn read(State(admin): State<Shared>, id: Name, uri: Uri) -> Result<impl IntoResponse, Failed> {
    Query::of(&uri, &[])?;
    let document = find(&admin, Kind::Service, &name_of(id)?)?;
    Ok(answer(StatusCode::OK, &document, health(&admin.beats, &document)))
}

pub(super) async fn heartbeat(State(admin): State<Shared>, id: Name, uri: Uri) -> Result<impl IntoResponse, Failed> {
    Query::of(&uri, &[])?;
    let document = find(&admin, Kind::Service, &name_of(id)?)?;
    admin.beats.beat(&document.id);
    Ok(told(&admin, &document))
}

pub(super) async fn of_one(State(admin): State<Shared>, id: Name, uri: Uri) -> Result<impl IntoResponse, Failed> {
    Query::of(&uri, &[])?;
    let document = find(&admin, Kind::Service, &name_of(id)?)?;
    Ok(told(&admin, &document))
}

fn told(admin: &Shared, document: &Document) -> axum::Json<Value> {
    let mut told = Map::new();
    told.insert("id".to_owned(), json!(document.id));
    told.extend(health(&admin.beats, document));
    axum::Json(Value::Object(told))
}

pub(super) async fn deregister(
    State(admin): State<Shared>,
    Extension(actor): Extension<Actor>,
    id: Name,
    uri: Uri,
    request: Request,
) -> Result<impl IntoResponse, Failed> {
    Query::of(&uri, &[])?;
    let (id, expected) = (name_of(id)?, expected(request.headers())?);
    let changed = admin.directory.change(actor, Change::Delete { kind: Kind::Service, id, expected }).await?;
    admin.beats.forget(&changed.document.id);
    Ok(axum::Json(json!({ "deleted": changed.document.id })))
}
