// SPDX-License-Identifier: Apache-2.0
//! Values that plugins keep, one [`Space`] for each namespace, so that no plugin can push out another one's.

use std::sync::Mutex;
use std::sync::PoisonError;

use super::recent::{KeyRef, Recent};

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// Values of one plugin; past it the least recently used one goes first.
const VALUES_MAX: usize = 65_536;
/// All keys and values of one plugin, in bytes.
const SPACE_BYTES_MAX: usize = 16 << 20;

/// A key or a value is over its limit, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("over the limit of {0} bytes")]
pub struct TooLarge(pub u64);

/// The values of one namespace. Times are milliseconds of the owner's clock.
pub(super) struct Space {
    values: Recent<Mutex<Value>>,
}

#[derive(Default)]
struct Value {
    content: Content,
    expires_ms: u64,
}

#[derive(Default)]
enum Content {
    #[default]
    None,
    Number(i64),
    Bytes(Vec<u8>),
}

impl Space {
    pub(super) fn new() -> Self {
        Self { values: Recent::new(VALUES_MAX, SPACE_BYTES_MAX) }
    }

    pub(super) fn get(&self, key: &str, now_ms: u64) -> Option<Vec<u8>> {
        let value = self.values.get(KeyRef(key, 0))?;
        let value = value.lock().unwrap_or_else(PoisonError::into_inner);
        match &value.content {
            _ if value.expires_ms <= now_ms => None,
            Content::None => None,
            Content::Number(number) => Some(number.to_string().into_bytes()),
            Content::Bytes(bytes) => Some(bytes.clone()),
        }
    }

    pub(super) fn put(&self, key: &str, value: Vec<u8>, ttl_ms: u64, now_ms: u64) -> Result<(), TooLarge> {
        check_key(key)?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(TooLarge(VALUE_BYTES_MAX as u64));
        }
        let weight = key.len() + value.len();
        let value = Value { content: Content::Bytes(value), expires_ms: now_ms.saturating_add(ttl_ms) };
        self.values.insert(KeyRef(key, 0), Mutex::new(value), weight);
        Ok(())
    }

    pub(super) fn add(&self, key: &str, delta: i64, ttl_ms: u64, now_ms: u64) -> Result<i64, TooLarge> {
        check_key(key)?;
        let value = self.values.get_or_insert_with(KeyRef(key, 0), Mutex::default);
        let mut value = value.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match &value.content {
            _ if value.expires_ms <= now_ms => None,
            Content::None => None,
            Content::Number(number) => Some(*number),
            Content::Bytes(bytes) => std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()),
        };
        if number.is_none() {
            value.expires_ms = now_ms.saturating_add(ttl_ms);
        }
        let sum = number.unwrap_or(0).saturating_add(delta);
        value.content = Content::Number(sum);
        Ok(sum)
    }
}

fn check_key(key: &str) -> Result<(), TooLarge> {
    if key.len() > KEY_BYTES_MAX { Err(TooLarge(KEY_BYTES_MAX as u64)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_expire_and_numbers_add() {
        let space = Space::new();
        space.put("k", b"v".to_vec(), 10, 0).expect("fits");
        assert_eq!(space.get("k", 9).as_deref(), Some(&b"v"[..]));
        assert_eq!(space.get("k", 10), None);
        assert_eq!(space.add("n", 2, 10, 0), Ok(2));
        assert_eq!(space.add("n", 3, 1000, 5), Ok(5), "the time to live starts with the first add");
        assert_eq!(space.get("n", 9).as_deref(), Some(&b"5"[..]));
        assert_eq!(space.add("n", 1, 10, 10), Ok(1), "expired");
        assert_eq!(space.add("n", i64::MAX, 10, 10), Ok(i64::MAX), "never wraps");
    }

    #[test]
    fn keys_and_values_have_limits() {
        let space = Space::new();
        assert_eq!(space.put(&"k".repeat(513), vec![], 1, 0), Err(TooLarge(512)));
        assert_eq!(space.put("k", vec![0; VALUE_BYTES_MAX + 1], 1, 0), Err(TooLarge(65_536)));
        assert_eq!(space.add(&"k".repeat(513), 1, 1, 0), Err(TooLarge(512)));
    }
}
