// SPDX-License-Identifier: Apache-2.0
//! The calls about keys of vendors, as far as they differ from those about other documents: the key itself comes in as
//! `api_key`, and goes out never. A change builds a new generation, since a vendor may come alive by it.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::routing::{MethodRouter, delete, patch, post};
use serde_json::{Map, Value, json};

use super::Shared;
use super::body::{Failed, Name, Query, bad_request, expected, name_of, object};
use super::documents::{answer, id_in, made, secret_in};
use crate::control::Change as Wanted;
use crate::directory::Change;
use crate::directory::audit::Actor;
use crate::directory::document::Kind;

const KIND: Kind = Kind::VendorKey;

pub(super) fn create() -> MethodRouter<Shared> {
    post(|State(admin): State<Shared>, Extension(actor): Extension<Actor>, uri: Uri, request: Request| async move {
        Query::of(&uri, &[])?;
        let mut settings = object(request).await?;
        let id = id_in(&mut settings)?;
        let Some(secret) = secret_in(&mut settings)? else {
            return Err(bad_request("api_key is missing", "send the key as the vendor gave it"));
        };
        let change = Change::Create { kind: KIND, id, settings: Value::Object(settings), secret: Some(secret) };
        let changed = admin.directory.change(actor, change).await?;
        in_force(&admin).await;
        made(&changed)
    })
}

pub(super) fn change() -> MethodRouter<Shared> {
    patch(
        |State(admin): State<Shared>, Extension(actor): Extension<Actor>, id: Name, uri: Uri, request: Request| async move {
            Query::of(&uri, &[])?;
            let (id, expected) = (name_of(id)?, expected(request.headers())?);
            let mut patch = object(request).await?;
            let secret = secret_in(&mut patch)?;
            let changed =
                admin.directory.change(actor, Change::Patch { kind: KIND, id, patch, secret, expected }).await?;
            in_force(&admin).await;
            Ok::<_, Failed>(answer(StatusCode::OK, &changed.document, Map::new()))
        },
    )
}

pub(super) fn rotate() -> MethodRouter<Shared> {
    post(
        |State(admin): State<Shared>, Extension(actor): Extension<Actor>, id: Name, uri: Uri, request: Request| async move {
            Query::of(&uri, &[])?;
            let (id, expected) = (name_of(id)?, expected(request.headers())?);
            let mut settings = object(request).await?;
            let secret = secret_in(&mut settings)?;
            let (Some(secret), true) = (secret, settings.is_empty()) else {
                return Err(bad_request("expected api_key and nothing else", r#"send {"api_key": "…"}"#));
            };
            let change = Change::Rotate { kind: KIND, id, secret: Some(secret), overlap_s: 0, expected };
            let changed = admin.directory.change(actor, change).await?;
            in_force(&admin).await;
            Ok::<_, Failed>(answer(StatusCode::OK, &changed.document, Map::new()))
        },
    )
}

pub(super) fn remove() -> MethodRouter<Shared> {
    delete(
        |State(admin): State<Shared>, Extension(actor): Extension<Actor>, id: Name, uri: Uri, request: Request| async move {
            Query::of(&uri, &[])?;
            let (id, expected) = (name_of(id)?, expected(request.headers())?);
            let changed = admin.directory.change(actor, Change::Delete { kind: KIND, id, expected }).await?;
            in_force(&admin).await;
            Ok::<_, Failed>(axum::Json(json!({ "deleted": changed.document.id })))
        },
    )
}

/// Builds a generation with the keys as they are now. If that is refused, for whatever else is wrong in the policy files, the
/// key is kept and the log says why it is not used.
async fn in_force(admin: &Shared) {
    if let Err(refused) = admin.control.ask(Wanted::Keys).await {
        tracing::warn!("a change of vendor keys is kept, and not in force: {refused}");
    }
}
