// SPDX-License-Identifier: Apache-2.0
//! Reads recorded requests as a caller's: what a vendor has accepted we accept, and writing it again loses nothing that
//! the canonical form holds.

use penstock_dialects::codec::Codec;

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
    let mut failures = Vec::new();
    if !dropped.is_empty() {
        failures.push(Failure::new("request", format!("its own dialect drops {}", dropped.join(", "))));
    }
    match codec.decode_request(&written) {
        Ok(again) if again == request => {}
        Ok(_) => failures.push(Failure::new("request", "another request after writing and reading it")),
        Err(fault) => failures.push(Failure::new("request", format!("written, it is refused: {}", fault.message))),
    }
    failures
}
