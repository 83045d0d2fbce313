// SPDX-License-Identifier: Apache-2.0
//! Checks the class that a codec gives to an error, since retry, fallback and billing follow from it.
//!
//! The oracle is on purpose a simple one that knows no vendor: the status says which classes are possible at all, and
//! plain words of the error narrow them. A class outside of that is a failure.

use penstock_dialects::ir::FaultClass::{self, *};

use super::Failure;
use super::case::Case;
use super::reader::Reader;

/// Words in an error, and what it then is.
const WORDS: &[(&[&str], &[FaultClass])] = &[
    (
        &[
            "maximum context",
            "prompt is too long",
            "too_many_prompt_tokens",
            "context_length_exceeded",
            "too many tokens",
        ],
        &[ContextTooLong],
    ),
    (&["content_filter", "content management policy"], &[ContentFilter]),
    (&["retry in ", "retrydelay"], &[RateLimit]), // a quota that is full again in a minute
    (
        &["insufficient_quota", "exceeded your current quota", "insufficient balance", "credit balance"],
        &[Billing, Quota],
    ),
    (
        &["model_not_found", "invalid_model", "does not exist", "invalid model", "model names are", "model:"],
        &[ModelNotFound],
    ),
    (&["overloaded"], &[Overloaded]),
];

/// The class and the text of an error answer.
pub(super) fn check(case: &Case, reader: Reader) -> Vec<Failure> {
    let fault = reader.decode_fault(case);
    let mut failures = Vec::new();
    let expected = &case.expected["error"];
    let possible = possible(case.status, &expected.to_string());
    if !possible.contains(&fault.class) {
        let names = possible.iter().map(|class| class.name()).collect::<Vec<_>>().join(" or ");
        let reason =
            format!("status {}: expected {names}, found {}: {}", case.status, fault.class.name(), fault.message);
        failures.push(Failure::new("error class", reason));
    }
    if let Some(message) = expected["message"].as_str().filter(|message| !says(&fault.message, message.trim())) {
        failures.push(Failure::new("error text", format!("expected `{message}`, found `{}`", fault.message)));
    }
    failures
}

/// Whether a fault has the vendor's words. What looks like a key is masked in a fault, and may be anything.
fn says(found: &str, wanted: &str) -> bool {
    let mut rest = wanted;
    let mut pieces = found.split("[key]");
    if found.contains("[key]") {
        return pieces.all(|piece| match rest.find(piece) {
            Some(at) => {
                rest = &rest[at + piece.len()..];
                true
            }
            None => false,
        });
    }
    found.contains(wanted)
}

/// The classes that an error may have.
fn possible(status: u16, error: &str) -> Vec<FaultClass> {
    let by_status = of_status(status);
    let error = error.to_lowercase();
    let by_words = WORDS.iter().find(|(words, _)| words.iter().any(|word| error.contains(word)));
    let narrowed: Vec<_> = by_words
        .map(|(_, classes)| classes.iter().copied().filter(|class| by_status.contains(class)).collect())
        .unwrap_or_default();
    if narrowed.is_empty() { by_status.to_vec() } else { narrowed }
}

fn of_status(status: u16) -> &'static [FaultClass] {
    match status {
        400 | 409 | 413 | 422 => {
            &[InvalidRequest, ContextTooLong, ContentFilter, ModelNotFound, Unsupported, Billing, Authentication]
        }
        401 => &[Authentication],
        402 => &[Billing],
        403 => &[Permission, Authentication, Billing, Quota, ContentFilter],
        404 => &[ModelNotFound, InvalidRequest, Unsupported],
        408 | 504 => &[Timeout],
        429 => &[RateLimit, Quota, Billing],
        500 => &[Overloaded, Timeout, VendorBug, InvalidRequest], // some servers say so of a request that they cannot parse
        501 => &[Unsupported, VendorBug],                         // "not implemented": the same server will never do it
        502.. => &[Overloaded, Timeout, VendorBug],
        _ => FaultClass::ALL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_bounds_and_the_words_narrow() {
        assert_eq!(possible(401, "any words: model_not_found"), [Authentication]);
        assert_eq!(possible(400, "Prompt is too long: 5 > 4"), [ContextTooLong]);
        assert_eq!(possible(404, "The model `x` does not exist"), [ModelNotFound]);
        assert_eq!(possible(429, "insufficient_quota"), [Billing, Quota]);
        assert!(!possible(429, "slow down").contains(&InvalidRequest));
        assert!(!possible(502, "oops").contains(&InvalidRequest));
    }

    #[test]
    fn the_vendors_words_are_kept_but_for_keys() {
        assert!(says("Bad key: [key] is invalid", "Bad key: ****-key is invalid"));
        assert!(says("vendor: slow down", "slow down"));
        assert!(!says("error", "slow down"));
        assert!(!says("Other: [key]", "Bad key: x"));
    }
}
