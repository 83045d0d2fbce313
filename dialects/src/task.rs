// SPDX-License-Identifier: Apache-2.0
//! The canonical form of requests that are no conversation: vectors, rankings, pictures, films. Their answers are
//! [`Event::Other`](crate::ir::Event::Other)s, named by the constants here, around the usual `Start`, `Usage` and `Finish`.
//!
//! The rules of [`crate::ir`] hold: a field may be added, never renamed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codec::Operation;
use crate::ir::{Block, Members, Source};

/// Event of one vector: `{"index": 0, "values": [0.1, …]}` or, as the vendor encoded it, `{"index": 0, "encoding":
/// "base64", "data": "…"}`; further encodings of the same vector have the same index. Lists in another
/// encoding than floats say so: `{"index": 0, "encoding": "int8", "values": [1, …]}`. See [`crate::vectors`].
pub const EMBEDDING: &str = "embedding";
/// Event of one ranked document, the best first: `{"index": 2, "score": 0.98}`, with `"document"` if it was asked for.
pub const RANKING: &str = "ranking";
/// Event of one picture: `{"url": …}` or `{"base64": …}`, with `"media_type"` and `"revised_prompt"` where known.
pub const IMAGE: &str = "image";
/// Event of a picture that could not be made, beside others that could: `{"code": …, "message": …}`.
pub const IMAGE_FAULT: &str = "image-fault";
/// Event of one film: `{"url": …}`, with `"media_type"`, `"seconds"`, `"size"` where known.
pub const VIDEO: &str = "video";

/// A request that is no conversation.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Vectors of texts.
    Embed(Embed),
    /// Documents in order.
    Rerank(Rerank),
    /// Pictures, from words or from pictures.
    Image(Image),
    /// Films.
    Video(Video),
}

impl Task {
    /// Reads the JSON that crosses the contract for an operation.
    ///
    /// # Errors
    /// What is wrong with it; an operation that has no task form.
    pub fn from_json(operation: Operation, json: &[u8]) -> Result<Self, String> {
        let wrong = |error: serde_json::Error| error.to_string();
        match operation {
            Operation::Embeddings => serde_json::from_slice(json).map(Self::Embed).map_err(wrong),
            Operation::Rerank => serde_json::from_slice(json).map(Self::Rerank).map_err(wrong),
            Operation::Images | Operation::ImageEdits => serde_json::from_slice(json).map(Self::Image).map_err(wrong),
            Operation::Videos => serde_json::from_slice(json).map(Self::Video).map_err(wrong),
            other => Err(format!("{} has no canonical form of its own", other.name())),
        }
    }

    /// The JSON that crosses the contract.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let json = match self {
            Self::Embed(task) => serde_json::to_vec(task),
            Self::Rerank(task) => serde_json::to_vec(task),
            Self::Image(task) => serde_json::to_vec(task),
            Self::Video(task) => serde_json::to_vec(task),
        };
        json.unwrap_or_default()
    }

    /// The model's name, to be replaced by the target's.
    pub fn model_mut(&mut self) -> &mut String {
        match self {
            Self::Embed(task) => &mut task.model,
            Self::Rerank(task) => &mut task.model,
            Self::Image(task) => &mut task.model,
            Self::Video(task) => &mut task.model,
        }
    }
}

/// Members that only the dialect named by the key knows.
pub type Extensions = BTreeMap<String, Members>;

/// Vectors of inputs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Embed {
    /// Model.
    pub model: String,
    /// What to embed, in order.
    pub input: Vec<EmbedInput>,
    /// The caller gave one input, not a list of one.
    pub single: bool,
    /// Length of the vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u64>,
    /// Encodings of the numbers: "float", "base64" (of little-endian f32), "int8", "uint8", "binary", "ubinary". Empty for
    /// the vendor's default, which is "float" everywhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub encodings: Vec<String>,
    /// What the vectors are for: `search_document`, `search_query`, `classification`, `clustering`, `similarity` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// What to do with an input that is too long: "none" (refuse), "start", "end".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<String>,
    /// The end user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Members of one dialect.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: Extensions,
}

/// One thing to embed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmbedInput {
    /// A text.
    Text(String),
    /// A text as tokens of the model.
    Tokens(Vec<u64>),
    /// Text and media that make one vector.
    Blocks(Vec<Block>),
}

/// Documents in the order in which they answer a query.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rerank {
    /// Model.
    pub model: String,
    /// The query.
    pub query: String,
    /// The documents: texts, or objects as they came.
    pub documents: Vec<Value>,
    /// How many to return.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_n: Option<u64>,
    /// Whether the answer repeats the documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_documents: Option<bool>,
    /// Members of one dialect.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: Extensions,
}

/// Pictures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    /// Model.
    pub model: String,
    /// What to show.
    pub prompt: String,
    /// What not to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// "1024x1024", "auto".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// "standard", "hd", "low", "medium", "high", "auto".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<String>,
    /// "vivid", "natural", or the vendor's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub style: Option<String>,
    /// "url" or "base64": how the answer holds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// "png", "jpeg", "webp".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_format: Option<String>,
    /// Seed for repeatable sampling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Pictures to start from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Source>,
    /// Where the first picture may change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<Source>,
    /// The end user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Members of one dialect.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: Extensions,
}

/// Films.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Video {
    /// Model.
    pub model: String,
    /// What to show.
    pub prompt: String,
    /// What not to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// Length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// "1280x720".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// The first picture of the film.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Source>,
    /// Seed for repeatable sampling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Members of one dialect.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: Extensions,
}
