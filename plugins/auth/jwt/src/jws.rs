// SPDX-License-Identifier: Apache-2.0
//! A signed token in its compact form (RFC 7515 section 7.1), read strictly, and the check of its signature.
//!
//! What decides about a key is never in the token: `jku`, `x5u` and `jwk` would let whoever made it choose, and are refused.
//! An algorithm is taken only if the operator has named it, and a key only for the algorithms that fit it (RFC 8725).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use penstock_sdk::claims;
use penstock_sdk::secrets::Secret;
use penstock_sdk::signatures;
use serde_json::{Map, Value};

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Longest name of a key, in bytes.
const KID_BYTES_MAX: usize = 512;
/// Keys that are tried for one token.
const KEYS_TRIED_MAX: usize = 8;
/// Header parameters that change what a token is or where its key comes from.
const REFUSED: [&str; 8] = ["crit", "b64", "zip", "enc", "jku", "x5u", "jwk", "x5c"];

/// A token that was taken apart; nothing of it is to be believed before [`Token::is_signed_by`].
#[derive(Debug)]
pub struct Token<'t> {
    /// Name of the algorithm.
    pub algorithm: String,
    /// Name of the key.
    pub kid: Option<String>,
    /// Media type, as it is written.
    pub kind: Option<String>,
    /// What is signed.
    pub payload: Vec<u8>,
    message: &'t str,
    signature: Vec<u8>,
}

/// What a token may be signed with.
#[derive(Debug)]
pub enum Key {
    /// A public key, as a JWK.
    Public {
        /// Its name.
        kid: Option<String>,
        /// All of it.
        jwk: String,
    },
    /// A shared secret.
    Shared {
        /// Its name.
        kid: Option<String>,
        /// The secret.
        secret: Secret,
    },
}

/// What the keys say of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// One of them has signed it.
    Signed,
    /// One that could have has not.
    Forged,
    /// None of them could have.
    NoKey,
}

impl<'t> Token<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// What is wrong with it, without a byte of it.
    pub fn parse(text: &'t str) -> Result<Self, &'static str> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err("it is longer than 16 KiB");
        }
        let mut parts = text.split('.');
        let (Some(head), Some(body), Some(seal), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("it has not three parts");
        };
        let message = &text[..head.len() + 1 + body.len()];
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| "a part of it is no base64url");
        let header = claims::object(&bytes(head)?)?;
        if REFUSED.iter().any(|name| header.contains_key(*name)) {
            return Err("its header has a parameter that is not taken here");
        }
        let algorithm = text_of(&header, "alg")?.ok_or("its header names no algorithm")?;
        let kid = text_of(&header, "kid")?;
        if kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
            return Err("the name of its key is too long");
        }
        let signature = bytes(seal)?;
        if signature.is_empty() {
            return Err("it is not signed");
        }
        Ok(Self { algorithm, kid, kind: text_of(&header, "typ")?, payload: bytes(body)?, message, signature })
    }

    /// What these keys say of it. A key with a name is asked only for a token that names it, or none.
    #[must_use]
    pub fn is_signed_by(&self, keys: &[Key]) -> Verdict {
        let mut verdict = Verdict::NoKey;
        let mut tried = 0;
        for key in keys {
            let kid = match key {
                Key::Public { kid, .. } | Key::Shared { kid, .. } => kid,
            };
            if self.kid.is_some() && kid.is_some() && self.kid != *kid || tried == KEYS_TRIED_MAX {
                continue;
            }
            let (message, seal) = (self.message.as_bytes(), &self.signature);
            let signed = match key {
                Key::Public { jwk, .. } => signatures::verify(&self.algorithm, jwk, message, seal),
                Key::Shared { secret, .. } => secret.verify_hmac(&self.algorithm, message, seal),
            };
            match signed {
                Ok(true) => return Verdict::Signed,
                Ok(false) => {
                    tried += 1;
                    verdict = Verdict::Forged;
                }
                Err(_) => {} // not a key for this algorithm
            }
        }
        verdict
    }
}

/// The public keys of a set (RFC 7517 section 5). Shared secrets in it are left out: who can read the set could sign.
///
/// # Errors
/// If it is no set of keys.
pub fn key_set(json: &[u8]) -> Result<Vec<Key>, &'static str> {
    let set = claims::object(json)?;
    let Some(Value::Array(keys)) = set.get("keys") else { return Err("it has no list of keys") };
    Ok(keys.iter().filter_map(public_key).collect())
}

/// A public key; none if it is something else.
#[must_use]
pub fn public_key(jwk: &Value) -> Option<Key> {
    let members = jwk.as_object()?;
    let kid = text_of(members, "kid").ok()?;
    let is_public = matches!(members.get("kty")?.as_str()?, "RSA" | "EC" | "OKP");
    is_public.then(|| Key::Public { kid, jwk: jwk.to_string() })
}

fn text_of(members: &Map<String, Value>, name: &str) -> Result<Option<String>, &'static str> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err("a parameter of its header is no text"),
    }
}
