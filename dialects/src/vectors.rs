// SPDX-License-Identifier: Apache-2.0
//! The numbers of an embedding, as they stand in an [`EMBEDDING`] event: a JSON list, or base64 of little-endian f32
//! (or of bytes). They are kept as the vendor wrote them; only a caller who asked for the other form makes them be read.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::ir::Event;
use crate::task::EMBEDDING;

/// The encoding of plain numbers.
pub const FLOAT: &str = "float";
/// The encoding of base64 text of little-endian f32.
pub const BASE64: &str = "base64";

/// How many numbers are looked at to tell f32 from bytes.
const SAMPLE: usize = 64;

/// One vector in one encoding.
#[derive(Debug, Clone, Deserialize)]
pub struct Vector<'j> {
    /// Position of the input that it belongs to.
    pub index: u64,
    /// "float", "base64", "int8", "uint8", "binary", "ubinary".
    #[serde(borrow, default = "float")]
    pub encoding: Cow<'j, str>,
    /// A JSON list of numbers.
    #[serde(borrow, default)]
    pub values: Option<&'j RawValue>,
    /// Base64 text: of f32 in the encoding "base64", of bytes in the others.
    #[serde(borrow, default)]
    pub data: Option<Cow<'j, str>>,
}

impl<'j> Vector<'j> {
    /// Reads the JSON of an event.
    #[must_use]
    pub fn read(json: &'j str) -> Option<Self> {
        serde_json::from_str(json).ok().filter(|vector: &Self| vector.values.is_some() || vector.data.is_some())
    }

    /// The vector as it stands in an answer: a list, or a string.
    #[must_use]
    pub fn raw(&self) -> Option<Box<RawValue>> {
        match (self.values, &self.data) {
            (Some(values), _) => Some(values.to_owned()),
            (None, Some(data)) => RawValue::from_string(Value::from(data.as_ref()).to_string()).ok(),
            (None, None) => None,
        }
    }

    /// The same vector as a list of numbers, as the JSON of an event; none if its bytes are no numbers.
    #[must_use]
    pub fn as_floats(&self) -> Option<String> {
        let values = match (self.values, self.data.as_deref()) {
            (Some(values), _) => values.get().to_owned(),
            (None, Some(data)) if self.encoding == BASE64 => serde_json::to_string(&floats(data)?).ok()?,
            (None, Some(data)) if self.encoding == "int8" => serde_json::to_string(&signed(data)?).ok()?,
            _ => return None,
        };
        Some(listed(self.index, FLOAT, &values))
    }

    /// The same vector as base64 of f32, as the JSON of an event.
    #[must_use]
    pub fn as_base64(&self) -> Option<String> {
        let values: Vec<f32> = match (self.values, self.data.as_deref()) {
            (Some(values), _) => serde_json::from_str(values.get()).ok()?,
            (None, Some(data)) if self.encoding == "int8" => signed(data)?.into_iter().map(f32::from).collect(),
            _ => return None,
        };
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        Some(coded(self.index, BASE64, &STANDARD.encode(bytes)))
    }
}

/// The event of a vector: `raw` is a list of numbers, or a string of base64. A string that cannot be f32 is bytes
/// (Perplexity answers so unless asked otherwise).
#[must_use]
pub fn event(index: u64, encoding: &str, raw: &RawValue) -> Event {
    let json = match serde_json::from_str::<Cow<'_, str>>(raw.get()) {
        Ok(data) if encoding == FLOAT => coded(index, if is_f32(&data) { BASE64 } else { "int8" }, &data),
        Ok(data) => coded(index, encoding, &data),
        Err(_) => listed(index, encoding, raw.get()),
    };
    Event::Other { name: EMBEDDING.to_owned(), json }
}

fn float() -> Cow<'static, str> {
    Cow::Borrowed(FLOAT)
}

fn listed(index: u64, encoding: &str, values: &str) -> String {
    match encoding {
        FLOAT => format!("{{\"index\":{index},\"values\":{values}}}"),
        encoding => format!("{{\"index\":{index},\"encoding\":\"{encoding}\",\"values\":{values}}}"),
    }
}

fn coded(index: u64, encoding: &str, data: &str) -> String {
    format!("{{\"index\":{index},\"encoding\":\"{encoding}\",\"data\":{}}}", Value::from(data))
}

fn floats(data: &str) -> Option<Vec<f32>> {
    let bytes = STANDARD.decode(data).ok().filter(|bytes| bytes.len() % 4 == 0)?;
    Some(bytes.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect())
}

fn signed(data: &str) -> Option<Vec<i8>> {
    Some(STANDARD.decode(data).ok()?.into_iter().map(u8::cast_signed).collect())
}

/// Whether base64 text holds f32 such as embeddings have. Bytes of other numbers read as f32 have wild exponents.
fn is_f32(data: &str) -> bool {
    let usual = |number: &f32| *number == 0.0 || (1e-12..1e5).contains(&number.abs());
    floats(data).is_some_and(|floats| floats.iter().take(SAMPLE).all(usual))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    fn json(event: Event) -> String {
        let Event::Other { json, .. } = event else { panic!("{event:?}") };
        json
    }

    #[test]
    fn numbers_stay_as_they_were_written() {
        let told = json(event(3, FLOAT, &raw("[0.10, -2e-3,1.0]")));
        assert_eq!(told, r#"{"index":3,"values":[0.10, -2e-3,1.0]}"#);
        assert_eq!(Vector::read(&told).unwrap().raw().unwrap().get(), "[0.10, -2e-3,1.0]");
        let told = json(event(0, "int8", &raw("[-128,127]")));
        assert_eq!(Vector::read(&told).unwrap().encoding, "int8");
    }

    #[test]
    fn floats_become_base64_and_again_the_same_floats() {
        let listed = json(event(0, FLOAT, &raw("[0.02832291,-0.5,0.0,12.25]")));
        let coded = Vector::read(&listed).unwrap().as_base64().unwrap();
        assert_eq!(coded, r#"{"index":0,"encoding":"base64","data":"cwXoPAAAAL8AAAAAAABEQQ=="}"#);
        let again = Vector::read(&coded).unwrap().as_floats().unwrap();
        assert_eq!(again, r#"{"index":0,"values":[0.02832291,-0.5,0.0,12.25]}"#);
    }

    #[test]
    fn bytes_are_not_taken_for_floats() {
        let bytes: Vec<u8> = (0..64u8).map(|at| at.wrapping_mul(37)).collect();
        let text = format!("\"{}\"", STANDARD.encode(&bytes));
        let told = json(event(0, FLOAT, &raw(&text)));
        let vector = Vector::read(&told).unwrap();
        assert_eq!(vector.encoding, "int8");
        let floats = vector.as_floats().unwrap();
        assert!(floats.starts_with(r#"{"index":0,"values":[0,37,74,111,-108,"#), "{floats}");
    }

    #[test]
    fn what_is_no_vector_is_none() {
        for json in ["{}", "{\"index\":0}", "[1]", ""] {
            assert!(Vector::read(json).is_none(), "{json}");
        }
        let broken = Vector::read(r#"{"index":0,"encoding":"base64","data":"A"}"#).unwrap();
        assert_eq!(broken.as_floats(), None);
    }
}
