// SPDX-License-Identifier: Apache-2.0
//! Rust as a flat list of tokens, without comments, strings and tests: what the rules about names look through. Tokens and
//! not syntax, so that what stands inside a macro call is seen, too.

use std::str::FromStr;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::File;

/// A word or a sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// Its text; `{` and `}` and the like for the ends of groups. Literals have none.
    pub(super) text: String,
    /// Its line, from 1.
    pub(super) line: usize,
    /// How many modules written in place it stands in.
    pub(super) depth: usize,
}

/// The tokens of a file's product code; none for a file of tests, or for one that does not parse (which is a finding of
/// another rule).
pub(super) fn product(file: &File) -> Vec<Token> {
    if file.path.contains("/tests/") || file.path.ends_with("/tests.rs") || file.path.contains("/benches/") {
        return Vec::new();
    }
    let mut tokens = Vec::new();
    if let Ok(stream) = TokenStream::from_str(&file.text) {
        flatten(stream, 0, &mut tokens);
    }
    tokens
}

/// Every path that begins with `crate::`, or with so many `super::` that it means the same, as its second segment and
/// line. A group (`crate::{a, b::c}`) counts once for each of its members.
pub(super) fn crate_paths(tokens: &[Token], file_depth: usize) -> Vec<(String, usize)> {
    let mut paths = Vec::new();
    for start in 0..tokens.len() {
        if let Some(rest) = after_crate_root(tokens, start, file_depth) {
            paths.extend(heads(&tokens[rest..]).map(|token| (token.text.clone(), token.line)));
        }
    }
    paths
}

/// Where the path goes on that begins at `start` and leads to the root of the crate.
fn after_crate_root(tokens: &[Token], start: usize, file_depth: usize) -> Option<usize> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    if text(start) == "crate" && text(start + 1) == "::" {
        return Some(start + 2);
    }
    if text(start) != "super" || (start > 0 && text(start - 1) == "::") {
        return None;
    }
    let mut at = start;
    let mut ups = 0;
    while text(at) == "super" && text(at + 1) == "::" {
        ups += 1;
        at += 2;
    }
    (ups >= file_depth + tokens[start].depth).then_some(at)
}

/// The first segments of a path or of a braced group of paths.
fn heads(tokens: &[Token]) -> impl Iterator<Item = &Token> {
    let grouped = tokens.first().is_some_and(|token| token.text == "{");
    let mut depth = 0usize;
    let mut members = Vec::new();
    if !grouped {
        members.extend(tokens.first());
        return members.into_iter();
    }
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ if depth == 1 && matches!(tokens[at - 1].text.as_str(), "{" | ",") => members.push(token),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    members.into_iter()
}

fn flatten(stream: TokenStream, depth: usize, out: &mut Vec<Token>) {
    let mut trees = stream.into_iter().peekable();
    while let Some(tree) = trees.next() {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Punct(sign) if sign.as_char() == '#' => {
                let inner = matches!(trees.peek(), Some(TokenTree::Punct(sign)) if sign.as_char() == '!');
                if inner {
                    trees.next();
                }
                let Some(TokenTree::Group(attribute)) = trees.peek() else { continue };
                let test = is_test(attribute);
                if test && inner {
                    return;
                }
                if test {
                    skip_item(&mut trees);
                }
            }
            TokenTree::Punct(sign) if sign.as_char() == ':' => match trees.peek() {
                Some(TokenTree::Punct(next)) if next.as_char() == ':' => {
                    trees.next();
                    out.push(Token { text: "::".into(), line, depth });
                }
                _ => out.push(Token { text: ":".into(), line, depth }),
            },
            TokenTree::Group(group) => {
                let module = group.delimiter() == Delimiter::Brace && is_module(out);
                push_group(&group, line, depth + usize::from(module), out);
            }
            TokenTree::Literal(_) => out.push(Token { text: String::new(), line, depth }),
            other => out.push(Token { text: other.to_string(), line, depth }),
        }
    }
}

/// Whether what has been read so far ends with `mod name`.
fn is_module(tokens: &[Token]) -> bool {
    tokens.len() >= 2 && tokens[tokens.len() - 2].text == "mod"
}

fn push_group(group: &Group, line: usize, depth: usize, out: &mut Vec<Token>) {
    let (open, close) = match group.delimiter() {
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::None => ("", ""),
    };
    out.push(Token { text: open.into(), line, depth });
    flatten(group.stream(), depth, out);
    out.push(Token { text: close.into(), line: group.span_close().start().line, depth });
}

/// `[cfg(test)]`, `[cfg(all(test, …))]`, `[test]`, `[tokio::test]`.
fn is_test(attribute: &Group) -> bool {
    let text: String = attribute.stream().to_string().split_whitespace().collect();
    text == "test" || text.starts_with("tokio::test") || text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// Takes the rest of an item away: up to its body or its semicolon.
fn skip_item(trees: &mut impl Iterator<Item = TokenTree>) {
    for tree in trees {
        match tree {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return,
            TokenTree::Punct(sign) if sign.as_char() == ';' => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::file;
    use super::*;

    fn words(text: &str) -> String {
        product(&file("a.rs", text)).into_iter().map(|token| token.text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_strings_and_tests_are_left_out() {
        // Doc comments are attributes; what they say is a literal, and literals are empty.
        assert_eq!(words("//! crate::a\n/// b\nfn f() { \"x\" }"), "[ doc =  ] [ doc =  ] fn f ( ) {  }");
        assert_eq!(words("#[cfg(test)]\nmod tests { crate::a }\nfn f() {}"), "fn f ( ) { }");
        assert_eq!(words("#[cfg(test)]\n#[path = \"x\"]\nmod tests;\nfn f() {}"), "fn f ( ) { }");
        assert_eq!(words("#[tokio::test(flavor = \"x\")]\nasync fn t() -> [u8; 2] { crate::a }"), "");
        assert_eq!(words("#![cfg(test)]\nfn f() {}"), "");
    }

    #[test]
    fn every_way_to_name_a_module_of_the_crate_is_seen() {
        let cases = [
            ("use crate::a::b;", 1, vec!["a"]),
            ("use crate::{a, b::{c, d}, e};", 1, vec!["a", "b", "e"]),
            ("fn f() { info!(x = crate::a::b()); }", 1, vec!["a"]),
            ("use super::a;", 1, vec!["a"]),
            ("use super::a;", 2, vec![]),
            ("use super::super::a;", 2, vec!["a"]),
            ("mod m { use super::a; use super::super::b; }", 1, vec!["b"]),
            ("pub(crate) fn f() {}", 1, vec![]),
        ];
        for (text, depth, expected) in cases {
            let paths = crate_paths(&product(&file("a.rs", text)), depth);
            let found: Vec<_> = paths.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
