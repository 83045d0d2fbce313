// SPDX-License-Identifier: Apache-2.0
//! What every kind of plugin is told of a request, and how it says what more it wants to see.

use serde::Serialize;

/// What is known of one request (`types.wit`, `call`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Call {
    /// Unique to the request.
    pub id: String,
    /// `chat`, `count_tokens`, `embeddings` …; "" before the route is known to be an AI route.
    pub operation: String,
    /// The caller's wire language; "" on a plain HTTP route.
    pub dialect: String,
    /// For an adapter the model of the chosen target, for other kinds the one that the caller named.
    pub model: String,
    /// Whether the caller asked for a stream.
    pub streaming: bool,
    /// 0 for the first target tried, 1 for the next …
    pub attempt: u32,
    /// Milliseconds left until the host gives the request up.
    pub deadline_ms: u32,
    /// Who asks; none before auth and on open routes.
    pub subject: Option<String>,
    /// The group that the subject belongs to.
    pub tenant: Option<String>,
    /// Further facts by name: `route`, `vendor`, `client-ip`, `auth.<attribute>` …
    pub facts: Vec<(String, String)>,
}

impl Call {
    /// A further fact.
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<&str> {
        find(&self.facts, name)
    }
}

/// Names with values, in order; a name may repeat. Names of headers are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pairs(Vec<(String, String)>);

impl Pairs {
    /// The first value of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        find(&self.0, name)
    }

    /// Every pair, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl From<Vec<(String, String)>> for Pairs {
    fn from(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Pairs {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

fn find<'a>(pairs: &'a [(String, String)], wanted: &str) -> Option<&'a str> {
    pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

/// What a plugin wants to see of each call; what no plugin wants is never copied into a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// Request headers.
    pub headers: Vec<String>,
    /// Response headers.
    pub response_headers: Vec<String>,
    /// Top-level members of the request body, given as raw JSON.
    pub members: Vec<String>,
    /// Facts that cost the host something to make: `conversation`, `prices` (routing).
    pub facts: Vec<String>,
    /// What an adapter does not do as it is configured, of what its constants say that it can: dialects, operations, features.
    pub without: Vec<String>,
    /// In what calls have to agree, beside wanted headers and members, to be answered alike.
    pub alike: Vec<String>,
}

impl Wants {
    /// Nothing yet.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// These request headers, too.
    #[must_use]
    pub fn headers<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.headers.extend(names.into_iter().map(Into::into));
        self
    }

    /// These response headers, too.
    #[must_use]
    pub fn response_headers<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.response_headers.extend(names.into_iter().map(Into::into));
        self
    }

    /// These dialects, operations and features are not to be had with this configuration.
    #[must_use]
    pub fn without<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.without.extend(names.into_iter().map(Into::into));
        self
    }

    /// These facts, too.
    #[must_use]
    pub fn facts<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.facts.extend(names.into_iter().map(Into::into));
        self
    }

    /// A promise that lets the host answer by itself: calls that agree in the wanted headers and members and in these parts get
    /// the same answer, now and later. Names as in `lifecycle.wit`: `model`, `caller`, `rules`, `fact.route` …; `[""]` where
    /// headers and members are all that the answer depends on. Without this the plugin is asked about each call.
    #[must_use]
    pub fn alike<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.alike.extend(names.into_iter().map(Into::into));
        self
    }

    /// These members of the request body, too.
    #[must_use]
    pub fn members<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.members.extend(names.into_iter().map(Into::into));
        self
    }
}
