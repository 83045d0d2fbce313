// SPDX-License-Identifier: Apache-2.0
//! Vectors: `embedContent` (one), `batchEmbedContents` (a list of such requests), and Vertex AI's `predict` (a list of
//! instances). Sources: <https://ai.google.dev/api/embeddings>,
//! <https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api>.

use serde_json::{Map, Value, json};

use super::read::{Taken, wrong};
use super::read_parts::Conversation;
use super::write_parts::Contents;
use super::{NAME, fault, naming, paths, usage};
use crate::codec::Envelope;
use crate::ir::{Block, Content, Event, Fault, FaultClass, Finish, Message, Request, Response, Usage};
use crate::task::{EMBEDDING, Embed, EmbedInput};

/// Purposes in canonical words and in this dialect's; others differ in nothing but case.
const PURPOSES: &[(&str, &str)] = &[
    ("search_document", "RETRIEVAL_DOCUMENT"),
    ("search_query", "RETRIEVAL_QUERY"),
    ("similarity", "SEMANTIC_SIMILARITY"),
];

/// Reads a request for one vector or for several.
pub(super) fn read(body: &[u8]) -> Result<Embed, Fault> {
    let mut body = Taken::of_body(body)?;
    let Some(requests) = body.list("requests")? else {
        let mut embed = Embed { single: true, ..Embed::default() };
        one(body, "", &mut embed, true)?;
        return Ok(embed);
    };
    let mut embed = Embed::default();
    for (index, request) in requests.into_iter().enumerate() {
        let path = format!("requests[{index}]");
        one(Taken::of_value(request, path.clone())?, &path, &mut embed, index == 0)?;
    }
    if embed.input.is_empty() {
        return Err(wrong("requests", "must not be empty"));
    }
    Ok(embed)
}

/// One request: its input, and what it asks for beside that, which must be the same in all.
fn one(mut request: Taken, path: &str, embed: &mut Embed, is_first: bool) -> Result<(), Fault> {
    let model = request.text("model")?.map(|model| paths::bare_model(&model)).unwrap_or_default();
    // Newer endpoints have these in an object of their own.
    let mut config = request.object("embedContentConfig")?;
    let mut wish = |name: &str| -> Result<Option<Value>, Fault> {
        let nested = config.as_mut().and_then(|config| config.taken(name));
        Ok(request.taken(name).or(nested))
    };
    let purpose = match wish("taskType")? {
        Some(Value::String(kind)) if kind == "TASK_TYPE_UNSPECIFIED" => None,
        Some(Value::String(kind)) => Some(purpose(&kind)),
        Some(_) => return Err(request.wrong("taskType", "must be a string")),
        None => None,
    };
    let dimensions = wish("outputDimensionality")?
        .map(|value| value.as_u64().ok_or_else(|| request.wrong("outputDimensionality", "must be a whole number")));
    let dimensions = dimensions.transpose()?;
    let mut content = request.content("content")?.ok_or_else(|| request.wrong("content", "is required"))?;
    let blocks = Conversation::default().system(&mut content)?;
    let mut rest = request.members;
    if let Some(config) = config {
        rest.extend(config.members);
    }
    let mine = Embed { model, purpose, dimensions, ..Embed::default() };
    if is_first {
        embed.model = mine.model;
        embed.purpose = mine.purpose;
        embed.dimensions = mine.dimensions;
        if !rest.is_empty() {
            embed.extensions.insert(NAME.to_owned(), rest.into_iter().collect());
        }
    } else if (&mine.model, &mine.purpose, mine.dimensions) != (&embed.model, &embed.purpose, embed.dimensions) {
        let what = "model, taskType and outputDimensionality must be those of the first request";
        return Err(Fault::new(FaultClass::Unsupported, format!("{path}: {what}")));
    }
    let texts = blocks.iter().map(|block| match &block.content {
        Content::Text { text, .. } => Some(text.as_str()),
        _ => None,
    });
    embed.input.push(match texts.collect::<Option<Vec<_>>>() {
        Some(texts) if texts.len() <= 1 => EmbedInput::Text(texts.concat()),
        _ => EmbedInput::Blocks(blocks),
    });
    Ok(())
}

/// Writes a request for several vectors, and the paths of what this dialect has no place for.
pub(super) fn write(embed: &Embed) -> Result<(Vec<u8>, Vec<String>), Fault> {
    let mut dropped = dropped(embed);
    let name = naming::full_name(&embed.model);
    let mut requests = Vec::with_capacity(embed.input.len());
    for (index, input) in embed.input.iter().enumerate() {
        let parts = parts(input, index, &mut dropped)?;
        let mut request = Map::new();
        request.insert("model".to_owned(), name.clone());
        request.insert("content".to_owned(), json!({"parts": parts}));
        request.extend(embed.purpose.as_deref().map(|purpose| ("taskType".to_owned(), json!(task_type(purpose)))));
        request.extend(embed.dimensions.map(|count| ("outputDimensionality".to_owned(), json!(count))));
        for (name, value) in embed.extensions.get(NAME).into_iter().flatten() {
            request.entry(name.clone()).or_insert_with(|| value.clone());
        }
        requests.push(Value::Object(request));
    }
    Ok((json!({"requests": requests}).to_string().into_bytes(), dropped))
}

/// Writes a request as Vertex AI takes it: its verb, its body, and the paths of what there is no place for. Models of texts
/// make several vectors (`predict`), those of everything one at a time (`embedContent`).
///
/// # Errors
/// `unsupported` for inputs that the model cannot take.
pub fn encode_vertex_request(embed: &Embed) -> Result<(&'static str, Vec<u8>, Vec<String>), Fault> {
    if !embed.model.contains("gemini") || embed.model.starts_with("gemini-embedding-001") {
        return predict(embed).map(|(body, dropped)| ("predict", body, dropped));
    }
    if embed.input.len() != 1 {
        let message = "this model makes one vector at a time: send one input";
        return Err(Fault::new(FaultClass::Unsupported, message));
    }
    let (body, dropped) = write(embed)?;
    let mut batch: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut config = batch["requests"][0].take();
    let mut request = json!({"content": config["content"].take()});
    if let Value::Object(config) = &mut config {
        config.retain(|name, value| name != "model" && !value.is_null());
        if !config.is_empty() {
            request["embedContentConfig"] = Value::Object(std::mem::take(config));
        }
    }
    Ok(("embedContent", request.to_string().into_bytes(), dropped))
}

fn predict(embed: &Embed) -> Result<(Vec<u8>, Vec<String>), Fault> {
    let mut dropped = dropped(embed);
    let own = |name: &str| embed.extensions.get(NAME).and_then(|own| own.get(name));
    let mut instances = Vec::with_capacity(embed.input.len());
    for (index, input) in embed.input.iter().enumerate() {
        let texts: Vec<&str> = match input {
            EmbedInput::Text(text) => vec![text],
            EmbedInput::Blocks(blocks) => blocks.iter().filter_map(text).collect(),
            EmbedInput::Tokens(_) => Vec::new(),
        };
        let whole = matches!(input, EmbedInput::Text(_))
            || matches!(input, EmbedInput::Blocks(all) if all.len() == texts.len());
        if !whole {
            let message = format!("input[{index}]: only text can be embedded by this vendor");
            return Err(Fault::new(FaultClass::Unsupported, message));
        }
        let mut instance = json!({"content": texts.join("\n")});
        if let Some(purpose) = &embed.purpose {
            instance["task_type"] = json!(task_type(purpose));
        }
        if let Some(title) = own("title") {
            instance["title"] = title.clone();
        }
        instances.push(instance);
    }
    let mut parameters = Map::new();
    parameters.extend(embed.dimensions.map(|count| ("outputDimensionality".to_owned(), json!(count))));
    // The API cuts what is too long unless it is told not to.
    match embed.truncate.as_deref() {
        Some("none") => {
            parameters.insert("autoTruncate".to_owned(), json!(false));
            dropped.retain(|path| path != "truncate");
        }
        Some("end") => dropped.retain(|path| path != "truncate"),
        _ => parameters.extend(own("autoTruncate").map(|cut| ("autoTruncate".to_owned(), cut.clone()))),
    }
    let mut body = json!({"instances": instances});
    if !parameters.is_empty() {
        body["parameters"] = Value::Object(parameters);
    }
    Ok((body.to_string().into_bytes(), dropped))
}

/// Reads the answer to any of these requests.
pub(super) fn read_result(body: &[u8]) -> Result<Vec<Event>, Fault> {
    let nonsense =
        |what: &str| Fault::new(FaultClass::VendorBug, format!("the vendor's answer cannot be read: {what}"));
    let answer: Value = serde_json::from_slice(body).map_err(|error| nonsense(&error.to_string()))?;
    if !answer["error"].is_null() {
        return Err(fault::stated(&answer, None));
    }
    let list = |name: &str| answer[name].as_array().map(Vec::as_slice);
    let (vectors, counted): (Vec<&Value>, u64) = match (list("embeddings"), list("predictions")) {
        (Some(embeddings), _) => (embeddings.iter().collect(), 0),
        (None, Some(predictions)) => {
            let count = |prediction: &Value| prediction["embeddings"]["statistics"]["token_count"].as_f64();
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count that the vendor writes as 5.0; the cast saturates"
            )]
            let counted = predictions.iter().filter_map(count).sum::<f64>() as u64;
            (predictions.iter().map(|prediction| &prediction["embeddings"]).collect(), counted)
        }
        (None, None) if answer["embedding"].is_object() => (vec![&answer["embedding"]], 0),
        (None, None) => return Err(nonsense("it has no `embeddings`")),
    };
    let mut events = vec![Event::Start { id: String::new(), model: String::new() }];
    for (index, vector) in vectors.iter().enumerate() {
        let values = vector.get("values").filter(|values| values.is_array());
        let values = values.ok_or_else(|| nonsense(&format!("vector {index} has no `values`")))?;
        events.push(Event::Other {
            name: EMBEDDING.to_owned(),
            json: json!({"index": index, "values": values}).to_string(),
        });
    }
    let stated = usage::read(&answer["usageMetadata"]);
    let counted = Usage { input: counted, ..Usage::default() };
    events.extend(stated.or(Some(counted).filter(|usage| usage.input > 0)).map(Event::Usage));
    events.push(Event::Finish(Finish { reason: "stop".to_owned(), sequence: None }));
    Ok(events)
}

/// Writes the answer. A caller that has asked for a list gets one (`envelope.array`, from the verb of the path).
pub(super) fn write_result(response: &Response, envelope: &Envelope) -> Vec<u8> {
    let vectors = response.other.iter().filter(|(name, _)| name == EMBEDDING);
    let vectors = vectors.filter_map(|(_, json)| serde_json::from_str::<Value>(json).ok());
    // Other encodings than numbers have no place here.
    let mut vectors: Vec<Value> = vectors.filter(|vector| vector["values"].is_array()).collect();
    vectors.sort_by_key(|vector| vector["index"].as_u64());
    let mut vectors = vectors.iter_mut().map(|vector| json!({"values": vector["values"].take()}));
    let mut answer = if envelope.array {
        json!({"embeddings": vectors.collect::<Vec<_>>()})
    } else {
        json!({"embedding": vectors.next().unwrap_or_else(|| json!({"values": []}))})
    };
    if let Some(stated) = response.usage.as_ref() {
        answer["usageMetadata"] = json!({
            "promptTokenCount": stated.input_total(),
            "totalTokenCount": stated.total(),
        });
    }
    answer.to_string().into_bytes()
}

fn dropped(embed: &Embed) -> Vec<String> {
    let mut dropped = Vec::new();
    if embed.encodings.iter().any(|encoding| encoding != "float" && encoding != "base64") {
        dropped.push("encodings".to_owned());
    }
    if embed.truncate.is_some() {
        dropped.push("truncate".to_owned());
    }
    if embed.user.is_some() {
        dropped.push("user".to_owned());
    }
    let foreign = embed.extensions.iter().filter(|(dialect, _)| *dialect != NAME);
    dropped.extend(foreign.flat_map(|(_, members)| members.keys().cloned()));
    dropped
}

/// The parts of one input, as those of a user's turn.
fn parts(input: &EmbedInput, index: usize, dropped: &mut Vec<String>) -> Result<Value, Fault> {
    let blocks = match input {
        EmbedInput::Text(text) => return Ok(json!([{"text": text}])),
        EmbedInput::Blocks(blocks) => blocks.clone(),
        EmbedInput::Tokens(_) => {
            let message = format!("input[{index}]: tokens of another vendor's model cannot be embedded; send the text");
            return Err(Fault::new(FaultClass::Unsupported, message));
        }
    };
    let request = Request { messages: vec![Message { blocks, ..Message::default() }], ..Request::default() };
    let mut contents = Contents::new(&request);
    let (_, mut turns) = contents.written();
    dropped
        .extend(contents.dropped.iter().map(|path| path.replacen("messages[0].blocks", &format!("input[{index}]"), 1)));
    Ok(turns.first_mut().map(|turn| turn["parts"].take()).unwrap_or_else(|| json!([])))
}

fn text(block: &Block) -> Option<&str> {
    match &block.content {
        Content::Text { text, .. } => Some(text),
        _ => None,
    }
}

fn purpose(task_type: &str) -> String {
    let known = PURPOSES.iter().find(|(_, wire)| *wire == task_type).map(|(purpose, _)| (*purpose).to_owned());
    known.unwrap_or_else(|| task_type.to_ascii_lowercase())
}

fn task_type(purpose: &str) -> String {
    let known = PURPOSES.iter().find(|(canonical, _)| *canonical == purpose).map(|(_, wire)| (*wire).to_owned());
    known.unwrap_or_else(|| purpose.to_ascii_uppercase())
}
