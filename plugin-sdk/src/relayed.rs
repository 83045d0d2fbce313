// SPDX-License-Identifier: Apache-2.0
//! For operations that are relayed as the caller asks: its method, its path and its query go to the vendor. The host tells
//! them in the facts "method", "path" (below the route's prefix) and "query" (without credentials) of a call whose request
//! is more than a JSON body at a fixed path.

use penstock_dialects::codec::Operation;
use penstock_dialects::ir::{Fault, FaultClass};

use crate::adapter::{Body, Framing, Upstream};
use crate::call::Call;
use crate::passthrough::{decoded, is_dots};

/// All of a call that [`relayed`] and [`passthrough`](crate::passthrough::passthrough) look at, with the model and the dialect: what
/// an adapter promises ([`Wants::alike`](crate::call::Wants::alike)) whose `relay` looks at nothing else.
pub const ALIKE: [&str; 7] = ["operation", "dialect", "model", "streaming", "fact.method", "fact.path", "fact.query"];

/// The request that the caller makes, to the vendor: where the caller's path begins with `ours`, that part becomes
/// `theirs`. A call without such facts is a POST at `theirs`. The caller's body goes along unless the method has none; a
/// model in the query becomes the target's.
///
/// # Errors
/// A fault of class invalid-request for a path that leaves the vendor's.
pub fn relayed(call: &Call, ours: &str, theirs: &str) -> Result<Upstream, Fault> {
    let below = |path: &str| {
        let rest = path.strip_prefix(ours).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        // Another path of the operation (uploads beside files) stands where this one does.
        let beside = || format!("{}{path}", theirs.strip_suffix(ours).unwrap_or_default());
        rest.map_or_else(beside, |rest| format!("{theirs}{rest}"))
    };
    let path = call.fact("path").map_or_else(|| theirs.to_owned(), below);
    if path.split('/').any(is_dots) {
        return Err(Fault::new(FaultClass::InvalidRequest, "a path must not have dots as a segment"));
    }
    let mut upstream = Upstream::post(path).framing(Framing::sse_if(call.streaming));
    if let Some(method) = call.fact("method") {
        method.clone_into(&mut upstream.method);
    }
    if !matches!(upstream.method.as_str(), "GET" | "HEAD") {
        upstream.body = Body::Splice(Vec::new());
    }
    let names_model = Operation::from_name(&call.operation).is_some_and(Operation::names_model);
    for (name, value) in query(call.fact("query").unwrap_or_default()) {
        let value = if name == "model" && names_model { call.model.clone() } else { value };
        upstream = upstream.query(name, value);
    }
    Ok(upstream)
}

/// The parameters of a query, decoded.
fn query(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
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
        let asked = relayed(&call("batches", &facts), "/batches", "/batch/jobs").unwrap();
        let expected = Upstream::get("/batch/jobs/b1").query("after", "a/b c").query("x", "%zz").query("e", "é%");
        assert_eq!(asked, expected);
        let elsewhere =
            relayed(&call("files", &[("method", "POST"), ("path", "/filesystem")]), "/files", "/f").unwrap();
        assert_eq!((elsewhere.path.as_str(), elsewhere.body), ("/filesystem", Body::Splice(Vec::new())));
        let uploads = [("method", "POST"), ("path", "/uploads/u1/parts")];
        assert_eq!(
            relayed(&call("files", &uploads), "/files", "/openai/files").unwrap().path,
            "/openai/uploads/u1/parts"
        );
        let out = [("method", "GET"), ("path", "/files/%2e./x")];
        assert_eq!(relayed(&call("files", &out), "/files", "/files").unwrap_err().class, FaultClass::InvalidRequest);
        let plain = relayed(&call("embeddings", &[]), "/embeddings", "/v2/embed").unwrap();
        assert_eq!((plain.method.as_str(), plain.path.as_str()), ("POST", "/v2/embed"));
    }

    #[test]
    fn a_model_in_the_query_is_the_targets() {
        let facts = [("method", "GET"), ("path", "/realtime"), ("query", "model=mine")];
        assert_eq!(
            relayed(&call("realtime", &facts), "/realtime", "/realtime").unwrap().query,
            Upstream::get("").query("model", "target").query
        );
        assert_eq!(
            relayed(&call("files", &facts), "/files", "/files").unwrap().query,
            Upstream::get("").query("model", "mine").query
        );
    }
}
