// SPDX-License-Identifier: Apache-2.0
//! What is written down of a job. Fields may be added, with a default; a gateway of an older version left records without
//! them.

use std::fmt;

use bytes::Bytes;
use penstock_dialects::job::Status;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A job, without its bodies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Id without a prefix; sorts by the time of acceptance, and cannot be guessed.
    pub id: String,
    /// Whose it is.
    pub owner: Owner,
    /// What was asked.
    pub asked: Asked,
    /// How far it has come.
    pub status: Status,
    /// When it was accepted, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it was first begun.
    #[serde(default)]
    pub started_ms: Option<u64>,
    /// When it was over.
    #[serde(default)]
    pub ended_ms: Option<u64>,
    /// When it is given up.
    pub deadline_ms: u64,
    /// The caller's key for this request.
    #[serde(default)]
    pub key: Option<String>,
    /// SHA-256 over what was asked, in hexadecimal.
    pub digest: String,
    /// The last request that went to a vendor and changes something there.
    #[serde(default)]
    pub sent: Option<Sent>,
    /// It is over, and its vendor has not been told yet.
    #[serde(default)]
    pub to_cancel: bool,
    /// Its caller has forgotten it; it goes when its vendor has been told.
    #[serde(default)]
    pub hidden: bool,
    /// Who has answered, "vendor/model"; empty while nobody has.
    #[serde(default)]
    pub target: String,
    /// Where its end is reported to.
    #[serde(default)]
    pub report: Option<Report>,
    /// Bytes of the bodies that are kept with it.
    #[serde(default)]
    pub bytes: u64,
}

/// Whose a job is, and what auth and filters have said of the request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Name of the route.
    pub route: String,
    /// Who asked; empty on an open route.
    pub subject: String,
    /// The group.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Attributes of the caller.
    #[serde(default)]
    pub attributes: Vec<(String, String)>,
    /// Address of the caller.
    #[serde(default)]
    pub client_ip: String,
}

impl Owner {
    /// Whether this is the same caller at the same route.
    #[must_use]
    pub fn is(&self, route: &str, subject: &str) -> bool {
        self.route == route && self.subject == subject
    }
}

/// What was asked, without the body and without any credential.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Id of the request.
    pub request_id: String,
    /// Name of the caller's dialect.
    pub dialect: String,
    /// Name of the operation.
    pub operation: String,
    /// The model that the caller named.
    pub model: String,
    /// Whether the path named it.
    #[serde(default)]
    pub model_in_path: bool,
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Query without credentials; may be empty.
    #[serde(default)]
    pub query: String,
    /// Path below the route's prefix, if adapters are told.
    #[serde(default)]
    pub place: Option<String>,
    /// Headers that an adapter may want to see.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Members of the request that are repeated when the job is shown.
    #[serde(default)]
    pub repeated: Map<String, Value>,
}

/// A request that went to a vendor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// "vendor/model".
    pub target: String,
    /// The how-manieth that changes something, from 0.
    pub step: u32,
    /// Whether its answer was written down.
    pub answered: bool,
}

/// The report of an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Where it goes.
    pub url: String,
    /// How often that was tried.
    pub tries: u32,
    /// When it is tried next, in milliseconds since 1970; none if it has arrived or is given up.
    pub next_ms: Option<u64>,
}

/// The answer that the caller would have got.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Bytes,
}

impl fmt::Debug for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Answer({}, {} bytes)", self.status, self.body.len())
    }
}
