// SPDX-License-Identifier: Apache-2.0
//! Names and paths for adapters: where a vendor has a model or a resource, and where a request names its model once more.

use serde_json::Value;

use super::paths;
use crate::ir::{Fault, FaultClass};

/// Members of a request's body in which [`rename`] looks.
pub const NAMING_MEMBERS: [&str; 3] = ["model", "requests", "generateContentRequest"];

/// The path of a model and what is asked of it, below `parent`: "" on AI Studio, `/projects/{project}/locations/{location}`
/// and `/publishers/{publisher}` on Vertex AI. A model of another collection says so (`tunedModels/mine`, `endpoints/42`)
/// and belongs to no publisher.
#[must_use]
pub fn model_path(parent: &str, model: &str, verb: &str) -> String {
    let (collection, id) = match model.split_once('/') {
        Some((collection @ ("models" | "tunedModels" | "endpoints"), id)) => (collection, id),
        _ => ("models", model),
    };
    let of_project = || parent.split_once("/publishers/").map_or(parent, |(project, _)| project);
    let parent = if collection == "models" { parent } else { of_project() };
    let mut path = format!("{parent}/{collection}/");
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'@') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("{path}:{verb}")
}

/// The verb of a caller's path.
#[must_use]
pub fn verb(path: &str) -> Option<&str> {
    paths::model_and_verb(path).map(|(_, verb)| verb)
}

/// The path of a resource below the version, the project and the location that the caller may have named.
#[must_use]
pub fn resource_path(path: &str) -> &str {
    let path = paths::without_version(path);
    paths::below_project(path).unwrap_or(path)
}

/// Whether a query asks for a stream of server-sent events; without that it is a JSON array.
#[must_use]
pub fn wants_events(query: &str) -> bool {
    paths::wants_events(query)
}

/// Whether a text may be the id of a project or a location in a path as it is.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let admitted = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(admitted)
}

/// Edits of a request's members, as raw JSON, that name this model wherever the request names one beside the path.
///
/// # Errors
/// A fault of class invalid-request for a member that is no JSON.
pub fn rename<'m>(model: &str, member: &dyn Fn(&str) -> Option<&'m str>) -> Result<Vec<(String, String)>, Fault> {
    let name = full_name(model);
    let mut edits = Vec::new();
    for place in NAMING_MEMBERS {
        let Some(stated) = member(place) else { continue };
        if place == "model" {
            edits.push((place.to_owned(), name.to_string()));
            continue;
        }
        let mut stated: Value = serde_json::from_str(stated)
            .map_err(|error| Fault::new(FaultClass::InvalidRequest, format!("{place}: {error}")))?;
        let requests = match &mut stated {
            Value::Array(requests) => requests.iter_mut().collect(),
            request => vec![request],
        };
        for named in requests.into_iter().filter_map(|request| request.get_mut("model")) {
            named.clone_from(&name);
        }
        edits.push((place.to_owned(), stated.to_string()));
    }
    Ok(edits)
}

/// A model's name as bodies have it.
pub(super) fn full_name(model: &str) -> Value {
    Value::from(if model.contains('/') { model.to_owned() } else { format!("models/{model}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_its_path_wherever_it_is() {
        let google = "/projects/p/locations/l/publishers/google";
        let cases = [
            ("", "gemini-2.5-pro", "/models/gemini-2.5-pro:v"),
            ("", "tunedModels/mine", "/tunedModels/mine:v"),
            ("", "a/../b c", "/models/a%2F..%2Fb%20c:v"),
            (google, "gemini-2.5-pro", "/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:v"),
            (google, "claude-4@2025", "/projects/p/locations/l/publishers/google/models/claude-4@2025:v"),
            (google, "endpoints/42", "/projects/p/locations/l/endpoints/42:v"),
        ];
        for (parent, model, path) in cases {
            assert_eq!(model_path(parent, model, "v"), path);
            assert_eq!(verb(path), Some("v"), "{path}");
        }
    }

    #[test]
    fn a_resource_is_found_below_what_the_caller_has_named() {
        let cases = [
            ("/files/a", "/files/a"),
            ("/v1beta/files", "/files"),
            ("/v1/projects/p/locations/l/cachedContents/c", "/cachedContents/c"),
            ("/videos/x", "/videos/x"),
        ];
        for (path, rest) in cases {
            assert_eq!(resource_path(path), rest, "{path}");
        }
    }

    #[test]
    fn every_place_that_names_the_model_names_the_new_one() {
        let members = [
            ("model", "\"models/old\""),
            ("requests", "[{\"model\":\"models/old\",\"n\":1},{\"n\":2}]"),
            ("generateContentRequest", "{\"model\":\"models/old\"}"),
        ];
        let member = |name: &str| members.iter().find(|(known, _)| *known == name).map(|(_, json)| *json);
        let edits = rename("new", &member).expect("edits");
        let expected = [
            ("model", "\"models/new\""),
            ("requests", "[{\"model\":\"models/new\",\"n\":1},{\"n\":2}]"),
            ("generateContentRequest", "{\"model\":\"models/new\"}"),
        ];
        assert_eq!(edits, expected.map(|(name, json)| (name.to_owned(), json.to_owned())));
        assert_eq!(rename("new", &|_| None), Ok(Vec::new()));
    }
}
