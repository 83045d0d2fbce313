// SPDX-License-Identifier: Apache-2.0
//! What a head asks for. This API names the model and the operation in the path: `/models/{model}:{verb}`, with a version
//! before it or without, and on Vertex AI below `/projects/{project}/locations/{location}/publishers/{publisher}`.
//! Sources: <https://ai.google.dev/api>, <https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest>.

use crate::codec::{Ask, Head, Operation};

/// What a head asks for; none if it is not of this dialect.
pub(super) fn recognise(head: &Head<'_>) -> Option<Ask> {
    let path = without_version(head.path);
    if head.method == "GET" && path.contains("BidiGenerateContent") {
        let model = parameter(head.query, "model").map(|model| bare_model(&model));
        return Some(Ask { model, ..Operation::Realtime.into() });
    }
    if head.method == "POST"
        && let Some((model, verb)) = model_and_verb(path)
    {
        return of_verb(verb, model, head.query);
    }
    let operation = resource(head, path)?;
    let model = path.strip_prefix("/models/").filter(|_| operation == Operation::Models).map(decoded);
    Some(Ask { model, ..operation.into() })
}

/// `models/gemini-2.5-flash` without the collection that is the usual one.
pub(super) fn bare_model(name: &str) -> String {
    name.strip_prefix("models/").unwrap_or(name).to_owned()
}

fn of_verb(verb: &str, model: String, query: &str) -> Option<Ask> {
    let (operation, streaming, array) = match verb {
        "generateContent" => (Operation::Chat, false, false),
        "streamGenerateContent" => (Operation::Chat, true, !wants_events(query)),
        "countTokens" => (Operation::CountTokens, false, false),
        "embedContent" => (Operation::Embeddings, false, false),
        "batchEmbedContents" => (Operation::Embeddings, false, true),
        "batchGenerateContent" | "asyncBatchEmbedContent" => return Some(Operation::Batches.into()),
        _ => return None,
    };
    Some(Ask { operation, model: Some(model), streaming: Some(streaming), array })
}

/// Resources of the API. Those whose paths are also in other dialects are of this one only if the caller shows it.
fn resource(head: &Head<'_>, path: &str) -> Option<Operation> {
    let path = without_version(path.strip_prefix("/upload").unwrap_or(path));
    let path = below_project(path).unwrap_or(path);
    let first = path.strip_prefix('/')?.split(['/', ':']).next()?;
    match (head.method, first) {
        ("GET", "models") if is_models(path) && shows_itself(head) => Some(Operation::Models),
        (_, "files") if shows_itself(head) => Some(Operation::Files),
        (_, "batches") if shows_itself(head) => Some(Operation::Batches),
        (_, "fileSearchStores") => Some(Operation::Files),
        (_, "batchPredictionJobs") => Some(Operation::Batches),
        (_, "cachedContents" | "tunedModels" | "corpora" | "interactions" | "operations" | "generatedFiles") => {
            Some(Operation::Stored)
        }
        _ => None,
    }
}

/// `/models` or `/models/{id}`.
fn is_models(path: &str) -> bool {
    path.strip_prefix("/models").is_some_and(|rest| rest.is_empty() || (rest.starts_with('/') && rest.len() > 1))
}

/// Whether the caller carries something that only callers of this API carry.
fn shows_itself(head: &Head<'_>) -> bool {
    ["x-goog-api-key", "x-goog-api-client"].iter().any(|name| (head.header)(name).is_some())
        || parameter(head.query, "key").is_some()
}

/// Model and verb of `…/models/{model}:{verb}`. Models of other collections keep its name: `tunedModels/mine`.
pub(super) fn model_and_verb(path: &str) -> Option<(String, &str)> {
    let (resource, verb) = match path.rsplit_once(':') {
        Some(parts) => parts,
        None => path.rsplit_once("%3A").or_else(|| path.rsplit_once("%3a"))?,
    };
    let resource = below_project(resource).unwrap_or(resource);
    let name = match resource.strip_prefix("/models/") {
        Some(name) => name,
        None => ["/tunedModels/", "/endpoints/"]
            .iter()
            .any(|collection| resource.starts_with(collection))
            .then(|| &resource[1..])?,
    };
    (!name.is_empty() && !name.ends_with('/')).then(|| (decoded(name), verb))
}

/// The path below `/projects/{project}/locations/{location}` and `/publishers/{publisher}`, if it is below any of them.
pub(super) fn below_project(path: &str) -> Option<&str> {
    let location = path.strip_prefix("/projects/").map(|rest| after_segments(rest, 3));
    let rest = match location {
        Some(rest) => rest?,
        None => path,
    };
    match rest.strip_prefix("/publishers/") {
        Some(publisher) => after_segments(publisher, 1),
        None => location.map(|_| rest),
    }
}

/// What follows so many segments, with its slash.
fn after_segments(path: &str, count: usize) -> Option<&str> {
    let (at, _) = path.match_indices('/').nth(count - 1)?;
    Some(&path[at..])
}

/// The path without `/v1beta` and the like.
pub(super) fn without_version(path: &str) -> &str {
    let rest = path.strip_prefix("/v").filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    rest.and_then(|rest| after_segments(rest, 1)).unwrap_or(path)
}

/// Whether `alt=sse` is asked for, also as `$alt=sse;enum-encoding=int`.
pub(super) fn wants_events(query: &str) -> bool {
    let alt = parameter(query, "alt").or_else(|| parameter(query, "$alt"));
    alt.is_some_and(|alt| alt.split(';').next() == Some("sse"))
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key) == name).then(|| decoded(value))
    };
    query.split('&').find_map(pair)
}

/// Percent-decoded; what is no UTF-8 then is replaced.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| first == b'%');
        let hex = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, target: &str, headers: &[(&str, &'static str)]) -> Option<Ask> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        recognise(&Head { method, path, query, header: &header })
    }

    #[test]
    fn the_path_tells_model_operation_and_kind_of_stream() {
        let cases = [
            ("/models/gemini-2.5-flash:generateContent", Operation::Chat, "gemini-2.5-flash", false, false),
            (
                "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
                Operation::Chat,
                "gemini-2.5-flash",
                true,
                false,
            ),
            ("/models/m:streamGenerateContent", Operation::Chat, "m", true, true),
            (
                "/models/m:streamGenerateContent?key=a&%24alt=sse%3Benum-encoding%3Dint",
                Operation::Chat,
                "m",
                true,
                false,
            ),
            ("/models/m:streamGenerateContent?alt=json", Operation::Chat, "m", true, true),
            ("/tunedModels/mine:generateContent", Operation::Chat, "tunedModels/mine", false, false),
            (
                "/v1/projects/p/locations/us-central1/publishers/google/models/gemini-2.5-pro:countTokens",
                Operation::CountTokens,
                "gemini-2.5-pro",
                false,
                false,
            ),
            ("/projects/p/locations/l/endpoints/42:generateContent", Operation::Chat, "endpoints/42", false, false),
            ("/publishers/google/models/m:generateContent", Operation::Chat, "m", false, false),
            ("/models/openai%2Fgpt-4o:generateContent", Operation::Chat, "openai/gpt-4o", false, false),
            ("/models/openai/gpt-4o:generateContent", Operation::Chat, "openai/gpt-4o", false, false),
            ("/models/llama3:8b:generateContent", Operation::Chat, "llama3:8b", false, false),
            ("/models/m%3AgenerateContent", Operation::Chat, "m", false, false),
            ("/models/e:embedContent", Operation::Embeddings, "e", false, false),
            ("/models/e:batchEmbedContents", Operation::Embeddings, "e", false, true),
        ];
        for (target, operation, model, streaming, array) in cases {
            let expected = Ask { operation, model: Some(model.to_owned()), streaming: Some(streaming), array };
            assert_eq!(asked("POST", target, &[]), Some(expected), "{target}");
        }
    }

    #[test]
    fn shared_paths_are_ours_only_where_the_caller_shows_it() {
        let goog: &[(&str, &str)] = &[("x-goog-api-key", "k")];
        let bearer: &[(&str, &str)] = &[("authorization", "Bearer k")];
        let cases = [
            ("GET", "/models", goog, Some(Operation::Models)),
            ("GET", "/v1beta/models/gemini-2.5-pro", goog, Some(Operation::Models)),
            ("GET", "/models?key=k", bearer, Some(Operation::Models)),
            ("GET", "/models", &[], None),
            ("GET", "/models", bearer, None),
            ("GET", "/models", &[("anthropic-version", "2023-06-01")], None),
            ("GET", "/files", bearer, None),
            ("GET", "/files/abc?key=k", &[], Some(Operation::Files)),
            ("POST", "/upload/v1beta/files", goog, Some(Operation::Files)),
            ("POST", "/models/m:batchGenerateContent", goog, Some(Operation::Batches)),
            ("POST", "/batches/b:cancel", goog, Some(Operation::Batches)),
            ("POST", "/cachedContents", bearer, Some(Operation::Stored)),
            ("GET", "/projects/p/locations/l/cachedContents/c", bearer, Some(Operation::Stored)),
            ("POST", "/interactions", bearer, Some(Operation::Stored)),
            ("POST", "/models/m:predict", goog, None),
            ("POST", "/models/:generateContent", goog, None),
            ("POST", "/chat/completions", goog, None),
            ("GET", "/models/m:generateContent", bearer, None),
        ];
        for (method, target, headers, operation) in cases {
            let found = asked(method, target, headers).map(|ask| ask.operation);
            assert_eq!(found, operation, "{method} {target}");
        }
        let one = asked("GET", "/v1/models/a%2Fb", goog).expect("one model");
        assert_eq!(one.model.as_deref(), Some("a/b"));
        let live = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent?model=models/live";
        let found = asked("GET", live, &[]).expect("a conversation");
        assert_eq!((found.operation, found.model.as_deref()), (Operation::Realtime, Some("live")));
    }
}
