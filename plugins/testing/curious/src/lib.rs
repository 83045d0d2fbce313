// SPDX-License-Identifier: Apache-2.0
//! Looks for secrets wherever a guest can look, and uses state: for the tests of the host, and for nothing else.
//!
//! An auth plugin on the bare contract. The wanted header `x-do` says what to do; the subject that it answers with is the
//! result.

#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "curious on purpose; half of it is generated")]

wit_bindgen::generate!({ path: "../../../wit", world: "auth-plugin", generate_all });

use exports::penstock::plugin::auth::{self, Grant};
use exports::penstock::plugin::lifecycle::{self, Issue, Want};
use penstock::plugin::secrets::Secret;
use penstock::plugin::state;
use penstock::plugin::types::{Call, Fault};

const TEXT: &[u8] = br#"{
    "kind": "auth",
    "api": "0.1.0",
    "name": "curious",
    "version": "0.1.0",
    "description": "Looks for secrets",
    "licence": "Apache-2.0",
    "secrets": ["granted"]
}"#;

#[used]
#[unsafe(link_section = "penstock:plugin")]
static MANIFEST: [u8; TEXT.len()] = {
    let mut bytes = [0; TEXT.len()];
    bytes.copy_from_slice(TEXT);
    bytes
};

struct Curious;
export!(Curious);

impl lifecycle::Guest for Curious {
    fn configure(_: String) -> Result<Vec<Want>, Vec<Issue>> {
        Ok(["x-do", "x-with"].map(|name| Want { kind: "header".to_owned(), name: name.to_owned() }).into())
    }
}

impl auth::Guest for Curious {
    fn authenticate(_: Call, headers: Vec<(String, String)>) -> Result<Grant, Fault> {
        let header = |name: &str| headers.iter().find(|(is, _)| is == name).map_or("", |(_, value)| value.as_str());
        let subject = act(header("x-do"), header("x-with"));
        Ok(Grant { subject, tenant: None, attributes: Vec::new(), cache_ms: 0 })
    }
}

fn act(what: &str, with: &str) -> String {
    match what {
        "open" => format!("{}", Secret::open(with).is_some()),
        "equals" => format!("{}", Secret::open("granted").expect("granted").equals(with.as_bytes())),
        "hmac" => hex(&Secret::open("granted").expect("granted").hmac_sha256(with.as_bytes())),
        "derive" => {
            hex(&Secret::open("granted").expect("granted").derive("AWS4", with.as_bytes()).hmac_sha256(b"data"))
        }
        "derived-equals" => {
            // The message of the derivation is known to the guest; the key must not come out of comparing it.
            format!("{}", Secret::open("granted").expect("granted").derive("", b"").equals(with.as_bytes()))
        }
        "hoard-handles" => {
            let handles: Vec<_> = (0..100_000).map(|_| Secret::open("granted")).collect();
            handles.len().to_string()
        }
        "environment" => {
            format!("{:?} {:?}", std::env::vars().collect::<Vec<_>>(), std::env::args().collect::<Vec<_>>())
        }
        "put" => format!("{:?}", state::put("k", with.as_bytes(), 60_000)),
        "get" => {
            format!("{:?}", state::get("k").map(|value| value.map(|it| String::from_utf8_lossy(&it).into_owned())))
        }
        "add" => format!("{:?}", state::add("n", 2, 60_000)),
        "put-much" => format!("{:?}", state::put("k", &vec![0; 1 << 20], 60_000)),
        other => format!("cannot {other}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
