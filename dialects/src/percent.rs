// SPDX-License-Identifier: Apache-2.0
//! Percent-encoding in paths (RFC 3986 section 2.1), in which callers send names of models.

/// The text without its encoding; none if that is not UTF-8.
pub(crate) fn decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        let digit = |at: usize| behind.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).ok()?);
                rest = &behind[2..];
            }
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_and_half_an_encoding_stays() {
        let cases = [
            ("openai%2Fgpt-5%3amini", Some("openai/gpt-5:mini")),
            ("gr%C3%BCn", Some("grün")),
            ("100%", Some("100%")),
            ("%2", Some("%2")),
            ("%zz%4", Some("%zz%4")),
            ("%ff", None),
            ("", Some("")),
        ];
        for (text, expected) in cases {
            assert_eq!(decoded(text).as_deref(), expected, "{text}");
        }
    }
}
