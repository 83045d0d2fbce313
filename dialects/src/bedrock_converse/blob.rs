// SPDX-License-Identifier: Apache-2.0
//! Binary members. JSON has no bytes, so they stand in base64; SDKs decode them, and encode them again on the way back.
//! A thought that only another vendor can read need not be base64: then it is wrapped, so that it comes back unchanged.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Stands before what has been wrapped.
const WRAPPED: &[u8] = b"text:";

/// A text as base64 that survives being decoded and encoded.
pub(super) fn wrap(text: &str) -> String {
    let survives =
        STANDARD.decode(text).is_ok_and(|bytes| STANDARD.encode(&bytes) == text && !bytes.starts_with(WRAPPED));
    if survives { text.to_owned() } else { STANDARD.encode([WRAPPED, text.as_bytes()].concat()) }
}

/// The text that was wrapped, or the base64 as it is.
pub(super) fn unwrap(base64: &str) -> String {
    let bytes = STANDARD.decode(base64).unwrap_or_default();
    let text = bytes.strip_prefix(WRAPPED).and_then(|text| std::str::from_utf8(text).ok());
    text.unwrap_or(base64).to_owned()
}

/// Pieces of a stream, each base64 of its own, as one.
pub(super) fn join(mut pieces: Vec<String>) -> String {
    if pieces.len() <= 1 {
        return pieces.pop().unwrap_or_default();
    }
    let decoded: Result<Vec<Vec<u8>>, _> = pieces.iter().map(|piece| STANDARD.decode(piece)).collect();
    decoded.map_or_else(|_| pieces.concat(), |decoded| STANDARD.encode(decoded.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_wrapped_survives_an_sdk_that_decodes_and_encodes() {
        for text in
            ["", "AAEC", "AAEC/w==", "AAEC_w", "{\"type\":\"x\"}", "gAAAAAB-x_y", "dGV4dDp4", "ü", "AAE", "AAF="]
        {
            let wire = wrap(text);
            let through_sdk = STANDARD.encode(STANDARD.decode(&wire).unwrap());
            assert_eq!(unwrap(&through_sdk), text);
        }
        assert_eq!(wrap("AAEC/w=="), "AAEC/w==");
    }

    #[test]
    fn pieces_are_joined_as_bytes() {
        let pieces = |pieces: &[&str]| join(pieces.iter().map(|piece| (*piece).to_owned()).collect());
        assert_eq!(pieces(&["AA==", "AQI="]), "AAEC");
        assert_eq!(pieces(&["AA=="]), "AA==");
        assert_eq!(pieces(&["no base64", "AA=="]), "no base64AA==");
        assert_eq!(pieces(&[]), "");
    }
}
