// SPDX-License-Identifier: Apache-2.0
//! What a caller presents: the SDKs of the vendors put their key into one of four headers, and what a gateway gives its
//! callers goes into the same ones.

use crate::call::Pairs;

/// Where SDKs put their key, in the order in which the headers are asked.
pub const HEADERS: [&str; 4] = ["authorization", "x-api-key", "x-goog-api-key", "api-key"];

/// What the caller presents; `authorization` must be of the scheme Bearer. None if there is nothing.
#[must_use]
pub fn presented(headers: &Pairs) -> Option<&str> {
    HEADERS.iter().find_map(|name| credential(name, headers.get(name)?))
}

fn credential<'h>(name: &str, value: &'h str) -> Option<&'h str> {
    let value = value.trim();
    let credential = match name {
        "authorization" => {
            let (scheme, rest) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim_start())?
        }
        _ => value,
    };
    (!credential.is_empty()).then_some(credential)
}
