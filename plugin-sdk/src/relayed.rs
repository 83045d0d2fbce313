// SPDX-License-Identifier: Apache-2.0
//! For operations that are relayed as the caller asks: its method, its path and its query go to the vendor. The host tells
//! them in the facts "method", "path" (below the route's prefix) and "query" (without credentials) of a call whose request
//! is more than a JSON body at a fixed path.

use std::borrow::Cow;

use penstock_dialects::codec::Operation;

use crate::adapter::{Body, Framing, Upstream};
use crate::call::Call;

/// The request that the caller makes, to the vendor: where the caller's path begins with `ours`, that part becomes
/// `theirs`. A call without such facts is a POST at `theirs`. The caller's body goes along unless the method has none; a
/// model in the query becomes the target's.
#[must_use]
pub fn relayed(call: &Call, ours: &str, theirs: &str) -> Upstream {
    let below = |path: &str| {
        let rest = path.strip_prefix(ours).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        rest.map_or_else(|| path.to_owned(), |rest| format!("{theirs}{rest}"))
    };
    let path = call.fact("path").map_or_else(|| theirs.to_owned(), below);
    let mut upstream = Upstream::post(path).framing(Framing::sse_if(call.streaming));
    if let Some(method) = call.fact("method") {
        method.clone_into(&mut upstream.method);
    }
    if !matches!(upstream.method.as_str(), "GET" | "HEAD") {
        upstream.body = Body::Splice(Vec::new());
    }
    let names_model = Operation::from_name(&call.operation).is_some_and(Operation::names_model);
    for (name, value) in query(call.fact("query").unwrap_or_default()) {
        let value = if name == "model" && names_model { Cow::Borrowed(call.model.as_str()) } else { value };
        upstream = upstream.query(name, value);
    }
    upstream
}

/// The path of a call of the vendor's own API, below the vendor's name; none if there is nothing below it.
#[must_use]
pub fn own_path(call: &Call) -> Option<&str> {
    let named = call.fact("path")?.strip_prefix("/vendors/")?;
    named.find('/').map(|at| &named[at..])
}

/// The parameters of a query, decoded.
fn query(text: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = escaped.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        rest = after;
        match (first, escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: &str, facts: &[(&str, &str)]) -> Call {
        let facts = facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Call { operation: operation.to_owned(), model: "target".to_owned(), facts, ..Call::default() }
    }

    #[test]
    fn the_callers_request_goes_below_the_vendors_path() {
        let facts = [("method", "GET"), ("path", "/batches/b1"), ("query", "after=a%2Fb+c&x=%zz&e=é%")];
        let asked = relayed(&call("batches", &facts), "/batches", "/batch/jobs");
        let expected = Upstream::get("/batch/jobs/b1").query("after", "a/b c").query("x", "%zz").query("e", "é%");
        assert_eq!(asked, expected);
        let elsewhere = relayed(&call("files", &[("method", "POST"), ("path", "/filesystem")]), "/files", "/f");
        assert_eq!((elsewhere.path.as_str(), elsewhere.body), ("/filesystem", Body::Splice(Vec::new())));
        let plain = relayed(&call("embeddings", &[]), "/embeddings", "/v2/embed");
        assert_eq!((plain.method.as_str(), plain.path.as_str()), ("POST", "/v2/embed"));
    }

    #[test]
    fn a_model_in_the_query_is_the_targets() {
        let facts = [("method", "GET"), ("path", "/realtime"), ("query", "model=mine")];
        assert_eq!(
            relayed(&call("realtime", &facts), "/realtime", "/realtime").query,
            Upstream::get("").query("model", "target").query
        );
        assert_eq!(
            relayed(&call("files", &facts), "/files", "/files").query,
            Upstream::get("").query("model", "mine").query
        );
    }

    #[test]
    fn a_vendors_own_path_is_what_stands_below_its_name() {
        let own = |path| own_path(&call("passthrough", &[("path", path)])).map(str::to_owned);
        assert_eq!(own("/vendors/acme/v1/x"), Some("/v1/x".to_owned()));
        assert_eq!((own("/vendors/acme"), own("/v1/x")), (None, None));
    }
}
