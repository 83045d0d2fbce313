// SPDX-License-Identifier: Apache-2.0
//! The calls that all kinds of documents have: list, make, read, change, rotate, delete.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::body::{Failed, Name, Query, bad_request, expected, members, name_of, object, object_or_nothing};
use super::{BASE, Shared};
use crate::directory::audit::Actor;
use crate::directory::document::{Document, Kind};
use crate::directory::{Change, Changed};
use crate::keys::Secret;
use crate::library::Refused;

/// Longest time for which an old secret is still accepted: thirty days, in seconds.
const OVERLAP_S_MAX: u64 = 30 * 86_400;

/// Where the documents of a kind are, below the base.
pub(super) fn collection(kind: Kind) -> &'static str {
    match kind {
        Kind::AdminToken => "admin-tokens",
        Kind::Budget => "budgets",
        Kind::Feature => "features",
        Kind::Limit => "limits",
        Kind::Service => "services",
        Kind::Team => "teams",
        Kind::VendorKey => "keys",
        Kind::VirtualKey => "virtual-keys",
    }
}

pub(super) fn list(kind: Kind) -> MethodRouter<Shared> {
    get(move |State(admin): State<Shared>, uri: Uri| async move {
        let query = Query::of(&uri, &["limit", "after"])?;
        let (limit, after) = (query.limit()?, query.text("after"));
        let view = admin.directory.view();
        let documents = view.iter(kind).filter(|document| after.as_deref().is_none_or(|after| *document.id > *after));
        Ok::<_, Failed>(axum::Json(page(documents.map(|document| (document.id.clone(), document.shown())), limit)))
    })
}

/// One page of a list, and where the next one begins.
pub(super) fn page(items: impl Iterator<Item = (String, Value)>, limit: usize) -> Value {
    let mut items: Vec<_> = items.take(limit + 1).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|(id, _)| id.clone());
    json!({ "items": items.into_iter().map(|(_, item)| item).collect::<Vec<_>>(), "next": next })
}

pub(super) fn read(kind: Kind) -> MethodRouter<Shared> {
    get(move |State(admin): State<Shared>, id: Name, uri: Uri| async move {
        Query::of(&uri, &[])?;
        let document = find(&admin, kind, &name_of(id)?)?;
        Ok::<_, Failed>(answer(StatusCode::OK, &document, Map::new()))
    })
}

pub(super) fn find(admin: &Shared, kind: Kind, id: &str) -> Result<std::sync::Arc<Document>, Failed> {
    let found = admin.directory.view().get(kind, id).cloned();
    found.ok_or_else(|| {
        Refused::new("not-found", format!("there is no {} of this id", kind.name()), "GET the list").into()
    })
}

pub(super) fn create(kind: Kind) -> MethodRouter<Shared> {
    post(
        move |State(admin): State<Shared>, Extension(actor): Extension<Actor>, uri: Uri, request: Request| async move {
            Query::of(&uri, &[])?;
            let mut settings = object(request).await?;
            let id = id_in(&mut settings)?;
            let change = Change::Create { kind, id, settings: Value::Object(settings), secret: None };
            made(&admin.directory.change(actor, change).await?)
        },
    )
}

/// Takes the id out of the members of a document.
pub(super) fn id_in(settings: &mut Map<String, Value>) -> Result<Option<String>, Failed> {
    match settings.remove("id") {
        None => Ok(None),
        Some(Value::String(id)) => Ok(Some(id)),
        Some(_) => Err(bad_request("id: expected a text", "leave it out to have one made up")),
    }
}

/// The answer for a new document, with the secret that was made for it: it is shown this once.
pub(super) fn made(changed: &Changed) -> Result<Response, Failed> {
    let document = &changed.document;
    let status = if changed.is_new { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = answer(status, document, minted(changed));
    let location = format!("{BASE}/{}/{}", collection(document.kind), document.id);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

fn minted(changed: &Changed) -> Map<String, Value> {
    let secret = changed.minted.as_ref().and_then(|secret| std::str::from_utf8(secret.expose()).ok());
    let name = if changed.document.kind == Kind::AdminToken { "token" } else { "key" };
    secret.map(|secret| (name.to_owned(), json!(secret))).into_iter().collect()
}

pub(super) fn change(kind: Kind) -> MethodRouter<Shared> {
    patch(
        move |State(admin): State<Shared>, Extension(actor): Extension<Actor>, id: Name, uri: Uri, request: Request| async move {
            Query::of(&uri, &[])?;
            let (id, expected) = (name_of(id)?, expected(request.headers())?);
            let patch = object(request).await?;
            let change = Change::Patch { kind, id, patch, secret: None, expected };
            let changed = admin.directory.change(actor, change).await?;
            Ok::<_, Failed>(answer(StatusCode::OK, &changed.document, Map::new()))
        },
    )
}

pub(super) fn replace(kind: Kind) -> MethodRouter<Shared> {
    put(
        move |State(admin): State<Shared>, Extension(actor): Extension<Actor>, id: Name, uri: Uri, request: Request| async move {
            Query::of(&uri, &[])?;
            let (id, expected) = (name_of(id)?, expected(request.headers())?);
            let settings = Value::Object(object(request).await?);
            made(&admin.directory.change(actor, Change::Put { kind, id, settings, expected }).await?)
        },
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    #[serde(default)]
    overlap_s: u64,
}

pub(super) fn rotate(kind: Kind) -> MethodRouter<Shared> {
    post(
        move |State(admin): State<Shared>, Extension(actor): Extension<Actor>, id: Name, uri: Uri, request: Request| async move {
            Query::of(&uri, &[])?;
            let (id, expected) = (name_of(id)?, expected(request.headers())?);
            let help = r#"send {"overlap_s": 3600}, or nothing to refuse the old secret at once"#;
            let Rotation { overlap_s } = members(object_or_nothing(request).await?, help)?;
            if overlap_s > OVERLAP_S_MAX {
                return Err(bad_request(&format!("overlap_s: expected at most {OVERLAP_S_MAX}"), help));
            }
            let change = Change::Rotate { kind, id, secret: None, overlap_s, expected };
            let changed = admin.directory.change(actor, change).await?;
            Ok::<_, Failed>(answer(StatusCode::OK, &changed.document, minted(&changed)))
        },
    )
}

pub(super) fn remove(kind: Kind) -> MethodRouter<Shared> {
    delete(
        move |State(admin): State<Shared>, Extension(actor): Extension<Actor>, id: Name, uri: Uri, request: Request| async move {
            Query::of(&uri, &[])?;
            let (id, expected) = (name_of(id)?, expected(request.headers())?);
            let changed = admin.directory.change(actor, Change::Delete { kind, id, expected }).await?;
            Ok::<_, Failed>(axum::Json(json!({ "deleted": changed.document.id })))
        },
    )
}

/// A document with its version as `ETag`, and what else is to be told.
pub(super) fn answer(status: StatusCode, document: &Document, further: Map<String, Value>) -> Response {
    let mut shown = document.shown();
    if let Value::Object(shown) = &mut shown {
        shown.extend(further);
    }
    let mut response = (status, axum::Json(shown)).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", document.version)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    // a secret that is shown once must not stay in a cache on the way
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The key of a vendor among the members of a body.
pub(super) fn secret_in(settings: &mut Map<String, Value>) -> Result<Option<Secret>, Failed> {
    /// Longest key, in bytes: a service-account file fits.
    const SECRET_BYTES_MAX: usize = 64 << 10;
    let is_good = |key: &String| !key.is_empty() && key.len() <= SECRET_BYTES_MAX;
    match settings.remove("api_key") {
        None => Ok(None),
        Some(Value::String(key)) if is_good(&key) => Ok(Some(Secret::new(key.into_bytes()))),
        Some(_) => Err(bad_request("api_key: expected a text that is not empty", "send the key as the vendor gave it")),
    }
}
