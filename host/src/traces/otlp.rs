// SPDX-License-Identifier: Apache-2.0
//! The messages of OTLP that carry traces (opentelemetry-proto 1.7, `collector/trace/v1` and `trace/v1`), with the fields that
//! are used here. Numbers and types are those of the published files.

use prost::{Message, Oneof};

use super::{Finished, Kind, Span, Value};

/// `ExportTraceServiceRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// What each resource has to say.
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// What was not taken.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

/// `ExportTracePartialSuccess`.
#[derive(Clone, PartialEq, Message)]
pub struct PartialSuccess {
    /// So many spans.
    #[prost(int64, tag = "1")]
    pub rejected_spans: i64,
    /// Why.
    #[prost(string, tag = "2")]
    pub error_message: String,
}

/// `ResourceSpans`.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceSpans {
    /// Who speaks.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// What it says.
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

/// `Resource`.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// Attributes.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// `ScopeSpans`.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeSpans {
    /// What made the spans.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// The spans.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<SpanMessage>,
    /// The conventions that names of attributes follow.
    #[prost(string, tag = "3")]
    pub schema_url: String,
}

/// `InstrumentationScope`.
#[derive(Clone, PartialEq, Message)]
pub struct Scope {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// `Span`.
#[derive(Clone, PartialEq, Message)]
pub struct SpanMessage {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// W3C `tracestate`.
    #[prost(string, tag = "3")]
    pub trace_state: String,
    /// 8 bytes, or none.
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    /// Name.
    #[prost(string, tag = "5")]
    pub name: String,
    /// `SpanKind`: 1 internal, 2 server, 3 client.
    #[prost(int32, tag = "6")]
    pub kind: i32,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    /// Attributes.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    /// Events.
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
    /// How it went.
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    /// W3C trace flags.
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

/// `Span.Event`.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "1")]
    pub time_unix_nano: u64,
    /// Name.
    #[prost(string, tag = "2")]
    pub name: String,
}

/// `Status`.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// `StatusCode`: 0 unset, 1 ok, 2 error.
    #[prost(int32, tag = "3")]
    pub code: i32,
}

/// `KeyValue`.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// Name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// `AnyValue`.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// One of these.
    #[prost(oneof = "Any", tags = "1, 2, 3, 4, 5")]
    pub value: Option<Any>,
}

/// What an `AnyValue` may be.
#[derive(Clone, PartialEq, Oneof)]
pub enum Any {
    /// Text.
    #[prost(string, tag = "1")]
    String(String),
    /// Yes or no.
    #[prost(bool, tag = "2")]
    Bool(bool),
    /// A whole number.
    #[prost(int64, tag = "3")]
    Int(i64),
    /// A number.
    #[prost(double, tag = "4")]
    Double(f64),
    /// Several values.
    #[prost(message, tag = "5")]
    Array(Array),
}

/// `ArrayValue`.
#[derive(Clone, PartialEq, Message)]
pub struct Array {
    /// The values.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<AnyValue>,
}

/// Where the names of attributes are explained.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.41.0";

/// A request that tells these traces. `who` are the attributes of the gateway itself.
#[must_use]
pub fn request(traces: &[Finished], who: &[(&'static str, String)]) -> Request {
    let attributes = who.iter().map(|(name, text)| key_value(name, Any::String(text.clone()))).collect();
    let spans = traces.iter().flat_map(|trace| trace.spans.iter().map(|span| message(trace, span))).collect();
    let scope = Scope { name: "penstock".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: SCHEMA.to_owned() }];
    Request { resource_spans: vec![ResourceSpans { resource: Some(Resource { attributes }), scope_spans }] }
}

fn message(trace: &Finished, span: &Span) -> SpanMessage {
    /// The low bit of the flags: it was sampled.
    const SAMPLED: u32 = 1;
    let parent_span_id = if span.parent == 0 { Vec::new() } else { span.parent.to_be_bytes().to_vec() };
    let events = span.events.iter().map(|(name, at)| Event { time_unix_nano: *at, name: (*name).to_owned() });
    SpanMessage {
        trace_id: trace.id.to_be_bytes().to_vec(),
        span_id: span.id.to_be_bytes().to_vec(),
        trace_state: trace.state.clone(),
        parent_span_id,
        name: span.name.clone(),
        kind: match span.kind {
            Kind::Internal => 1,
            Kind::Server => 2,
            Kind::Client => 3,
        },
        start_time_unix_nano: span.time_ns.0,
        end_time_unix_nano: span.time_ns.1,
        attributes: span.attributes.iter().map(|(name, value)| key_value(name, any(value))).collect(),
        events: events.collect(),
        status: span.failed.then_some(Status { code: 2 }),
        flags: SAMPLED,
    }
}

fn key_value(name: &str, value: Any) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn any(value: &Value) -> Any {
    match value {
        Value::Text(text) => Any::String(text.clone()),
        Value::Number(number) => Any::Int(i64::try_from(*number).unwrap_or(i64::MAX)),
        Value::Float(number) => Any::Double(*number),
        Value::Is(is) => Any::Bool(*is),
        Value::Texts(texts) => {
            let values = texts.iter().map(|text| AnyValue { value: Some(Any::String(text.clone())) });
            Any::Array(Array { values: values.collect() })
        }
    }
}
