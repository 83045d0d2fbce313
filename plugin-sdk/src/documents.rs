// SPDX-License-Identifier: Apache-2.0
//! What an auth plugin must ask somebody else for: the keys of an issuer, what it thinks of a token. The plugin states what
//! it must know; the host knows it, or asks and calls the plugin again. Open to auth plugins.

use penstock_dialects::ir::{Fault, FaultClass};

use crate::adapter::Upstream;

/// What was answered to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
    /// The same for the same body: what was made of it may be kept by this.
    pub version: u64,
    /// How old it is, in milliseconds.
    pub age_ms: u64,
}

/// The answer to this request, if the host has one that is at most `max_age_ms` old, or while whoever is asked is away one that
/// is at most `or_stale_ms` old.
///
/// # Errors
/// If there is none. Let `authenticate` return this fault: the host asks, and calls again.
pub fn read(request: &Upstream, max_age_ms: u64, or_stale_ms: u64) -> Result<Document, Fault> {
    let unknown = || Fault::new(FaultClass::Overloaded, "who asks cannot be found out now; try again");
    imp::get(request, max_age_ms, or_stale_ms).ok_or_else(unknown)
}

#[cfg(target_arch = "wasm32")]
mod imp {
    use super::Document;
    use crate::adapter::Upstream;
    use crate::guest::bindings::{documents, requests};

    pub(super) fn get(request: &Upstream, max_age_ms: u64, or_stale_ms: u64) -> Option<Document> {
        let found = documents::get(&requests::Upstream::from(request.clone()), max_age_ms, or_stale_ms)?;
        let documents::Document { status, body, version, age_ms } = found;
        Some(Document { status, body, version, age_ms })
    }
}

/// In a native test there is what the test or the case has put there.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod imp {
    use std::cell::RefCell;
    use std::hash::{DefaultHasher, Hash, Hasher};

    use penstock_vectors::case;
    use serde_json::json;

    use super::Document;
    use crate::adapter::Upstream;

    thread_local! {
        static KNOWN: RefCell<Vec<case::Document>> = const { RefCell::new(Vec::new()) };
    }

    pub(crate) fn give(known: Vec<case::Document>) {
        KNOWN.set(known);
    }

    pub(super) fn get(request: &Upstream, _: u64, _: u64) -> Option<Document> {
        let request = json!(request);
        KNOWN.with_borrow(|known| {
            let found = known.iter().find(|document| document.request == request)?;
            let body = found.bytes();
            let mut hash = DefaultHasher::new();
            body.hash(&mut hash);
            Some(Document { status: found.status, version: hash.finish(), body, age_ms: 0 })
        })
    }
}
