// SPDX-License-Identifier: Apache-2.0
//! Finds top-level members of a JSON object by its brackets and quotes alone, for what is read of an answer as it passes: several
//! times as fast as a parser, and it proves nothing of what it skips. What must be proven is read with [`crate::splice`].

use memchr::memchr2;

/// The raw values of the named members; none where one is missing. None at all if this is no object whose brackets and quotes
/// match, or if it names one of them twice. Names that are spelled with escapes are not found.
#[must_use]
pub(crate) fn members<'b, const N: usize>(body: &'b [u8], names: [&str; N]) -> Option<[Option<&'b [u8]>; N]> {
    let mut found = [None; N];
    let mut at = skip_space(body, 0);
    if body.get(at) != Some(&b'{') {
        return None;
    }
    at = skip_space(body, at + 1);
    if body.get(at) == Some(&b'}') {
        return Some(found);
    }
    loop {
        let name_end = string_end(body, at)?;
        let name = &body[at + 1..name_end - 1];
        at = skip_space(body, name_end);
        if body.get(at) != Some(&b':') {
            return None;
        }
        let start = skip_space(body, at + 1);
        let end = value_end(body, start)?;
        if let Some(index) = names.iter().position(|wanted| wanted.as_bytes() == name)
            && found[index].replace(&body[start..end]).is_some()
        {
            return None;
        }
        at = skip_space(body, end);
        match body.get(at)? {
            b',' => at = skip_space(body, at + 1),
            b'}' => return Some(found),
            _ => return None,
        }
    }
}

/// JSON text without the white space between its parts; none if it is not UTF-8 or ends within a string.
#[must_use]
pub(crate) fn compact(text: &[u8]) -> Option<String> {
    if !text.iter().any(u8::is_ascii_whitespace) {
        return std::str::from_utf8(text).ok().map(str::to_owned);
    }
    let mut kept = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let end = if *byte == b'"' { string_end(text, at)? } else { at + 1 };
        if !byte.is_ascii_whitespace() {
            kept.extend_from_slice(&text[at..end]);
        }
        at = end;
    }
    String::from_utf8(kept).ok()
}

fn skip_space(body: &[u8], from: usize) -> usize {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    from + body[from.min(body.len())..].iter().take_while(|byte| space(byte)).count()
}

/// Where the string that begins here has ended.
fn string_end(body: &[u8], from: usize) -> Option<usize> {
    if body.get(from) != Some(&b'"') {
        return None;
    }
    let mut at = from + 1;
    loop {
        at += memchr2(b'"', b'\\', body.get(at..)?)?;
        if body[at] == b'"' {
            return Some(at + 1);
        }
        at += 2; // an escape, whichever it is, does not end the string with its second byte
    }
}

/// Where the value that begins here has ended.
fn value_end(body: &[u8], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = from;
    loop {
        match body.get(at)? {
            b'"' => at = string_end(body, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            b'}' | b']' | b',' if depth == 0 => return (at > from).then_some(at),
            b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return (at > from).then_some(at),
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_where_they_are_and_nowhere_else() {
        let cases: &[(&str, Option<[Option<&str>; 2]>)] = &[
            (r#"{"a":1,"b":{"a":[2,"}"]}}"#, Some([Some("1"), Some(r#"{"a":[2,"}"]}"#)])),
            (" { \"x\" : \"a\\\"b\\\\\" , \"b\"\n:\t[ ] } ", Some([None, Some("[ ]")])),
            (r#"{"x":{"a":1},"y":["b"],"z":"\"a\":1"}"#, Some([None, None])),
            (r#"{"a":true ,"b":null}"#, Some([Some("true"), Some("null")])),
            (r#"{"a":"","b":-1.5e3}"#, Some([Some("\"\""), Some("-1.5e3")])),
            ("{}", Some([None, None])),
            (" { } ", Some([None, None])),
            (r#"{"a":1,"a":2}"#, None),
            (r#"{"a":}"#, None),
            (r#"{"a" 1}"#, None),
            (r#"{"a":1"#, None),
            (r#"{"a":"x"#, None),
            (r#"{"a":"x\"#, None),
            (r#"{"a":[1}"#, None),
            (r#"{a:1}"#, None),
            (r#"{"a":1,}"#, None),
            ("[1]", None),
            ("", None),
        ];
        for (body, expected) in cases {
            let found = members(body.as_bytes(), ["a", "b"]);
            let expected = expected.map(|values| values.map(|value| value.map(str::as_bytes)));
            assert_eq!(found, expected, "{body}");
        }
    }

    #[test]
    fn space_between_the_parts_goes_and_space_in_strings_stays() {
        let text = "{ \"a b\" :\n[1 ,\t\" \\\" \"] }";
        assert_eq!(compact(text.as_bytes()).as_deref(), Some("{\"a b\":[1,\" \\\" \"]}"));
        assert_eq!(compact(b"{\"a\":1}").as_deref(), Some("{\"a\":1}"));
        assert_eq!(compact(b"[ \"a"), None);
    }

    #[test]
    fn no_cut_and_no_byte_makes_it_panic() {
        let body = br#" { "a" : "x\"\\y" , "b" : [ { "c" : [ ] } , 1.5 , null ] , "d" : { } } "#;
        for cut in 0..=body.len() {
            let _ = members(&body[..cut], ["a", "b"]);
            let _ = members(&body[cut..], ["a", "b"]);
        }
        for at in 0..body.len() {
            for byte in [b'"', b'\\', b'{', b'}', b'[', b']', b',', b':', 0, 0xff] {
                let mut other = body.to_vec();
                other[at] = byte;
                let _ = members(&other, ["a", "b"]);
            }
        }
    }
}
