// SPDX-License-Identifier: Apache-2.0
//! Secrets that the operator granted. A plugin can compare one, sign with one or name one in an upstream request; nothing
//! returns its text.

/// A granted secret.
#[derive(Debug)]
pub struct Secret(imp::Secret);

impl Secret {
    /// The secret that was granted under this name; none if none was: report that as an issue from `new`.
    #[must_use]
    pub fn open(name: &str) -> Option<Self> {
        imp::open(name).map(Self)
    }

    /// Whether the secret equals these bytes, compared in constant time.
    #[must_use]
    pub fn equals(&self, candidate: &[u8]) -> bool {
        self.0.equals(candidate)
    }

    /// HMAC-SHA-256 of `data` under this secret. The tag is public.
    #[must_use]
    pub fn hmac_sha256(&self, data: &[u8]) -> Vec<u8> {
        self.0.hmac_sha256(data)
    }

    /// HMAC-SHA-256 as a new secret: the key is `prefix` followed by this secret, the message is `data`.
    #[must_use]
    pub fn derive(&self, prefix: &str, data: &[u8]) -> Self {
        Self(self.0.derive(prefix, data))
    }

    /// SHA-256 of `prefix`, this secret and `suffix`, for signatures over a text in which a secret stands. The digest is
    /// public.
    #[must_use]
    pub fn digest(&self, prefix: &[u8], suffix: &[u8]) -> Vec<u8> {
        self.0.digest(prefix, suffix)
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256 (JWS "RS256") under a private key in PEM; none if the secret is no such key.
    #[must_use]
    pub fn rs256(&self, data: &[u8]) -> Option<Vec<u8>> {
        self.0.rs256(data)
    }

    /// Whether a tag over `data` is that of this secret, compared in constant time. `algorithm` is HS256, HS384 or HS512.
    ///
    /// # Errors
    /// Why the secret must not be used so: it is shorter than the tag, or a key of another kind.
    pub fn verify_hmac(&self, algorithm: &str, data: &[u8], tag: &[u8]) -> Result<bool, String> {
        self.0.verify_hmac(algorithm, data, tag)
    }
}

#[cfg(target_arch = "wasm32")]
mod imp {
    pub(super) use crate::guest::bindings::secrets::Secret;

    pub(super) fn open(name: &str) -> Option<Secret> {
        Secret::open(name)
    }
}

/// In a native test the golden case grants secrets.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod imp {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use hmac::{Hmac, KeyInit, Mac};
    use ring::rand::SystemRandom;
    use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
    use rustls_pki_types::PrivateKeyDer;
    use rustls_pki_types::pem::PemObject;
    use sha2::{Digest, Sha256};

    #[derive(Debug)]
    pub(crate) struct Secret(Vec<u8>);

    thread_local! {
        static GRANTED: RefCell<BTreeMap<String, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Replaces the grants of this thread.
    pub(crate) fn grant(secrets: BTreeMap<String, Vec<u8>>) {
        GRANTED.with(|granted| granted.replace(secrets));
    }

    pub(super) fn open(name: &str) -> Option<Secret> {
        GRANTED.with(|granted| granted.borrow().get(name).map(|bytes| Secret(bytes.clone())))
    }

    impl Secret {
        pub(super) fn equals(&self, candidate: &[u8]) -> bool {
            self.0 == candidate
        }

        pub(super) fn hmac_sha256(&self, data: &[u8]) -> Vec<u8> {
            keyed(&self.0, data)
        }

        pub(super) fn digest(&self, prefix: &[u8], suffix: &[u8]) -> Vec<u8> {
            Sha256::new().chain_update(prefix).chain_update(&self.0).chain_update(suffix).finalize().to_vec()
        }

        pub(super) fn rs256(&self, data: &[u8]) -> Option<Vec<u8>> {
            let key = PrivateKeyDer::from_pem_slice(&self.0).ok()?;
            let pair = match &key {
                PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
                PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
                _ => return None,
            };
            let pair = pair.ok()?;
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), data, &mut signature).ok()?;
            Some(signature)
        }

        pub(super) fn verify_hmac(&self, algorithm: &str, data: &[u8], tag: &[u8]) -> Result<bool, String> {
            penstock_signatures::verify_hmac(algorithm, &self.0, data, tag).map_err(|why| why.to_string())
        }

        pub(super) fn derive(&self, prefix: &str, data: &[u8]) -> Self {
            Self(keyed(&[prefix.as_bytes(), &self.0].concat(), data))
        }
    }

    fn keyed(key: &[u8], data: &[u8]) -> Vec<u8> {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
        mac.update(data);
        mac.finalize().into_bytes().to_vec()
    }
}
