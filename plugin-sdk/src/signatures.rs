// SPDX-License-Identifier: Apache-2.0
//! Checks signatures under public keys; the host does it. Open to auth plugins. Those under shared secrets are checked by
//! [`Secret::verify_hmac`](crate::secrets::Secret::verify_hmac).

/// Whether a signature over a message is that of a public key, a JWK (RFC 7517). `algorithm` is one of RS256, RS384, RS512,
/// PS256, PS384, PS512, ES256, ES384, `EdDSA`.
///
/// # Errors
/// Why the key must not be used with this algorithm: another type, curve, `alg`, `use` or `key_ops`, or too weak.
pub fn verify(algorithm: &str, jwk: &str, message: &[u8], signature: &[u8]) -> Result<bool, String> {
    imp::verify(algorithm, jwk, message, signature)
}

#[cfg(target_arch = "wasm32")]
mod imp {
    pub(super) use crate::guest::bindings::signatures::verify;
}

#[cfg(not(target_arch = "wasm32"))]
mod imp {
    pub(super) fn verify(algorithm: &str, jwk: &str, message: &[u8], signature: &[u8]) -> Result<bool, String> {
        penstock_signatures::verify(algorithm, jwk, message, signature).map_err(|why| why.to_string())
    }
}
