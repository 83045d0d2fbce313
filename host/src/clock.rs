// SPDX-License-Identifier: Apache-2.0
//! The time of day, and spans of time, as whole numbers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, in seconds since 1970.
#[must_use]
pub fn unix_s() -> u64 {
    since_1970().as_secs()
}

/// Now, in milliseconds since 1970.
#[must_use]
pub fn unix_ms() -> u64 {
    millis(since_1970())
}

/// Since 1970; nothing for a clock that stands before.
#[must_use]
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Whole milliseconds.
#[must_use]
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
