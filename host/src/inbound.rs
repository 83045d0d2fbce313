// SPDX-License-Identifier: Apache-2.0
//! What a caller asks for: dialect and operation by the head, then the bounded body with its model and streaming flag.
//!
//! The head is judged before the body is read, so that nobody who may not ask can make the gateway hold a body.

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use penstock_dialects::codec::{Ask, Codec, Head, Operation};
use penstock_dialects::form::Form;
use penstock_dialects::splice::Members;
use penstock_prices::cost::Made;

use crate::failure::{Failure, Kind};
use crate::upstream::{BodyError, InBody};

/// Query parameters in which callers put their own key: it is for us, not for a vendor.
const CREDENTIALS: [&str; 3] = ["key", "api_key", "access_token"];

/// What the head of an AI request says.
#[derive(Clone)]
pub struct Asked {
    /// The caller's dialect.
    pub dialect: &'static dyn Codec,
    /// What is asked for.
    pub operation: Operation,
    /// The model, where the path names it.
    pub model: Option<String>,
    /// Whether a stream is wanted, where the path says so.
    pub streaming: Option<bool>,
    /// The stream is wanted as one JSON array.
    pub array: bool,
    /// Where it was asked, for adapters that relay more than a body.
    pub place: Option<Place>,
}

/// Where something was asked.
#[derive(Clone)]
pub struct Place {
    /// Method.
    pub method: Method,
    /// Path below the route's prefix.
    pub path: String,
    /// Query without the caller's credentials.
    pub query: String,
}

impl Asked {
    /// Recognises a request below a route's prefix, in one of these dialects; none if none of them has such a request.
    pub fn recognise(head: &Parts, prefix: &str, dialects: &[String]) -> Option<Self> {
        let path = head.uri.path().strip_prefix(prefix).unwrap_or_default();
        let query = head.uri.query().unwrap_or_default();
        let header = |name: &str| text(&head.headers, name);
        let words = Head { method: head.method.as_str(), path, query, header: &header };
        let (dialect, ask) = penstock_dialects::recognise(&words, dialects)?;
        let Ask { operation, model, streaming, array } = ask;
        let told = !operation.is_canonical() || model.is_some() || operation.is_always_a_job();
        let place = || Place { method: head.method.clone(), path: path.to_owned(), query: without_credentials(query) };
        Some(Self { dialect, operation, model, streaming, array, place: told.then(place) })
    }
}

/// An AI request with its body.
pub struct Inbound<'b> {
    /// Dialect and operation.
    pub asked: &'b Asked,
    /// The model that the caller named; empty where an operation has none.
    pub model: String,
    /// Whether the caller wants a stream.
    pub streaming: bool,
    /// What is in the body.
    pub content: Content<'b>,
    /// The body.
    pub body: &'b Bytes,
    /// Media type of the body, as the caller states it.
    pub media_type: Option<&'b HeaderValue>,
}

impl Inbound<'_> {
    /// What is asked for, where prices differ by it: the size and quality of pictures and films, the length of a text that is
    /// to be spoken.
    #[must_use]
    pub fn made(&self) -> Made {
        match self.asked.operation {
            Operation::Images | Operation::ImageEdits | Operation::Videos => {
                Made { size: self.content.text("size"), quality: self.content.text("quality"), ..Made::default() }
            }
            Operation::Speech => {
                let characters = self.content.text("input").map_or(0, |text| text.chars().count());
                Made { characters: characters as u64, ..Made::default() }
            }
            _ => Made::default(),
        }
    }
}

/// What is in a body.
pub enum Content<'b> {
    /// A JSON object: its top-level members, and the bytes they lie in.
    Json(Members<'b>),
    /// A multipart form.
    Form(Form<'b>),
    /// Nothing, or something that is passed on as it is.
    Raw,
}

impl Content<'_> {
    /// The raw JSON of a member.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&str> {
        match self {
            Self::Json(members) => members.get(name),
            Self::Form(_) | Self::Raw => None,
        }
    }

    /// A member or field that is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        match self {
            Self::Json(members) => members.string(name).map(std::borrow::Cow::into_owned),
            Self::Form(form) => form.text(name).map(str::to_owned),
            Self::Raw => None,
        }
    }

    fn flag(&self, name: &str) -> Option<bool> {
        match self {
            Self::Json(members) => members.boolean(name),
            Self::Form(form) => form.text(name).map(|text| text == "true"),
            Self::Raw => None,
        }
    }
}

impl<'b> Inbound<'b> {
    /// A request that opens a conversation: it has no body, and its query names the model, or the vendor is named.
    #[must_use]
    pub fn conversation(asked: &'b Asked, body: &'b Bytes) -> Self {
        let query = asked.place.as_ref().map_or("", |place| place.query.as_str());
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let named = pairs.find(|(name, _)| name == "model").map(|(_, model)| model.into_owned());
        let named = named.or_else(|| asked.model.clone());
        let model = named.filter(|_| asked.operation.names_model()).unwrap_or_default();
        Self { asked, model, streaming: true, content: Content::Raw, body, media_type: None }
    }

    /// Reads model and streaming flag from a body.
    ///
    /// # Errors
    /// `bad-body` if it is neither a JSON object nor, where the operation takes files, a form; if it names a member twice,
    /// or no model.
    pub fn parse(asked: &'b Asked, head: &'b Parts, body: &'b Bytes) -> Result<Self, Failure> {
        let bad = |message: String| Failure::new(Kind::BadBody, message);
        let media_type = head.headers.get(header::CONTENT_TYPE);
        let kind = text(&head.headers, "content-type").unwrap_or_default();
        let content = if !asked.operation.names_model() {
            // A batch of lines, a file, nothing: none of them is looked into.
            Members::index(body).map_or(Content::Raw, Content::Json)
        } else if kind.get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/")) {
            Content::Form(Form::index(kind, body).map_err(|fault| bad(fault.message))?)
        } else {
            Content::Json(Members::index(body).map_err(|fault| bad(fault.message))?)
        };
        let named = asked.model.clone().or_else(|| content.text("model"));
        let model = named.filter(|_| asked.operation.names_model()).unwrap_or_default();
        if model.is_empty() && asked.operation.names_model() {
            return Err(bad("model: name the model as a string; GET the models to see what there is".into()));
        }
        let streaming = asked.streaming.or_else(|| content.flag("stream")).unwrap_or(false);
        Ok(Self { asked, model, streaming, content, body, media_type })
    }
}

/// A query without what callers may have put there for us.
#[must_use]
pub fn without_credentials(query: &str) -> String {
    let is_credential = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        CREDENTIALS.iter().any(|credential| name.eq_ignore_ascii_case(credential))
    };
    let rest: Vec<_> = query.split('&').filter(|pair| !is_credential(pair)).collect();
    rest.join("&")
}

/// Reads a body, not more than `body_bytes_max` of it.
///
/// # Errors
/// `body-too-large`, `body-timeout`, `body-unsupported`, or `bad-body` if the caller hangs up.
pub async fn read_body(headers: &HeaderMap, mut body: InBody, body_bytes_max: usize) -> Result<Bytes, Failure> {
    if let Some(coding) = text(headers, "content-encoding").filter(|coding| !coding.eq_ignore_ascii_case("identity")) {
        let message = format!("content-encoding {coding} is not accepted here; send the body uncompressed");
        return Err(Failure::new(Kind::BodyUnsupported, message));
    }
    let too_large = || {
        let message = format!("the body is over the limit of {body_bytes_max} bytes (limits.body_bytes_max)");
        Failure::new(Kind::BodyTooLarge, message)
    };
    if body.size_hint().lower() > body_bytes_max as u64 {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        if first.len() + rest.len() + data.len() > body_bytes_max {
            return Err(too_large());
        }
        // Most bodies come in one piece, which is then used as it is.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

fn broken(error: &BodyError) -> Failure {
    match error {
        BodyError::Idle(limit) => {
            let message = format!("no more of the body came within {} ms", limit.as_millis());
            Failure::new(Kind::BodyTimeout, message)
        }
        BodyError::Cut(_) => Failure::new(Kind::BadBody, "the body ended before it was complete").because(error),
    }
}

/// A header as text; none if it is absent or not UTF-8.
#[must_use]
pub fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
}

/// The wanted headers that a request or answer has, as pairs for a plugin.
#[must_use]
pub fn wanted<'h>(wants: &'h [HeaderName], headers: &'h HeaderMap) -> Vec<(&'h str, &'h str)> {
    let mut pairs = Vec::with_capacity(wants.len());
    for name in wants {
        for value in headers.get_all(name) {
            if let Ok(value) = std::str::from_utf8(value.as_bytes()) {
                pairs.push((name.as_str(), value));
            }
        }
    }
    pairs
}
