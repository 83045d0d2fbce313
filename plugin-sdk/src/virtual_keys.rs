// SPDX-License-Identifier: Apache-2.0
//! Virtual keys: credentials that operators give to callers by the admin API. Open to auth plugins.

/// The attribute of a grant that binds it to a virtual key: its value is the key's id.
pub const ATTRIBUTE: &str = "virtual-key";

/// A virtual key, as far as a plugin may know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtualKey {
    /// Its id; see [`ATTRIBUTE`].
    pub id: String,
    /// Who the caller is.
    pub subject: String,
    /// The team that it belongs to.
    pub team: Option<String>,
    /// What the operator has noted of it and of its team.
    pub attributes: Vec<(String, String)>,
    /// Why it must not be let in: `expired`, `disabled`, `team-disabled` … A word that is not known is a reason, too.
    pub refusal: Option<String>,
}

/// The key that a caller presents; none if there is no such key.
#[must_use]
pub fn find(presented: &str) -> Option<VirtualKey> {
    imp::find(presented)
}

#[cfg(target_arch = "wasm32")]
mod imp {
    use super::VirtualKey;
    use crate::guest::bindings::virtual_keys;

    pub(super) fn find(presented: &str) -> Option<VirtualKey> {
        let found = virtual_keys::find(presented)?;
        let virtual_keys::VirtualKey { id, subject, team, attributes, refusal } = found;
        Some(VirtualKey { id, subject, team, attributes, refusal })
    }
}

/// In a native test there are the keys that the test has put there.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod imp {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::VirtualKey;

    thread_local! {
        static KEYS: RefCell<BTreeMap<String, VirtualKey>> = const { RefCell::new(BTreeMap::new()) };
    }

    pub(crate) fn put(keys: BTreeMap<String, VirtualKey>) {
        KEYS.set(keys);
    }

    pub(super) fn find(presented: &str) -> Option<VirtualKey> {
        KEYS.with_borrow(|keys| keys.get(presented).cloned())
    }
}
