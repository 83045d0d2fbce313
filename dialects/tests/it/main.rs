// SPDX-License-Identifier: Apache-2.0
//! Promises of the dialects, kept against recorded traffic that lies outside this repository.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests: helpers, too, fail by panicking, and skip loudly"
)]

mod anthropic;
mod bedrock;
mod cohere;
mod cohere_cases;
mod completions;
mod framing;
mod gemini;
mod openai_chat;
mod openai_chat_cases;
mod recordings;
mod responses;
mod splice;
mod tasks;
mod tasks_cases;
