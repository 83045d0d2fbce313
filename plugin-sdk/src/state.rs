// SPDX-License-Identifier: Apache-2.0
//! Values that outlive an instance, in a namespace of the plugin's own. Open to auth plugins.

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateError {
    /// The store cannot be reached now.
    Unavailable(String),
    /// Key or value is over this limit, in bytes.
    TooLarge(u64),
    /// Anything else.
    Other(String),
}

/// The value of a key; none if there is none or it has expired.
///
/// # Errors
/// See [`StateError`].
pub fn value(key: &str) -> Result<Option<Vec<u8>>, StateError> {
    imp::value(key)
}

/// Sets a value that expires after `ttl_ms` milliseconds.
///
/// # Errors
/// See [`StateError`].
pub fn put(key: &str, value: &[u8], ttl_ms: u64) -> Result<(), StateError> {
    imp::put(key, value, ttl_ms)
}

/// Adds to a number (0 if there is none) and answers with the sum. The time to live starts with the first add.
///
/// # Errors
/// See [`StateError`].
pub fn add(key: &str, delta: i64, ttl_ms: u64) -> Result<i64, StateError> {
    imp::add(key, delta, ttl_ms)
}

#[cfg(target_arch = "wasm32")]
mod imp {
    use super::StateError;
    use crate::guest::bindings::state;

    impl From<state::Error> for StateError {
        fn from(error: state::Error) -> Self {
            match error {
                state::Error::Unavailable(why) => Self::Unavailable(why),
                state::Error::TooLarge(limit) => Self::TooLarge(limit),
                state::Error::Other(why) => Self::Other(why),
            }
        }
    }

    pub(super) fn value(key: &str) -> Result<Option<Vec<u8>>, StateError> {
        Ok(state::get(key)?)
    }

    pub(super) fn put(key: &str, value: &[u8], ttl_ms: u64) -> Result<(), StateError> {
        Ok(state::put(key, value, ttl_ms)?)
    }

    pub(super) fn add(key: &str, delta: i64, ttl_ms: u64) -> Result<i64, StateError> {
        Ok(state::add(key, delta, ttl_ms)?)
    }
}

/// In a native test values live as long as the test's thread, and no time passes.
#[cfg(not(target_arch = "wasm32"))]
mod imp {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::StateError;

    thread_local! {
        static VALUES: RefCell<BTreeMap<String, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
    }

    pub(super) fn value(key: &str) -> Result<Option<Vec<u8>>, StateError> {
        Ok(VALUES.with_borrow(|values| values.get(key).cloned()))
    }

    pub(super) fn put(key: &str, value: &[u8], _ttl_ms: u64) -> Result<(), StateError> {
        VALUES.with_borrow_mut(|values| values.insert(key.to_owned(), value.to_owned()));
        Ok(())
    }

    pub(super) fn add(key: &str, delta: i64, ttl_ms: u64) -> Result<i64, StateError> {
        let number = value(key)?.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(|text| text.parse().ok());
        let sum = number.unwrap_or(0_i64).saturating_add(delta);
        put(key, sum.to_string().as_bytes(), ttl_ms)?;
        Ok(sum)
    }
}
