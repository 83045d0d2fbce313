// SPDX-License-Identifier: Apache-2.0
//! Promises of the dialects, kept against recorded traffic that lies outside this repository.

mod anthropic;
mod framing;
mod openai_chat;
mod recordings;
mod splice;
