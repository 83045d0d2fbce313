// SPDX-License-Identifier: Apache-2.0
//! What a conversation over a WebSocket costs, read as it passes.

use penstock_dialects::codec::Codec;
use penstock_dialects::ir::Usage;

use super::frames::Messages;

/// Reads the usage that a vendor tells in the messages of a conversation.
pub struct Meter {
    messages: Messages,
    dialect: &'static dyn Codec,
    usage: Option<Usage>,
}

impl Meter {
    /// A meter of a conversation in this dialect.
    #[must_use]
    pub fn new(dialect: &'static dyn Codec) -> Self {
        Self { messages: Messages::default(), dialect, usage: None }
    }

    /// Bytes that go to the caller.
    pub fn see(&mut self, bytes: &[u8]) {
        let Self { messages, dialect, usage } = self;
        messages.feed(bytes, &mut |message| {
            if let Some(more) = dialect.realtime_usage(message) {
                usage.get_or_insert_default().add(&more);
            }
        });
    }

    /// The usage of the whole conversation.
    #[must_use]
    pub fn usage(self) -> Option<Usage> {
        self.usage
    }
}
