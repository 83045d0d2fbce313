// SPDX-License-Identifier: Apache-2.0
//! Thought signatures between their wire form and the canonical seal.
//!
//! On the wire a `thoughtSignature` is a member of a part: of a thought, of text, of a function call, of an image, or of an
//! empty text at the end of a stream. The vendor wants it back on that very part, and other dialects keep the parts of an
//! answer in another order; so the canonical seal says where it stood: `{"gemini": "<signature>", "on": "call", "n": 0}`.
//!
//! A seal of another vendor goes to callers of this dialect wrapped in base64, since their SDKs read signatures as bytes,
//! and is unwrapped when it comes back.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Value, json};

/// What a signature that the vendor does not check is called by the vendor. It stands in for the signature of a call that
/// another model has made. Source: <https://ai.google.dev/gemini-api/docs/thought-signatures>.
pub(super) const UNCHECKED: &str = "skip_thought_signature_validator";

/// Member of the wrapping of another vendor's seal.
const WRAPPING: &str = "penstock-seal";

/// SDKs write base64 with and without padding.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// Where a signature stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// On the thought itself.
    Thought,
    /// On text that follows.
    Text,
    /// On this of the answer's function calls.
    Call(usize),
    /// On the function call with this id.
    CallOf(String),
    /// On this of the answer's images.
    Image(usize),
    /// On an empty text, behind so many function calls.
    Empty(usize),
}

/// The canonical seal of a signature.
pub(super) fn pack(signature: &str, place: &Place) -> String {
    let (on, n) = match place {
        Place::Thought => ("thought", None),
        Place::Text => ("text", None),
        Place::Call(n) => ("call", Some(*n)),
        Place::CallOf(id) => return json!({"gemini": signature, "on": "call", "id": id}).to_string(),
        Place::Image(n) => ("image", Some(*n)),
        Place::Empty(n) => ("empty", Some(*n)),
    };
    let mut seal = json!({"gemini": signature, "on": on});
    if let Some(n) = n {
        seal["n"] = json!(n);
    }
    seal.to_string()
}

/// Signature and place of a canonical seal; none if it is another vendor's. Understands the `extra_content` in which the
/// vendor's own openai-chat endpoint sends signatures, too.
pub(super) fn unpack(seal: &str) -> Option<(String, Place)> {
    unpack_own(seal).or_else(|| {
        let seal = object(seal)?;
        let signature = seal["extra_content"]["google"]["thought_signature"].as_str()?;
        let place = seal["tool"].as_str().map_or(Place::Text, |id| Place::CallOf(id.to_owned()));
        Some((signature.to_owned(), place))
    })
}

/// Signature and place of a seal that [`pack`] has made; none of any other.
pub(super) fn unpack_own(seal: &str) -> Option<(String, Place)> {
    let seal = object(seal)?;
    let signature = seal["gemini"].as_str()?.to_owned();
    let n = seal["n"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or_default();
    let place = match seal["on"].as_str().unwrap_or_default() {
        "thought" => Place::Thought,
        "call" => seal["id"].as_str().map_or(Place::Call(n), |id| Place::CallOf(id.to_owned())),
        "image" => Place::Image(n),
        "empty" => Place::Empty(n),
        _ => Place::Text,
    };
    Some((signature, place))
}

fn object(seal: &str) -> Option<Value> {
    if seal.starts_with('{') { serde_json::from_str(seal).ok() } else { None }
}

/// What of another vendor is wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Foreign {
    /// The seal of a thought.
    Seal(String),
    /// A thought that only its vendor can read.
    Redacted(String),
}

/// The signature that holds another vendor's seal.
pub(super) fn wrap(foreign: &Foreign) -> String {
    let (kind, text) = match foreign {
        Foreign::Seal(text) => ("seal", text),
        Foreign::Redacted(text) => ("redacted", text),
    };
    base64::engine::general_purpose::STANDARD.encode(json!({WRAPPING: kind, "data": text}).to_string())
}

/// What of another vendor a signature holds; none if it is one of this dialect.
pub(super) fn unwrap(signature: &str) -> Option<Foreign> {
    let urlsafe = signature.contains(['-', '_']);
    let alphabet = if urlsafe { alphabet::URL_SAFE } else { alphabet::STANDARD };
    // Its first characters are always these; the signatures of the vendor are not worth decoding.
    if !signature.starts_with("eyJwZW5zdG9jay1zZWFs") {
        return None;
    }
    let bytes = GeneralPurpose::new(&alphabet, LENIENT).decode(signature).ok()?;
    let wrapped: Value = serde_json::from_slice(&bytes).ok()?;
    let text = wrapped["data"].as_str()?.to_owned();
    match wrapped[WRAPPING].as_str()? {
        "seal" => Some(Foreign::Seal(text)),
        "redacted" => Some(Foreign::Redacted(text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_tells_where_its_signature_stood() {
        let places =
            [Place::Thought, Place::Text, Place::Call(3), Place::CallOf("a".into()), Place::Image(1), Place::Empty(2)];
        for place in places {
            assert_eq!(unpack(&pack("CiQB+/==", &place)), Some(("CiQB+/==".to_owned(), place)));
        }
        let compatible = r#"{"extra_content":{"google":{"thought_signature":"x"}},"tool":"call_1"}"#;
        assert_eq!(unpack(compatible), Some(("x".to_owned(), Place::CallOf("call_1".into()))));
        assert_eq!(unpack_own(compatible), None);
        for foreign in ["EqQBCkYIBRgC", "{\"type\":\"reasoning.text\"}", "{broken", ""] {
            assert_eq!(unpack(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn another_vendors_seal_comes_back_from_sdks_that_change_the_alphabet() {
        for text in ["EqQB>>>???", "{\"type\":\"x\"}", "é\u{1f600}", ""] {
            for foreign in [Foreign::Seal(text.to_owned()), Foreign::Redacted(text.to_owned())] {
                let wire = wrap(&foreign);
                assert_eq!(unwrap(&wire), Some(foreign.clone()));
                let changed = wire.replace('+', "-").replace('/', "_");
                assert_eq!(unwrap(changed.trim_end_matches('=')), Some(foreign));
            }
        }
        assert_eq!(unwrap("EsoBCscBARFNMg87ZmsM0JHWeW6Lflbmi35cMuV2KaLHqMWXL9kg6Hie"), None);
    }
}
