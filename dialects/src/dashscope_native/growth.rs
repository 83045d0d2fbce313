// SPDX-License-Identifier: Apache-2.0
//! A text that comes in pieces, where it is not known what a piece is: what is new, or (if the vendor does not honour
//! `incremental_output`) everything so far.
//!
//! Which of the two it is shows in the pieces: one that does not begin with the one before is new. One that does may do
//! so by chance ("1", "10"), so pieces are held back until the part in which two of them agree is long enough.

/// Two pieces that agree in so many bytes do not do so by chance.
const AGREEMENT_BYTES: usize = 8;

/// A text that grows.
#[derive(Debug, Default)]
pub(super) struct Growth {
    pieces: Pieces,
    /// What has been told, as far as it decides what comes next.
    told: String,
    /// The last piece, while in doubt.
    last: String,
    /// The pieces that have not been told, as if all were new.
    held: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Pieces {
    #[default]
    InDoubt,
    New,
    Everything,
}

impl Growth {
    /// What is new with this piece; may be empty.
    pub(super) fn take(&mut self, piece: &str) -> String {
        match self.pieces {
            Pieces::New => piece.to_owned(),
            Pieces::Everything => self.beyond_told(piece),
            Pieces::InDoubt if self.told.is_empty() => {
                piece.clone_into(&mut self.told);
                piece.clone_into(&mut self.last);
                piece.to_owned()
            }
            Pieces::InDoubt if !piece.is_empty() && piece.starts_with(&self.last) => {
                if self.last.len() >= AGREEMENT_BYTES {
                    self.pieces = Pieces::Everything;
                    self.held.clear();
                    return self.beyond_told(piece);
                }
                self.held.push_str(piece);
                piece.clone_into(&mut self.last);
                String::new()
            }
            Pieces::InDoubt => {
                self.pieces = Pieces::New;
                std::mem::take(&mut self.held) + piece
            }
        }
    }

    /// The text is complete: what was still held back. Pieces that agreed to the end were everything.
    pub(super) fn end(&mut self) -> String {
        if self.held.is_empty() {
            return String::new();
        }
        self.held.clear();
        let last = std::mem::take(&mut self.last);
        self.beyond_told(&last)
    }

    fn beyond_told(&mut self, piece: &str) -> String {
        if let Some(more) = piece.strip_prefix(self.told.as_str()) {
            self.told.push_str(more);
            return more.to_owned();
        }
        if self.told.starts_with(piece) {
            return String::new();
        }
        self.pieces = Pieces::New;
        piece.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::Growth;

    fn grown(pieces: &[&str]) -> String {
        let mut growth = Growth::default();
        let mut text: String = pieces.iter().map(|piece| growth.take(piece)).collect();
        text.push_str(&growth.end());
        text
    }

    #[test]
    fn pieces_mean_the_same_whether_new_or_everything_so_far() {
        let cases: &[(&[&str], &str)] = &[
            (&["Hello", "! I'm", " Friday", ""], "Hello! I'm Friday"),
            (&["Hello", "Hello! I'm", "Hello! I'm Friday", "Hello! I'm Friday"], "Hello! I'm Friday"),
            (&["1", "10", "100", " and more", ""], "110100 and more"),
            (&["1", "1", "1", ""], "111"),
            (&["OK", "OK"], "OK"),
            (&["OK", ""], "OK"),
            (&["", "", "a", "ab", "abc", "abcdefghi", "abcdefghij k", "abcdefghij k"], "abcdefghij k"),
            (&["ha", "ha", "ha!", " nice"], "hahaha! nice"),
            (&["{\"a\"", ": {\"a\"", ": 1}}"], "{\"a\": {\"a\": 1}}"),
            (&["你", "你好", "你好，世界", "你好，世界！"], "你好，世界！"),
            (&[], ""),
        ];
        for (pieces, expected) in cases {
            assert_eq!(grown(pieces), *expected, "{pieces:?}");
        }
    }

    #[test]
    fn nothing_is_held_back_once_it_is_clear() {
        let mut growth = Growth::default();
        assert_eq!(growth.take("Hello"), "Hello");
        assert_eq!(growth.take("Hello there"), "");
        assert_eq!(growth.take("Hello there, you"), " there, you");
        assert_eq!(growth.take("Hello there, you!"), "!");
        assert_eq!(growth.end(), "");
    }
}
