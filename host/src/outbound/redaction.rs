// SPDX-License-Identifier: Apache-2.0
//! What a vendor says of a request that it has refused, without the keys that it was sent: some repeat them, and the words of
//! an error reach callers and logs.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use memchr::memmem;

use crate::keys::Secret;
use crate::routes::Vendor;

/// What stands in the place of a secret, or of the beginning of one.
const REDACTED: &[u8] = b"[redacted]";
/// A secret is known by so many bytes of its beginning: vendors shorten keys in their errors, too. Shorter ones are no keys.
const BEGIN_BYTES: usize = 8;

/// The secrets that a vendor may have been sent.
pub struct Redaction<'v>(Vec<&'v [u8]>);

impl<'v> Redaction<'v> {
    /// Those of a vendor; `token` is the credential that was fetched for it.
    #[must_use]
    pub fn of(vendor: &'v Vendor, token: Option<&'v Secret>) -> Self {
        let (grants, pool) = (vendor.adapter.secrets(), vendor.pool.iter().flat_map(|pool| pool.secrets()));
        let secrets = grants.names().filter_map(|name| grants.secret(name)).chain(pool).chain(token);
        Self(secrets.map(Secret::expose).filter(|secret| secret.len() >= BEGIN_BYTES).collect())
    }

    /// A body without them.
    #[must_use]
    pub fn body(&self, body: Bytes) -> Bytes {
        self.clean(&body).map_or(body, Bytes::from)
    }

    /// Headers without them.
    pub fn headers(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            if let Some(clean) = self.clean(value.as_bytes()) {
                *value = HeaderValue::from_bytes(&clean).unwrap_or_else(|_| HeaderValue::from_static("[redacted]"));
            }
        }
    }

    /// None if none of them is in it.
    fn clean(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut clean: Option<Vec<u8>> = None;
        for secret in &self.0 {
            let text = clean.as_deref().unwrap_or(text);
            clean = without(text, secret).or(clean);
        }
        clean
    }
}

fn without(text: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
    let begin = &secret[..BEGIN_BYTES];
    let mut next = memmem::find(text, begin)?;
    let (mut clean, mut rest) = (Vec::with_capacity(text.len()), text);
    loop {
        clean.extend_from_slice(&rest[..next]);
        clean.extend_from_slice(REDACTED);
        rest = &rest[next + alike(&rest[next..], secret)..];
        match memmem::find(rest, begin) {
            Some(at) => next = at,
            None => break,
        }
    }
    clean.extend_from_slice(rest);
    Some(clean)
}

/// How many bytes of a text are the beginning of a secret, as it is or as JSON may write it (`\/`).
fn alike(text: &[u8], secret: &[u8]) -> usize {
    let (mut at, mut matched) = (0, 0);
    while let (Some(byte), Some(wanted)) = (text.get(at), secret.get(matched)) {
        if byte == wanted {
            (at, matched) = (at + 1, matched + 1);
        } else if *byte == b'\\' && text.get(at + 1) == Some(wanted) {
            (at, matched) = (at + 2, matched + 1);
        } else {
            break;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_a_vendor_repeats_is_taken_out_however_much_of_it_there_is() {
        let redaction = Redaction(vec![b"sk-live-0123456/789", b"other-key-42"]);
        for (said, shown) in [
            ("nothing of it", "nothing of it"),
            ("bad key sk-live-0123456/789.", "bad key [redacted]."),
            ("sk-live-0123456\\/789 sk-live-0123456/789", "[redacted] [redacted]"),
            ("sk-live-***", "[redacted]***"),
            ("sk-live", "sk-live"),
            ("other-key-42sk-live-0123456/789x", "[redacted][redacted]x"),
        ] {
            assert_eq!(redaction.body(Bytes::from_static(said.as_bytes())), shown);
        }
        let mut headers = HeaderMap::new();
        headers.insert("location", HeaderValue::from_static("http://x/?key=other-key-42"));
        headers.insert("x", HeaderValue::from_static("y"));
        redaction.headers(&mut headers);
        assert_eq!(
            (&headers["location"], &headers["x"]),
            (&"http://x/?key=[redacted]".parse().unwrap(), &"y".parse().unwrap())
        );
    }
}
