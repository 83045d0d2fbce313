// SPDX-License-Identifier: Apache-2.0
//! Reports the end of a job to the URL that its caller has named and the policy allows: a POST of the job, signed as the
//! Standard Webhooks specification says (<https://www.standardwebhooks.com>): base64 of HMAC-SHA256 over id, time and body.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use penstock_dialects::job::{JobCodec, Plain};
use sha2::Sha256;

use super::book::Book;
use super::record::Record;
use super::{blocking, shown};
use crate::clock;
use crate::keys::Secret;
use crate::snapshot::JobRules;
use crate::upstream::{Client, OutBody};

/// Reports under way at a time.
pub(super) const CONCURRENT: usize = 16;
/// How long the receiver may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pauses between the tries, in seconds: about a day together.
const PAUSES_S: [u64; 9] = [5, 30, 120, 600, 1800, 3600, 7200, 28_800, 43_200];

/// Tries to send a report, and notes when to try again.
pub(super) async fn send(book: &Arc<Book>, client: &Client, rules: &JobRules, record: &Record) {
    let Some(report) = &record.report else { return };
    let tried = attempt(client, rules, record, &report.url).await;
    let pause = usize::try_from(report.tries).ok().and_then(|tries| PAUSES_S.get(tries));
    let (outcome, next_ms) = match &tried {
        Ok(()) => ("ok", None),
        Err(Missed { last: false, .. }) => match pause {
            Some(pause) => ("failed", Some(clock::unix_ms() + pause * 1000)),
            None => ("given_up", None),
        },
        Err(Missed { last: true, .. }) => ("given_up", None),
    };
    book.metrics().reported(outcome);
    match &tried {
        Ok(()) => tracing::info!(job = record.id, "the end of a job was reported"),
        Err(missed) => tracing::warn!(
            job = record.id,
            tries = report.tries + 1,
            given_up = next_ms.is_none(),
            "the end of a job was not reported: {}",
            missed.why
        ),
    }
    let (book, id) = (Arc::clone(book), record.id.clone());
    if let Err(error) = blocking(move || book.reported(&id, next_ms)).await {
        tracing::error!(job = record.id, %error, "the try of a report cannot be written down");
    }
}

/// A try that failed.
struct Missed {
    why: String,
    /// Another one would not do better.
    last: bool,
}

async fn attempt(client: &Client, rules: &JobRules, record: &Record, url: &str) -> Result<(), Missed> {
    let refused = |why: &str| Missed { why: why.to_owned(), last: true };
    let (endpoint, uri) = rules.webhook(url).ok_or_else(|| refused("the policy does not allow its URL any more"))?;
    let secret = rules.webhook_secret.as_ref().ok_or_else(|| refused("there is no secret to sign it with"))?;
    let body = Plain.one(&shown(record, rules.kept, None));
    let (id, time) = (format!("msg_{}", record.id), (clock::unix_ms() / 1000).to_string());
    let signature = sign(secret, &id, &time, &body);
    let mut request = Request::new(OutBody::Full(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let agent = concat!("penstock/", env!("CARGO_PKG_VERSION"));
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::USER_AGENT, agent),
        (HeaderName::from_static("webhook-id"), &id),
        (HeaderName::from_static("webhook-timestamp"), &time),
        (HeaderName::from_static("webhook-signature"), &signature),
    ];
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).map_err(|_| refused("a header cannot be written"))?;
        request.headers_mut().insert(name, value);
    }
    let answer = tokio::time::timeout(PATIENCE, client.send(&endpoint, request)).await;
    match answer {
        // What the receiver says besides is not read; a redirect is no place that the policy names.
        Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
        Ok(Ok(answer)) => Err(Missed {
            why: format!("the receiver answered {}", answer.status()),
            last: answer.status() == StatusCode::GONE,
        }),
        Ok(Err(error)) => Err(Missed { why: error.to_string(), last: false }),
        Err(_) => Err(Missed { why: "the receiver did not answer in time".to_owned(), last: false }),
    }
}

fn sign(secret: &Secret, id: &str, time: &str, body: &[u8]) -> String {
    // `whsec_` marks base64; a secret that only looks so is taken as it is.
    let stated = secret.expose();
    let decoded = stated.strip_prefix(b"whsec_").and_then(|base64| BASE64_STANDARD.decode(base64).ok());
    let key = Secret::new(decoded.unwrap_or_else(|| stated.to_vec()));
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose()) else { return String::new() };
    for part in [id.as_bytes(), b".", time.as_bytes(), b".", body] {
        mac.update(part);
    }
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_signed_as_the_specification_says() {
        // The example of the specification's reference libraries.
        let secret = Secret::new(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_vec());
        let signature = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let plain = Secret::new(b"not base64 at all".to_vec());
        assert_ne!(sign(&plain, "a", "1", b""), sign(&plain, "a", "2", b""));
    }
}
