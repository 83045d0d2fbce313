// SPDX-License-Identifier: Apache-2.0
//! Reads recorded requests as a caller's: what a vendor has accepted we accept, and writing it again loses nothing that
//! the canonical form holds.

use penstock_dialects::codec::Codec;
use penstock_dialects::ir::{Content, Request};
use serde_json::{Map, Value};

use super::Failure;
use super::case::Case;

/// Decodes the request, writes it in the same dialect, and decodes that.
pub(super) fn check(case: &Case, codec: &'static dyn Codec) -> Vec<Failure> {
    let Some(mut body) = case.request.clone().filter(|_| case.status < 400) else { return Vec::new() };
    // Some vendors name the model in the path; their adapters move it there.
    if let Some(members) = body.as_object_mut() {
        members.entry("model").or_insert_with(|| "m".into());
    }
    let request = match codec.decode_request(body.to_string().as_bytes()) {
        Ok(request) => request,
        Err(fault) => return vec![Failure::new("request", fault.message)],
    };
    let (written, dropped) = codec.encode_request(&request);
    let again = match codec.decode_request(&written) {
        Ok(again) => again,
        Err(fault) => return vec![Failure::new("request", format!("written, it is refused: {}", fault.message))],
    };
    match difference(&request, &again) {
        None => Vec::new(),
        Some(_) if !dropped.is_empty() => {
            let reason = format!("the dialect reads and never writes {}, and says so", dropped.join(", "));
            vec![Failure::meant("request", reason)]
        }
        Some(difference) => vec![Failure::new("request", format!("written and read again: {difference}"))],
    }
}

/// The first member of the canonical form that differs, if one does. Parallel tool calls are what every dialect does unless
/// told otherwise, so it is the same whether they are allowed or not mentioned. Some dialects name the model in the path.
fn difference(request: &Request, again: &Request) -> Option<String> {
    let values = [request, again].map(|it| {
        let parallel_tools = it.parallel_tools.filter(|allowed| !allowed);
        let mut system = it.system.clone();
        // An instruction that says nothing is none.
        system.retain(|block| !matches!(&block.content, Content::Text { text, .. } if text.is_empty()));
        let it = Request { parallel_tools, system, model: String::new(), ..it.clone() };
        serde_json::to_value(it).unwrap_or_default()
    });
    let [Value::Object(request), Value::Object(again)] = values else { return None };
    let name = request.keys().chain(again.keys()).find(|name| request.get(*name) != again.get(*name))?;
    let shown = |members: &Map<String, Value>| members.get(name).map_or("nothing".into(), ToString::to_string);
    Some(format!("`{name}` was {}, is {}", shown(&request), shown(&again)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_lost_is_found() {
        let request = Request { top_k: Some(3), parallel_tools: Some(true), ..Request::default() };
        assert_eq!(difference(&request, &Request { parallel_tools: None, ..request.clone() }), None);
        let lost = difference(&request, &Request { top_k: None, ..request.clone() });
        assert_eq!(lost.as_deref(), Some("`top_k` was 3, is nothing"));
        assert!(difference(&request, &Request { parallel_tools: Some(false), ..request.clone() }).is_some());
    }
}
