// SPDX-License-Identifier: Apache-2.0
//! For adapters that let callers use the whole of their vendor's API, below `/vendors/NAME`.

use penstock_dialects::ir::{Fault, FaultClass};

use crate::adapter::{Body, Upstream};
use crate::call::Call;

/// The request of a call of the operation `passthrough`: the caller's method, path, query and bytes. What is missing are
/// headers and the credential.
///
/// # Errors
/// A fault of class invalid-request for a path that leaves the vendor's API.
pub fn passthrough(call: &Call) -> Result<Upstream, Fault> {
    let refuse = |message: &str| Fault::new(FaultClass::InvalidRequest, message);
    let path = call.fact("path").unwrap_or_default();
    let rest = path.strip_prefix("/vendors/").and_then(|rest| rest.split_once('/')).map(|(_, rest)| rest);
    let rest = rest.ok_or_else(|| refuse("write /vendors/NAME/ and then a path of the vendor's API"))?;
    if rest.split('/').any(is_dots) {
        return Err(refuse("a path must not have dots as a segment"));
    }
    let mut upstream = Upstream::post(format!("/{rest}")).body(Body::Splice(Vec::new()));
    call.fact("method").unwrap_or("POST").clone_into(&mut upstream.method);
    for pair in call.fact("query").unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        upstream = upstream.query(decoded(name), decoded(value));
    }
    Ok(upstream)
}

/// "." or "..", encoded or not: servers resolve them before they look at the path.
pub(crate) fn is_dots(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

/// Undoes the encoding of a query (`application/x-www-form-urlencoded`).
pub(crate) fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, others @ ..] = rest {
        rest = others;
        match (*first, hexadecimal(others)) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hexadecimal(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::Placed;

    fn call(path: &str, query: &str) -> Call {
        let facts = [("method", "GET"), ("path", path), ("query", query)];
        Call { facts: facts.map(|(name, value)| (name.into(), value.into())).into(), ..Call::default() }
    }

    #[test]
    fn a_request_goes_below_the_base_url_as_it_came() {
        let upstream = passthrough(&call("/vendors/v/tasks/a%2Fb", "page=2&name=a+b%26c&flag&bad=%zz%")).unwrap();
        assert_eq!((upstream.method.as_str(), upstream.path.as_str()), ("GET", "/tasks/a%2Fb"));
        let expected = [("page", "2"), ("name", "a b&c"), ("flag", ""), ("bad", "%zz%")];
        assert_eq!(upstream.query, expected.map(|(name, value)| Placed::text(name, value)));
        assert_eq!(upstream.body, Body::Splice(Vec::new()));
    }

    #[test]
    fn a_path_that_leaves_the_vendors_api_is_refused() {
        for path in ["/vendors/v", "/chat", "", "/vendors/v/../x", "/vendors/v/a/%2E%2e/b", "/vendors/v/."] {
            assert_eq!(passthrough(&call(path, "")).unwrap_err().class, FaultClass::InvalidRequest, "{path}");
        }
    }
}
