// SPDX-License-Identifier: Apache-2.0
//! Promises of the dialects, kept against recorded traffic that lies outside this repository.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking, and says aloud what it skips"
)]

mod anthropic;
mod framing;
mod openai_chat;
mod recordings;
mod splice;
