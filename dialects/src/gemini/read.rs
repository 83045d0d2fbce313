// SPDX-License-Identifier: Apache-2.0
//! A caller's request into the canonical form. Like the API it takes names in camel case and in snake case, and objects
//! where a list has one element. What has no canonical place becomes an extension, and so does the caller's own wording
//! where the canonical form would be written in other words: a vendor of the same dialect reads what the caller wrote.
//! Source: <https://ai.google.dev/api/generate-content>.

use serde_json::{Map, Value, json};

use super::read_parts::Conversation;
use super::{NAME, paths, schema, thinking, write};
use crate::ir::{Fault, FaultClass, Format, Members, Request, Tool, ToolChoice};

/// Reads a request for an answer or for a count. Model and streaming stand in the path.
pub(super) fn request(body: &[u8]) -> Result<Request, Fault> {
    let mut body = Taken::of_body(body)?;
    // A count is asked for contents alone, or for a whole request.
    if let Some(whole) = body.object("generateContentRequest")? {
        body = whole;
    }
    let model = body.text("model")?.map(|model| paths::bare_model(&model)).unwrap_or_default();
    // Streams of this dialect always tell their usage.
    let mut request = Request { model, stream_usage: true, ..Request::default() };
    let mut conversation = Conversation::default();
    if let Some(mut system) = body.content("systemInstruction")? {
        request.system = conversation.system(&mut system)?;
        body.give_back("systemInstruction", system);
    }
    let contents = body.list("contents")?.ok_or_else(|| wrong("contents", "is required"))?;
    for (index, content) in contents.into_iter().enumerate() {
        let content = Taken::of_value(content, format!("contents[{index}]"))?;
        request.messages.push(conversation.content(content)?);
    }
    tools(&mut body, &mut request)?;
    if let Some(config) = body.object("generationConfig")? {
        let rest = generation(config, &mut request)?;
        body.give_back("generationConfig", rest);
    }
    if !body.members.is_empty() {
        request.extensions.insert(NAME.to_owned(), body.members.into_iter().collect());
    }
    Ok(request)
}

/// A refusal that names the path of what is wrong.
pub(super) fn wrong(path: &str, what: &str) -> Fault {
    Fault::new(FaultClass::InvalidRequest, format!("{path}: {what}"))
}

/// `inline_data` as `inlineData`: the API takes both.
pub(super) fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

/// An object's members, taken one by one; what is left is an extension. Names are in camel case, null is absent.
pub(super) struct Taken {
    pub(super) members: Map<String, Value>,
    path: String,
}

impl Taken {
    /// The body of a request.
    pub(super) fn of_body(body: &[u8]) -> Result<Self, Fault> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => Ok(Self::new(members, String::new())),
            Ok(_) => Err(Fault::new(FaultClass::InvalidRequest, "the body must be a JSON object")),
            Err(error) => Err(Fault::new(FaultClass::InvalidRequest, format!("the body is not JSON: {error}"))),
        }
    }

    pub(super) fn of_value(value: Value, path: String) -> Result<Self, Fault> {
        match value {
            Value::Object(members) => Ok(Self::new(members, path)),
            _ => Err(wrong(&path, "must be an object")),
        }
    }

    fn new(members: Map<String, Value>, path: String) -> Self {
        let members = members.into_iter().filter(|(_, value)| !value.is_null());
        Self { members: members.map(|(name, value)| (camel(&name), value)).collect(), path }
    }

    /// The path of a member.
    pub(super) fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(super) fn wrong(&self, name: &str, what: &str) -> Fault {
        wrong(&self.at(name), what)
    }

    pub(super) fn taken(&mut self, name: &str) -> Option<Value> {
        self.members.shift_remove(name)
    }

    fn typed<T>(&mut self, name: &str, read: impl Fn(&Value) -> Option<T>, what: &str) -> Result<Option<T>, Fault> {
        let Some(value) = self.taken(name) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| self.wrong(name, &format!("must be {what}")))
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        self.typed(name, |value| value.as_str().map(str::to_owned), "a string")
    }

    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, Fault> {
        self.typed(name, Value::as_bool, "true or false")
    }

    fn number(&mut self, name: &str) -> Result<Option<f64>, Fault> {
        self.typed(name, Value::as_f64, "a number")
    }

    pub(super) fn whole_number(&mut self, name: &str) -> Result<Option<u64>, Fault> {
        let read = |value: &Value| integer(value).and_then(|number| u64::try_from(number).ok());
        self.typed(name, read, "a whole number, not negative")
    }

    /// A list; an object is a list of one.
    pub(super) fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, Fault> {
        match self.taken(name) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(object @ Value::Object(_)) => Ok(Some(vec![object])),
            Some(_) => Err(self.wrong(name, "must be a list")),
        }
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, Fault> {
        let path = self.at(name);
        self.taken(name).map(|value| Self::of_value(value, path)).transpose()
    }

    /// A content; a string is one part of text.
    pub(super) fn content(&mut self, name: &str) -> Result<Option<Self>, Fault> {
        if let Some(text) = self.members.get(name).and_then(Value::as_str) {
            let content = json!({"parts": [{"text": text}]});
            self.members.insert(name.to_owned(), content);
        }
        self.object(name)
    }

    /// What is left of an object stays, as an extension.
    pub(super) fn give_back(&mut self, name: &str, rest: Self) {
        if !rest.members.is_empty() {
            self.members.insert(name.to_owned(), Value::Object(rest.members));
        }
    }
}

/// A whole number; 64-bit ones are strings in the JSON form of protocol buffers.
fn integer(value: &Value) -> Option<i64> {
    #[allow(clippy::cast_possible_truncation, reason = "only whole numbers of a usual size are cast")]
    let whole = |float: f64| (float.fract() == 0.0 && float.abs() < 1e15).then_some(float as i64);
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn tools(body: &mut Taken, request: &mut Request) -> Result<(), Fault> {
    for (index, tool) in body.list("tools")?.unwrap_or_default().into_iter().enumerate() {
        let mut tool = Taken::of_value(tool, format!("tools[{index}]"))?;
        for (index, function) in tool.list("functionDeclarations")?.unwrap_or_default().into_iter().enumerate() {
            let path = tool.at(&format!("functionDeclarations[{index}]"));
            request.tools.push(declaration(Taken::of_value(function, path)?)?);
        }
        for (name, value) in tool.members {
            let opaque = Some((NAME.to_owned(), json!({ name.as_str(): value })));
            request.tools.push(Tool { name, opaque, ..Tool::default() });
        }
    }
    let Some(stated) = body.taken("toolConfig") else { return Ok(()) };
    let mut config = Taken::of_value(stated.clone(), "toolConfig".to_owned())?;
    if let Some(mut calling) = config.object("functionCallingConfig")? {
        let mode = calling.text("mode")?.unwrap_or_default();
        let allowed = calling.list("allowedFunctionNames")?.unwrap_or_default();
        let only = if let [only] = allowed.as_slice() { only.as_str() } else { None };
        request.tool_choice = match (mode.to_ascii_uppercase().as_str(), only) {
            ("AUTO", _) => Some(ToolChoice::Auto),
            ("NONE", _) => Some(ToolChoice::None),
            ("ANY", Some(name)) => Some(ToolChoice::Tool(name.to_owned())),
            ("ANY", None) => Some(ToolChoice::Required),
            _ => None,
        };
    }
    if request.tool_choice.as_ref().map(write::tool_config).as_ref() != Some(&stated) {
        body.members.insert("toolConfig".to_owned(), stated);
    }
    Ok(())
}

fn declaration(mut function: Taken) -> Result<Tool, Fault> {
    let name = function.text("name")?.ok_or_else(|| function.wrong("name", "is required"))?;
    let mut tool = Tool { name, description: function.text("description")?, ..Tool::default() };
    if let Some(parameters) = function.taken("parametersJsonSchema") {
        tool.parameters = parameters;
    } else if let Some(parameters) = function.members.get("parameters") {
        // The caller's words stay beside their translation.
        tool.parameters = schema::to_json_schema(parameters);
    }
    let rest: Members = function.members.into_iter().collect();
    if !rest.is_empty() {
        tool.extensions.insert(NAME.to_owned(), rest);
    }
    Ok(tool)
}

fn generation(mut config: Taken, request: &mut Request) -> Result<Taken, Fault> {
    if config.whole_number("candidateCount")?.unwrap_or(1) > 1 {
        let message =
            "generationConfig.candidateCount: this model is served in another dialect, which has one candidate";
        return Err(Fault::new(FaultClass::Unsupported, message));
    }
    request.temperature = config.number("temperature")?;
    request.top_p = config.number("topP")?;
    request.top_k = config.whole_number("topK")?;
    request.output_tokens_max = config.whole_number("maxOutputTokens")?;
    request.seed = config.typed("seed", integer, "a whole number")?;
    let stop = config.list("stopSequences")?.unwrap_or_default();
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        _ => Err(config.wrong("stopSequences", "must be a list of strings")),
    };
    request.stop = stop.into_iter().map(text).collect::<Result<_, _>>()?;
    format(&mut config, request)?;
    if let Some(stated) = config.object("thinkingConfig")? {
        let kept = thinking::read(stated, request)?;
        config.members.extend(kept.map(|kept| ("thinkingConfig".to_owned(), kept)));
    }
    Ok(config)
}

fn format(config: &mut Taken, request: &mut Request) -> Result<(), Fault> {
    let Some(kind) = config.text("responseMimeType")? else { return Ok(()) };
    match kind.as_str() {
        "text/plain" => return Ok(()),
        "application/json" => {}
        _ => {
            config.members.insert("responseMimeType".to_owned(), json!(kind));
            return Ok(());
        }
    }
    let schema = match (config.taken("responseJsonSchema"), config.members.get("responseSchema")) {
        (Some(schema), _) => schema,
        // The caller's words stay beside their translation.
        (None, Some(schema)) => schema::to_json_schema(schema),
        (None, None) => {
            request.format = Some(Format::Json);
            return Ok(());
        }
    };
    request.format = Some(Format::Schema { name: None, description: None, schema, strict: None });
    Ok(())
}
