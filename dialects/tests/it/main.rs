// SPDX-License-Identifier: Apache-2.0
//! One test binary; a file per topic.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking, and says aloud what it skips"
)]

mod anthropic;
