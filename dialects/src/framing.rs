// SPDX-License-Identifier: Apache-2.0
//! Cuts a stream of bytes into frames: server-sent events, JSON lines. One audited parser for the host, the test kit and
//! the conformance run; no adapter ever sees half a frame or half a character.

/// One frame of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Event name, empty if none.
    pub name: &'a str,
    /// Payload.
    pub data: &'a [u8],
}
