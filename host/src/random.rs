// SPDX-License-Identifier: Apache-2.0
//! Random numbers for ids, markers and routing: fast, seeded by the operating system once for each thread. Not for keys;
//! those come from the operating system directly.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish() | 1);
}

/// A random number (`SplitMix64`, Steele et al. 2014).
#[must_use]
pub fn u64() -> u64 {
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// The 96 random bits of an id.
#[must_use]
pub fn bytes() -> [u8; 12] {
    let mut bytes = [0; 12];
    let [first, second] = [u64(), u64()].map(u64::to_be_bytes);
    bytes[..8].copy_from_slice(&first);
    bytes[8..].copy_from_slice(&second[..4]);
    bytes
}

/// A random number below `bound`, 0 for a bound of 0. The bias of the multiplication is at most `bound` / 2^64.
#[must_use]
pub fn below(bound: u64) -> u64 {
    let wide = u128::from(u64()) * u128::from(bound);
    u64::try_from(wide >> 64).unwrap_or(0)
}
