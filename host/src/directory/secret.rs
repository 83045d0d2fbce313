// SPDX-License-Identifier: Apache-2.0
//! Secrets that are only compared: virtual keys and admin tokens. Each is 32 random bytes of the operating system, shown
//! once when it is made; what stays is its SHA-256. A hash without salt is enough, since what it hides cannot be guessed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::document::Kind;
use crate::config::place::hex;
use crate::keys::Secret;
use crate::library::Refused;

/// Random bytes of a secret.
const BYTES: usize = 32;
/// Secrets that one document may have: the one in use, and older ones whose time is not over.
pub(super) const SECRETS_MAX: usize = 4;

/// SHA-256 of a secret.
pub(super) type Sum = [u8; 32];

/// What is kept of a secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Hashed {
    /// SHA-256 in hex.
    sha256: String,
    /// When it was made, in seconds since 1970.
    pub(super) created_unix_s: u64,
    /// From when on it is not accepted, in seconds since 1970; none for the one in use.
    pub(super) valid_until_unix_s: Option<u64>,
}

impl Hashed {
    /// The sum, if it is one.
    pub(super) fn sum(&self) -> Option<Sum> {
        let mut sum = [0; 32];
        if self.sha256.len() != 64 || !self.sha256.is_ascii() {
            return None;
        }
        for (index, byte) in sum.iter_mut().enumerate() {
            *byte = u8::from_str_radix(self.sha256.get(index * 2..index * 2 + 2)?, 16).ok()?;
        }
        Some(sum)
    }

    /// Whether it is accepted at this time.
    pub(super) fn is_valid(&self, now_unix_s: u64) -> bool {
        self.valid_until_unix_s.is_none_or(|until| now_unix_s < until)
    }
}

/// A new secret for a document of this kind, and what is kept of it.
///
/// # Errors
/// The operating system has no random numbers.
pub(super) fn mint(kind: Kind, now_unix_s: u64) -> Result<(Secret, Hashed), Refused> {
    let mut random = [0; BYTES];
    getrandom::fill(&mut random).map_err(|error| Refused::new("internal", error.to_string(), "try again"))?;
    let prefix = if kind == Kind::AdminToken { "pat" } else { "pvk" };
    let text = format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(random));
    let hashed = Hashed { sha256: hex(&sum(text.as_bytes())), created_unix_s: now_unix_s, valid_until_unix_s: None };
    Ok((Secret::new(text.into_bytes()), hashed))
}

/// SHA-256 of what somebody presents.
pub(super) fn sum(presented: &[u8]) -> Sum {
    Sha256::digest(presented).into()
}

/// Whether two sums are the same, in constant time.
pub(super) fn is_same(one: &Sum, other: &Sum) -> bool {
    one.ct_eq(other).into()
}

/// The first half of a sum, which finds the candidates for a comparison of the whole. How long that takes depends on the
/// hash of what was presented, which tells nothing about any secret.
pub(super) fn half(sum: &Sum) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&sum[..16]);
    half
}
