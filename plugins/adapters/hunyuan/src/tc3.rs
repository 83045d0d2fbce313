// SPDX-License-Identifier: Apache-2.0
//! Signatures of Tencent Cloud's API 3.0, TC3-HMAC-SHA256 (<https://cloud.tencent.com/document/api/1729/101842>). The key
//! stays in the host: what is derived of it here are handles.

use penstock_sdk::prelude::{Secret, Unsigned};
use penstock_sdk::signing::{hex, utc_date};
use sha2::{Digest, Sha256};

/// Headers that are signed, in alphabetical order. Tencent asks for the first two; the action says what is asked for.
const SIGNED: [&str; 3] = ["content-type", "host", "x-tc-action"];

/// The headers `authorization` and `x-tc-timestamp` of a request.
pub(crate) fn sign(request: &Unsigned, key: &Secret, secret_id: &str, service: &str) -> Vec<(String, String)> {
    let date = utc_date(request.time);
    let scope = format!("{date}/{service}/tc3_request");
    let digest = hex(&Sha256::digest(canonical(request)));
    let text = format!("TC3-HMAC-SHA256\n{}\n{scope}\n{digest}", request.time);
    let derived = key.derive("TC3", date.as_bytes()).derive("", service.as_bytes()).derive("", b"tc3_request");
    let signature = hex(&derived.hmac_sha256(text.as_bytes()));
    let headers = SIGNED.join(";");
    let authorization =
        format!("TC3-HMAC-SHA256 Credential={secret_id}/{scope}, SignedHeaders={headers}, Signature={signature}");
    vec![("authorization".to_owned(), authorization), ("x-tc-timestamp".to_owned(), request.time.to_string())]
}

/// The request as it is signed.
fn canonical(request: &Unsigned) -> String {
    let Unsigned { method, path, query, body_sha256, .. } = request;
    let mut headers = String::new();
    for name in SIGNED {
        let value = if name == "host" { &request.host } else { request.headers.get(name).unwrap_or_default() };
        headers.push_str(&format!("{name}:{}\n", value.trim().to_lowercase()));
    }
    format!("{method}\n{path}\n{query}\n{headers}\n{}\n{body_sha256}", SIGNED.join(";"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use penstock_sdk::testkit::grant;
    use serde_json::Value;

    use super::*;

    /// The vectors beside the worktrees, checked with Tencent's own SDK; none where they are not.
    fn vectors() -> Vec<Value> {
        let given = std::env::var_os("PENSTOCK_FIXTURES").map(PathBuf::from);
        let near = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|at| at.join("shared/fixtures"));
        let mut files = given.into_iter().chain(near).map(|folder| folder.join("signatures/tencent-tc3.json"));
        let Some(file) = files.find(|file| file.exists()) else {
            eprintln!("SKIPPED: no signatures/tencent-tc3.json under $PENSTOCK_FIXTURES or shared/fixtures");
            return Vec::new();
        };
        let vectors: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(vectors.len(), 4);
        vectors
    }

    #[test]
    fn signatures_are_those_of_tencents_sdk() {
        for vector in vectors() {
            let text = |name: &str| vector[name].as_str().unwrap().to_owned();
            grant([("key", text("secret_key").as_str())]);
            let headers = vector["headers"].as_object().unwrap();
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| (name.to_lowercase(), value.as_str().unwrap().to_owned())).collect();
            let request = Unsigned {
                method: "POST".to_owned(),
                host: text("host"),
                path: "/".to_owned(),
                query: String::new(),
                headers: headers.into(),
                body_sha256: hex(&Sha256::digest(text("body"))),
                time: vector["timestamp"].as_u64().unwrap(),
            };
            assert_eq!(canonical(&request), text("canonical_request"), "{}", vector["name"]);
            let signed = sign(&request, &Secret::open("key").unwrap(), &text("secret_id"), &text("service"));
            let expected = [
                ("authorization".to_owned(), text("authorization")),
                ("x-tc-timestamp".to_owned(), vector["timestamp"].to_string()),
            ];
            assert_eq!(signed, expected, "{}", vector["name"]);
        }
    }
}
