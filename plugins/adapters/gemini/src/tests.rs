// SPDX-License-Identifier: Apache-2.0
//! Promises of the adapter. The private key in `tests/` was made for them and opens nothing.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use penstock_sdk::testkit::{grant, run_cases};
use ring::rand::SystemRandom;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde_json::{Value, json};

use super::{Adapter, Body, Credentials, FaultClass, Gemini, Options, Publisher, Vertex};

const PEM: &str = include_str!("../tests/service-account.pem");

#[test]
fn golden_cases_pass() {
    run_cases::<Gemini>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
}

fn vertex() -> Options {
    let vertex = Vertex {
        project: "p".to_owned(),
        location: "us-central1".to_owned(),
        publisher: Publisher::Google,
        client_email: "account@p.iam.gserviceaccount.com".to_owned(),
    };
    Options { vertex: Some(vertex) }
}

#[test]
fn a_token_is_asked_for_with_a_claim_that_the_account_has_signed() {
    grant([("key", PEM)]);
    let adapter = Gemini::new(vertex()).expect("a configuration");
    let fetching = adapter.fetch(1_700_000_000).expect("no fault").expect("a credential");
    assert_eq!((fetching.request.endpoint.as_str(), fetching.request.path.as_str()), ("token", "/token"));
    let Body::Bytes(form) = &fetching.request.body else { panic!("a form") };
    let form = std::str::from_utf8(form).expect("text");
    let start = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
    let assertion = form.strip_prefix(start).expect("the grant");
    let (signed, signature) = assertion.rsplit_once('.').expect("a signature");
    let (header, claims) = signed.split_once('.').expect("claims");
    let part = |text: &str| -> Value {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).expect("base64")).expect("JSON")
    };
    assert_eq!(part(header), json!({"alg": "RS256", "typ": "JWT"}));
    let expected = json!({
        "iss": "account@p.iam.gserviceaccount.com",
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "aud": "https://oauth2.googleapis.com/token",
        "iat": 1_700_000_000,
        "exp": 1_700_003_600,
    });
    assert_eq!(part(claims), expected);
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).expect("base64");
    let public = public_key();
    public.verify(signed.as_bytes(), &signature).expect("a signature of the account");
    assert!(public.verify(b"something else", &signature).is_err());
}

/// The public half of the key, and that it is the half of a pair that works.
fn public_key() -> UnparsedPublicKey<Vec<u8>> {
    let lines: String = PEM.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = base64::prelude::BASE64_STANDARD.decode(lines).expect("base64");
    let pair = RsaKeyPair::from_pkcs8(&der).expect("a key");
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), b"x", &mut signature).expect("a signature");
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref().to_vec())
}

#[test]
fn a_key_that_cannot_sign_is_told_without_its_text() {
    grant([("key", "not-a-private-key")]);
    let fault = Gemini::new(vertex()).expect("a configuration").fetch(0).expect_err("a fault");
    assert_eq!(fault.class, FaultClass::Authentication);
    assert!(!fault.message.contains("not-a-private-key"));
}

#[test]
fn ai_studio_needs_no_token() {
    grant([("key", "an api key")]);
    let adapter = Gemini::new(Options { vertex: None }).expect("a configuration");
    assert_eq!(adapter.fetch(0), Ok(None));
}
