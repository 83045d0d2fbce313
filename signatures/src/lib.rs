// SPDX-License-Identifier: Apache-2.0
//! Checks signatures of JOSE (RFC 7515, RFC 7518, RFC 8037): under a public key as a JWK with [`verify`], under a shared
//! secret with [`verify_hmac`].
//!
//! The cryptography is ring's. What stands here is what a library cannot know: that a key is used with the one algorithm
//! that it is for, that it is for signatures, that it is strong enough, and that nobody's public key is taken for a secret.
//! ES512 is not there, since ring has no P-521; ES256K and RSA below 2048 bits are not wanted.

mod jwk;
mod roca;

use ring::{hmac, signature};

use jwk::Jwk;

/// Shortest RSA modulus, in bits (RFC 7518 section 3.3).
const RSA_BITS_MIN: usize = 2048;
/// Longest RSA modulus, in bits: what ring takes; the cost grows with the square.
const RSA_BITS_MAX: usize = 8192;

/// Why a key cannot be used for a signature. Says nothing of what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The name of the algorithm is none of those that are there.
    #[error("the algorithm is none that is known here")]
    Algorithm,
    /// What should be a key is none.
    #[error("the key is no public key as a JWK: {0}")]
    Malformed(&'static str),
    /// The key is for something else.
    #[error("the key is not for this: {0}")]
    OtherUse(&'static str),
    /// The key is too weak, or too large.
    #[error("the key is not taken: {0}")]
    Weak(&'static str),
}

/// Whether a signature over a message is that of a public key. `algorithm` is a name of RFC 7518 section 3.1 or RFC 8037:
/// RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, `EdDSA` (of curve Ed25519).
///
/// # Errors
/// If the key must not be used with this algorithm.
pub fn verify(algorithm: &str, jwk: &str, message: &[u8], signature: &[u8]) -> Result<bool, Unusable> {
    let wanted = Asymmetric::of_name(algorithm).ok_or(Unusable::Algorithm)?;
    let jwk: Jwk<'_> = serde_json::from_str(jwk).map_err(|_| Unusable::Malformed("its members"))?;
    jwk.check_use(algorithm)?;
    let valid = match wanted {
        Asymmetric::Rsa(parameters) => {
            let (n, e) = jwk.rsa()?;
            let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
            if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
                return Err(Unusable::Weak("an RSA modulus has 2048 to 8192 bits"));
            }
            if roca::is_weak(&n) {
                return Err(Unusable::Weak("the RSA modulus was made by a generator that is broken (CVE-2017-15361)"));
            }
            signature::RsaPublicKeyComponents { n: &n, e: &e }.verify(parameters, message, signature)
        }
        Asymmetric::Ec { curve, bytes, parameters } => {
            let point = jwk.point(curve, bytes)?;
            signature::UnparsedPublicKey::new(parameters, point).verify(message, signature)
        }
        Asymmetric::Ed25519 => {
            let key = jwk.edwards()?;
            signature::UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature)
        }
    };
    Ok(valid.is_ok())
}

/// Whether a tag over a message is that of a shared secret, compared in constant time. `algorithm` is HS256, HS384 or HS512.
///
/// # Errors
/// If the secret is shorter than a tag (RFC 7518 section 3.2), or is a public key: whoever has that could sign.
pub fn verify_hmac(algorithm: &str, secret: &[u8], message: &[u8], tag: &[u8]) -> Result<bool, Unusable> {
    let algorithm = match algorithm {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => return Err(Unusable::Algorithm),
    };
    if secret.len() < algorithm.digest_algorithm().output_len() {
        return Err(Unusable::Weak("a shared secret is at least as long as the hash"));
    }
    let text = secret.trim_ascii_start();
    if text.starts_with(b"-----BEGIN") || text.starts_with(b"ssh-") || text.starts_with(b"{") {
        return Err(Unusable::OtherUse("it is no shared secret but a key of another kind"));
    }
    Ok(hmac::verify(&hmac::Key::new(algorithm, secret), message, tag).is_ok())
}

/// An algorithm with a public key.
enum Asymmetric {
    Rsa(&'static signature::RsaParameters),
    Ec { curve: &'static str, bytes: usize, parameters: &'static dyn signature::VerificationAlgorithm },
    Ed25519,
}

impl Asymmetric {
    fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            "PS384" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            "PS512" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            "ES256" => Self::Ec { curve: "P-256", bytes: 32, parameters: &signature::ECDSA_P256_SHA256_FIXED },
            "ES384" => Self::Ec { curve: "P-384", bytes: 48, parameters: &signature::ECDSA_P384_SHA384_FIXED },
            "EdDSA" => Self::Ed25519,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

    use super::*;

    fn text(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// A key of P-256 as a JWK with further members, and a signature of it over "message".
    fn signed(members: &str) -> (String, Vec<u8>) {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = (text(&point[1..33]), text(&point[33..]));
        let jwk = format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"{members}}}"#);
        (jwk, pair.sign(&random, b"message").unwrap().as_ref().to_vec())
    }

    #[test]
    fn a_signature_is_that_of_the_key_over_the_message_or_it_is_none() {
        let (jwk, signature) = signed("");
        assert_eq!(verify("ES256", &jwk, b"message", &signature), Ok(true));
        assert_eq!(verify("ES256", &jwk, b"massage", &signature), Ok(false));
        assert_eq!(verify("ES256", &signed("").0, b"message", &signature), Ok(false));
        assert_eq!(verify("ES256", &jwk, b"message", &[0; 64]), Ok(false), "CVE-2022-21449");
        assert_eq!(verify("ES256", &jwk, b"message", &[]), Ok(false));
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, text(pair.public_key().as_ref()));
        assert_eq!(verify("EdDSA", &jwk, b"message", pair.sign(b"message").as_ref()), Ok(true));
        assert_eq!(verify("EdDSA", &jwk, b"massage", pair.sign(b"message").as_ref()), Ok(false));
    }

    #[test]
    fn a_key_is_used_for_what_it_is_for_and_nothing_else() {
        for members in
            ["", r#","use":"sig""#, r#","alg":"ES256","key_ops":["verify"]"#, r#","kid":"a\u0062","x5t":"b""#]
        {
            let (jwk, signature) = signed(members);
            assert_eq!(verify("ES256", &jwk, b"message", &signature), Ok(true), "{members}");
            for other in ["ES384", "RS256", "PS256", "EdDSA", "HS256", "none", "", "es256", "ES512", "ES256K"] {
                assert!(verify(other, &jwk, b"message", &signature).is_err(), "{other}");
            }
        }
        for members in
            [r#","use":"enc""#, r#","alg":"ES384""#, r#","key_ops":["sign"]"#, r#","key_ops":[]"#, r#","kty":"EC""#]
        {
            let (jwk, signature) = signed(members);
            assert!(verify("ES256", &jwk, b"message", &signature).is_err(), "{members}");
        }
        let (jwk, signature) = signed("");
        for (from, to) in [("P-256", "P-384"), ("EC", "RSA"), ("\"x\":\"", "\"x\":\"A"), ("\"y\"", "\"z\"")] {
            assert!(verify("ES256", &jwk.replace(from, to), b"message", &signature).is_err(), "{from} {to}");
        }
    }

    #[test]
    fn a_shared_secret_is_long_enough_and_nobodys_public_key() {
        let secret = [b'k'; 64];
        for (name, algorithm) in
            [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
        {
            let tag = hmac::sign(&hmac::Key::new(algorithm, &secret), b"message");
            assert_eq!(verify_hmac(name, &secret, b"message", tag.as_ref()), Ok(true));
            assert_eq!(verify_hmac(name, &secret, b"massage", tag.as_ref()), Ok(false));
            assert_eq!(verify_hmac(name, &secret, b"message", &tag.as_ref()[1..]), Ok(false));
            let length = tag.as_ref().len();
            assert!(verify_hmac(name, &secret[..length - 1], b"message", b"").is_err(), "{name}");
        }
        assert!(verify_hmac("RS256", &secret, b"message", b"").is_err());
        let public = b"-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA\n";
        assert!(verify_hmac("HS256", public, b"message", b"").is_err());
        assert!(
            verify_hmac("HS256", br#" {"kty":"RSA","n":"AAAAAAAAAAAAAAAAAAAA","e":"AQAB"}"#, b"message", b"").is_err()
        );
    }
}
