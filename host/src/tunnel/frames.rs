// SPDX-License-Identifier: Apache-2.0
//! Watches the messages of a WebSocket that passes by (RFC 6455, section 5): cuts one direction into messages and hands the
//! text ones to whoever looks for something in them. It changes nothing, holds no more than one message, and gives up for
//! good on what it does not understand: the bytes go on all the same.

/// Longest message that is looked into.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;

/// Cuts one direction of a WebSocket into messages.
#[derive(Debug, Default)]
pub struct Messages {
    /// Head of a frame that the last bytes did not complete.
    head: Vec<u8>,
    /// Bytes of the current frame that are still to come.
    left: u64,
    /// Key of the current frame, and how far it has been used.
    mask: Option<([u8; 4], usize)>,
    /// Whether the current frame belongs to a text message, and is its last.
    collects: bool,
    last: bool,
    /// Whether the message under way is a text.
    is_text: bool,
    message: Vec<u8>,
    /// The current message is too long to be looked into.
    too_long: bool,
    lost: bool,
}

impl Messages {
    /// Takes the next bytes; every text message that they complete goes to `out`.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut impl FnMut(&[u8])) {
        while !bytes.is_empty() && !self.lost {
            if self.left == 0 {
                self.head.push(bytes[0]);
                bytes = &bytes[1..];
                self.begin(out);
                continue;
            }
            let count = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (piece, rest) = bytes.split_at(count);
            self.take(piece);
            bytes = rest;
            self.left -= count as u64;
            if self.left == 0 {
                self.end(out);
            }
        }
    }

    /// Begins a frame if its head is complete.
    fn begin(&mut self, out: &mut impl FnMut(&[u8])) {
        let [first, second, rest @ ..] = self.head.as_slice() else { return };
        let (extended, masked) = (second & 0x7f, second & 0x80 != 0);
        let length_bytes = match extended {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if rest.len() < length_bytes + if masked { 4 } else { 0 } {
            return;
        }
        let length = match length_bytes {
            0 => u64::from(extended),
            _ => rest[..length_bytes].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let opcode = first & 0x0f;
        // A reserved bit means an extension that was not agreed on here: whatever it does, it is not understood.
        self.lost = first & 0x70 != 0 || length > i64::MAX as u64;
        self.mask = masked.then(|| {
            let mut key = [0; 4];
            key.copy_from_slice(&rest[length_bytes..length_bytes + 4]);
            (key, 0)
        });
        self.last = first & 0x80 != 0;
        if matches!(opcode, TEXT | BINARY) {
            self.is_text = opcode == TEXT;
            self.message.clear();
            self.too_long = false;
        }
        self.collects = matches!(opcode, TEXT | CONTINUATION) && self.is_text;
        self.left = length;
        self.head.clear();
        if length == 0 {
            self.end(out);
        }
    }

    fn take(&mut self, piece: &[u8]) {
        if !self.collects || self.too_long {
            return;
        }
        if self.message.len() + piece.len() > MESSAGE_BYTES_MAX {
            self.too_long = true;
            self.message = Vec::new();
            return;
        }
        match &mut self.mask {
            None => self.message.extend_from_slice(piece),
            Some((key, used)) => {
                self.message.extend(piece.iter().enumerate().map(|(at, byte)| byte ^ key[(*used + at) % 4]));
                *used = (*used + piece.len()) % 4;
            }
        }
    }

    fn end(&mut self, out: &mut impl FnMut(&[u8])) {
        if !self.collects || !self.last {
            return;
        }
        if !self.too_long {
            out(&self.message);
        }
        self.message.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let masked = if mask.is_some() { 0x80 } else { 0 };
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..=125 => frame.push(masked | u8::try_from(length).unwrap()),
            length @ 126..=65_535 => {
                frame.push(masked | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                frame.push(masked | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(mask.into_iter().flatten());
        let key = mask.unwrap_or_default();
        frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
        frame
    }

    fn read(bytes: &[u8], chunk: usize) -> Vec<Vec<u8>> {
        let (mut messages, mut found) = (Messages::default(), Vec::new());
        for piece in bytes.chunks(chunk) {
            messages.feed(piece, &mut |message| found.push(message.to_vec()));
        }
        found
    }

    #[test]
    fn text_messages_are_found_however_they_are_cut() {
        let long = vec![b'x'; 70_000];
        let bytes = [
            frame(0x81, None, b"{\"a\":1}"),
            frame(0x82, None, b"binary"),
            frame(0x01, Some([1, 2, 3, 4]), b"in two "),
            frame(0x89, None, b"a ping between"),
            frame(0x80, Some([9, 8, 7, 6]), b"pieces"),
            frame(0x81, None, b""),
            frame(0x81, None, &long),
            frame(0x81, None, &[b'y'; 200]),
        ]
        .concat();
        let expected: Vec<Vec<u8>> =
            vec![b"{\"a\":1}".to_vec(), b"in two pieces".to_vec(), Vec::new(), long, vec![b'y'; 200]];
        for chunk in [1, 2, 3, 7, 4096, bytes.len()] {
            assert_eq!(read(&bytes, chunk), expected, "in pieces of {chunk}");
        }
    }

    #[test]
    fn what_is_too_long_or_not_understood_is_left_alone() {
        let bytes = [frame(0x81, None, &vec![b'x'; MESSAGE_BYTES_MAX + 1]), frame(0x81, None, b"next")].concat();
        assert_eq!(read(&bytes, 1000), [b"next".to_vec()]);
        let compressed = [frame(0xc1, None, b"deflated"), frame(0x81, None, b"lost")].concat();
        assert!(read(&compressed, 5).is_empty());
    }
}
