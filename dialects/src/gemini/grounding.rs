// SPDX-License-Identifier: Apache-2.0
//! What an answer rests on, between `groundingMetadata` and the forms of other dialects: the `annotations` of openai-chat,
//! and citations that name a URL. Offsets are bytes here and characters there.

use serde_json::{Value, json};

/// The `annotations` of openai-chat that say the same; `text` is the answer.
pub(super) fn annotations(metadata: &Value, text: &str) -> Vec<Value> {
    let list = |name: &str| metadata[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let chunks = list("groundingChunks");
    let mut found = Vec::new();
    for support in list("groundingSupports") {
        let offset = |name: &str| {
            let bytes = support["segment"][name].as_u64().and_then(|at| usize::try_from(at).ok()).unwrap_or_default();
            text.get(..bytes).map_or(bytes, |before| before.chars().count())
        };
        let indices = support["groundingChunkIndices"].as_array().map(Vec::as_slice).unwrap_or_default();
        let cited = indices.iter().filter_map(|index| chunks.get(usize::try_from(index.as_u64()?).ok()?));
        for web in cited.map(|chunk| &chunk["web"]).filter(|web| web["uri"].is_string()) {
            let citation = json!({
                "start_index": offset("startIndex"),
                "end_index": offset("endIndex"),
                "url": web["uri"],
                "title": web["title"].as_str().unwrap_or_default(),
            });
            found.push(json!({"type": "url_citation", "url_citation": citation}));
        }
    }
    found
}

/// How many searches the vendor has made.
pub(super) fn search_count(metadata: &Value) -> u64 {
    metadata["webSearchQueries"].as_array().map_or(0, |queries| queries.len() as u64)
}

/// Sources that another vendor names, to be written as `groundingMetadata`.
#[derive(Debug, Default)]
pub(super) struct Sources {
    chunks: Vec<Value>,
    /// Chunk, first and last character, for sources that say where they are cited.
    supports: Vec<(usize, usize, usize)>,
}

impl Sources {
    /// Takes the `annotations` of openai-chat.
    pub(super) fn annotations(&mut self, annotations: &Value) {
        for annotation in annotations.as_array().into_iter().flatten() {
            let citation = &annotation["url_citation"];
            let index = |name: &str| citation[name].as_u64().and_then(|at| usize::try_from(at).ok());
            if let Some(chunk) = self.chunk(citation)
                && let (Some(start), Some(end)) = (index("start_index"), index("end_index"))
            {
                self.supports.push((chunk, start, end));
            }
        }
    }

    /// Takes a citation, if it names a URL.
    pub(super) fn citation(&mut self, citation: &Value) {
        self.chunk(citation);
    }

    /// The metadata; none if no source was named. `text` is the answer.
    pub(super) fn metadata(&self, text: &str) -> Option<Value> {
        if self.chunks.is_empty() {
            return None;
        }
        let bytes = |characters: usize| text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at);
        let supports: Vec<Value> = self
            .supports
            .iter()
            .map(|(chunk, start, end)| {
                let (start, end) = (bytes(*start), bytes(*end));
                let segment = json!({
                    "startIndex": start,
                    "endIndex": end,
                    "text": text.get(start..end).unwrap_or_default(),
                });
                json!({"segment": segment, "groundingChunkIndices": [chunk]})
            })
            .collect();
        let mut metadata = json!({"groundingChunks": self.chunks});
        if !supports.is_empty() {
            metadata["groundingSupports"] = Value::Array(supports);
        }
        Some(metadata)
    }

    fn chunk(&mut self, source: &Value) -> Option<usize> {
        let web =
            json!({"web": {"uri": source["url"].as_str()?, "title": source["title"].as_str().unwrap_or_default()}});
        if let Some(known) = self.chunks.iter().position(|chunk| *chunk == web) {
            return Some(known);
        }
        self.chunks.push(web);
        Some(self.chunks.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_keep_their_places_both_ways() {
        let text = "é is a letter. A second sentence.";
        let metadata = json!({
            "groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}, {"retrievedContext": {"text": "x"}}],
            "groundingSupports": [
                {"segment": {"startIndex": 3, "endIndex": 15, "text": "is a letter."}, "groundingChunkIndices": [0, 1, 9]},
            ],
        });
        let told = annotations(&metadata, text);
        let citation = json!({"start_index": 2, "end_index": 14, "url": "https://a.example", "title": "A"});
        assert_eq!(told, [json!({"type": "url_citation", "url_citation": citation})]);
        let mut sources = Sources::default();
        sources.annotations(&Value::from(told));
        sources.citation(&json!({"type": "web_search_result_location", "url": "https://a.example", "title": "A"}));
        sources.citation(&json!({"type": "char_location"}));
        let again = sources.metadata(text).expect("sources");
        assert_eq!(again["groundingChunks"], json!([metadata["groundingChunks"][0]]));
        assert_eq!(again["groundingSupports"][0]["segment"], metadata["groundingSupports"][0]["segment"]);
        assert_eq!(Sources::default().metadata(text), None);
    }
}
