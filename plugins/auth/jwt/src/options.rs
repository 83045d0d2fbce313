// SPDX-License-Identifier: Apache-2.0
//! What operators say of the issuers that they trust.

use penstock_sdk::claims::Mapping;
use penstock_sdk::config::Value;
use penstock_sdk::prelude::{Config, Issue, Secret};

use crate::jws::{Key, public_key};

/// Algorithms with a public key that are there (RFC 7518, RFC 8037).
const PUBLIC: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
/// Algorithms with a shared secret.
const SHARED: [&str; 3] = ["HS256", "HS384", "HS512"];

/// The configuration.
#[derive(Debug, Config)]
pub struct Options {
    /// Who may have made a token.
    #[config(min = 1)]
    pub(crate) issuers: Vec<Issuer>,
    /// By how many seconds clocks may differ.
    #[config(default = 30, max = 300)]
    pub(crate) leeway_s: u64,
    /// How long the host may go on letting a token in without asking, in milliseconds; never beyond its end.
    #[config(default = 60000)]
    pub(crate) cache_ms: u32,
}

/// Somebody who makes tokens. Its keys are at an endpoint of the policy, in `keys`, or are shared `secrets`.
#[derive(Debug, Config)]
pub struct Issuer {
    /// The claim `iss` of its tokens, to the letter.
    #[config(min = 1)]
    pub(crate) issuer: String,
    /// The claim `aud` must be or hold one of these: what the issuer calls this gateway. `["*"]` takes tokens for anybody.
    #[config(min = 1)]
    pub(crate) audiences: Vec<String>,
    /// Algorithms that are taken: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, `EdDSA`, or with `secrets` HS256, HS384,
    /// HS512. All that have a public key by default.
    #[config(default)]
    pub(crate) algorithms: Vec<String>,
    /// Name of the endpoint where the set of its keys is (JWKS), in the policy's `endpoints`.
    #[config(default = "keys", min = 1)]
    pub(crate) endpoint: String,
    /// The endpoint is the issuer itself, and says in `/.well-known/openid-configuration` where its keys are; they must be below
    /// it.
    #[config(default = false)]
    pub(crate) discovery: bool,
    /// Its keys as JWKs, instead of those at an endpoint.
    #[config(default)]
    pub(crate) keys: Vec<Value>,
    /// Secrets that are shared with it, instead of public keys.
    #[config(default)]
    pub(crate) secrets: Vec<Shared>,
    /// Values of the header parameter `typ` that are taken, such as `at+jwt`; any if empty.
    #[config(default)]
    pub(crate) types: Vec<String>,
    /// Whether a token must say when it ends.
    #[config(default = true)]
    pub(crate) expiry_required: bool,
    /// How old a token may be at most, in seconds by its claim `iat`.
    #[config(min = 1)]
    pub(crate) age_s_max: Option<u64>,
    /// How long its keys are believed, in seconds; they are asked for again at half of that.
    #[config(default = 3600, min = 1)]
    pub(crate) keys_age_s_max: u64,
    /// How long its keys are believed while it is away, in seconds.
    #[config(default = 86400)]
    pub(crate) keys_stale_s: u64,
    /// What becomes of its claims.
    #[config(default)]
    pub(crate) claims: Mapping,
}

/// A shared secret.
#[derive(Debug, Config)]
pub struct Shared {
    /// Name under which it is granted. It has at least as many bytes as the hash: 32, 48 or 64.
    #[config(min = 1)]
    secret: String,
    /// The `kid` of its tokens; any if none is given.
    kid: Option<String>,
}

impl Issuer {
    /// Its keys that are in the configuration, none if they are elsewhere; what is wrong goes to `issues`.
    pub(crate) fn fixed_keys(&self, index: usize, issues: &mut Vec<Issue>) -> Option<Vec<Key>> {
        let mut issue = |at: &str, message: String| issues.push(Issue::new(format!("issuers[{index}].{at}"), message));
        if !self.secrets.is_empty() && (!self.keys.is_empty() || self.discovery) {
            issue(
                "secrets",
                "give either secrets or public keys: with both, one could be taken for the other".to_owned(),
            );
        }
        let known: &[&str] = if self.secrets.is_empty() { &PUBLIC } else { &SHARED };
        for (at, algorithm) in self.algorithms.iter().enumerate() {
            if !known.contains(&algorithm.as_str()) {
                issue(&format!("algorithms[{at}]"), format!("not one of {}", known.join(", ")));
            }
        }
        let mut keys = Vec::new();
        for (at, jwk) in self.keys.iter().enumerate() {
            match public_key(jwk) {
                Some(key) => keys.push(key),
                None => issue(&format!("keys[{at}]"), "not a public key as a JWK: kty is RSA, EC or OKP".to_owned()),
            }
        }
        for (at, shared) in self.secrets.iter().enumerate() {
            let before = self.secrets.get(..at).unwrap_or_default();
            if before.iter().any(|other| other.kid == shared.kid) {
                issue(
                    &format!("secrets[{at}].kid"),
                    "another secret has the same: give each a kid of its own".to_owned(),
                );
            }
            match Secret::open(&shared.secret) {
                Some(secret) => keys.push(Key::Shared { kid: shared.kid.clone(), secret }),
                None => {
                    let message = format!("no secret `{}` is granted: add it to the plugin's `secrets`", shared.secret);
                    issue(&format!("secrets[{at}].secret"), message);
                }
            }
        }
        (!self.keys.is_empty() || !self.secrets.is_empty()).then_some(keys)
    }

    /// Whether an algorithm is taken.
    pub(crate) fn takes(&self, algorithm: &str) -> bool {
        if self.algorithms.is_empty() {
            let known: &[&str] = if self.secrets.is_empty() { &PUBLIC } else { &SHARED };
            return known.contains(&algorithm);
        }
        self.algorithms.iter().any(|known| known == algorithm)
    }

    /// Whether one of these audiences is ours.
    pub(crate) fn takes_all_audiences(&self) -> bool {
        self.audiences.iter().any(|audience| audience == "*")
    }
}
