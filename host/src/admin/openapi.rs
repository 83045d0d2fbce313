// SPDX-License-Identifier: Apache-2.0
//! The OpenAPI document, made of the table of calls and of `schemas.json`: a call that is not in it is not served.

use serde_json::{Map, Value, json};

use super::rows::{Access, Answered, Doc, Of, Parameter, Row, Sent, rows};

/// What the API is, for people.
const ABOUT: &str = "What operators see and change while the gateway runs. Every call needs an admin token as a bearer, except \
    health checks. Roles: a viewer reads; an operator also changes keys of callers, teams, budgets, limits, features and \
    services; an admin changes everything. Every change is in the audit log. A change may carry the version that it is made \
    upon, the ETag of an answer, in If-Match. Secrets are shown once, when they are made.";

/// The document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for row in rows() {
        let calls = paths.entry(row.path).or_insert_with(|| json!({}));
        calls[row.doc.method] = operation(&row);
    }
    // Both are part of the program; a test reads them.
    let schemas: Value = serde_json::from_str(include_str!("schemas.json")).unwrap_or_default();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Penstock admin API",
            "version": "1",
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas,
        },
    })
}

fn operation(row: &Row) -> Value {
    let Doc { id, summary, query, sent, .. } = row.doc;
    let is_open = row.access == Access::Open && !row.doc.looks;
    let mut parameters: Vec<Value> = in_path(row.path).map(path_parameter).collect();
    parameters.extend(query.iter().map(query_parameter));
    let mut operation = json!({ "operationId": id, "summary": summary, "responses": responses(row, is_open) });
    if let Access::Role(role) = row.access {
        operation["description"] = json!(format!("Needs the role {}.", role.name()));
    }
    if row.doc.versioned {
        let versioned = "The ETag of an answer in If-Match makes the change upon that version, or not at all (412).";
        operation["description"] =
            json!(format!("{} {versioned}", operation["description"].as_str().unwrap_or_default()));
    }
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if let Some(body) = request_body(sent) {
        operation["requestBody"] = body;
    }
    if is_open {
        operation["security"] = json!([]);
    }
    operation
}

fn in_path(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn path_parameter(name: &str) -> Value {
    let schema = if name == "number" {
        json!({ "type": "integer", "minimum": 0, "maximum": (1_u64 << 53) - 1 })
    } else {
        reference("Id")
    };
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

fn query_parameter(parameter: &Parameter) -> Value {
    let schema = match parameter.kind {
        Of::Text => json!({ "type": "string", "maxLength": 256 }),
        Of::Flag => json!({ "type": "boolean" }),
        Of::Number(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Of::Words(words) => json!({ "type": "string", "enum": words }),
    };
    json!({ "name": parameter.name, "in": "query", "required": false, "description": parameter.about, "schema": schema })
}

fn request_body(sent: Sent) -> Option<Value> {
    let json_of = |schema: &str| json!({ "application/json": { "schema": reference(schema) } });
    let (required, content) = match sent {
        Sent::Nothing => return None,
        Sent::Json(schema) => (true, json_of(schema)),
        Sent::Perhaps(schema) => (false, json_of(schema)),
        Sent::Component => {
            let schema = json!({ "type": "string", "format": "binary" });
            (true, json!({ "application/octet-stream": { "schema": schema } }))
        }
        Sent::Policy => {
            let mut content = json_of("PolicyFiles");
            content["text/plain"] = json!({ "schema": { "type": "string", "minLength": 1 } });
            (true, content)
        }
    };
    Some(json!({ "required": required, "content": content }))
}

fn responses(row: &Row, is_open: bool) -> Value {
    let mut responses = Map::new();
    let (status, answered) = row.doc.answered;
    responses.insert(status.to_string(), answer(answered));
    if matches!(answered, Answered::Document(_)) && matches!(row.doc.id, "putFeature" | "registerService") {
        let other = if status == 200 { 201 } else { 200 };
        responses.insert(other.to_string(), answer(answered));
    }
    let always: &[u16] = if is_open { &[400] } else { &[400, 401, 403] };
    for status in always.iter().chain(row.doc.refused) {
        responses.entry(status.to_string()).or_insert_with(|| refusal(*status, row.path));
    }
    Value::Object(responses)
}

fn answer(answered: Answered) -> Value {
    let json_of = |schema: &str| json!({ "application/json": { "schema": reference(schema) } });
    match answered {
        Answered::Json(schema) => json!({ "description": "It is so.", "content": json_of(schema) }),
        Answered::Document(schema) => {
            let tag = json!({ "description": "Its version, for If-Match.", "schema": { "type": "string" } });
            json!({ "description": "The document.", "headers": { "ETag": tag }, "content": json_of(schema) })
        }
        Answered::Events => {
            json!({ "description": "The feed.", "content": { "text/event-stream": {} } })
        }
        Answered::Metrics => {
            json!({ "description": "Text exposition format 0.0.4.", "content": { "text/plain": { "schema": { "type": "string" } } } })
        }
    }
}

fn refusal(status: u16, path: &str) -> Value {
    let description = match status {
        400 => "What was sent is not what is expected.",
        401 => "The token is missing or wrong.",
        403 => "The role of the token is too low.",
        404 => "There is no such thing.",
        408 => "The body took too long.",
        409 => "It does not go together with what is there.",
        412 => "The version is another one.",
        413 => "The body is too large.",
        429 => "There are too many readers.",
        503 => "Not now; try again.",
        _ => "It was checked and refused; what was in force still is.",
    };
    let schema = if path == "/readyz" { "Readiness" } else { "Failure" };
    json!({ "description": description, "content": { "application/json": { "schema": reference(schema) } } })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}
