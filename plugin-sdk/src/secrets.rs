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
    use sha2::Sha256;

    #[derive(Debug)]
    pub(crate) struct Secret(Vec<u8>);

    thread_local! {
        static GRANTED: RefCell<BTreeMap<String, String>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Replaces the grants of this thread.
    pub(crate) fn grant(secrets: BTreeMap<String, String>) {
        GRANTED.with(|granted| granted.replace(secrets));
    }

    pub(super) fn open(name: &str) -> Option<Secret> {
        GRANTED.with(|granted| granted.borrow().get(name).map(|text| Secret(text.clone().into_bytes())))
    }

    impl Secret {
        pub(super) fn equals(&self, candidate: &[u8]) -> bool {
            self.0 == candidate
        }

        pub(super) fn hmac_sha256(&self, data: &[u8]) -> Vec<u8> {
            keyed(&self.0, data)
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
