// SPDX-License-Identifier: Apache-2.0
//! The rule that a request cannot bring the gateway down: product code does not unwrap, expect or panic. Clippy says so,
//! too; this rule cannot be switched off in place. What is computed while compiling may panic: then it does not compile.

use super::tokens::{self, Token};
use super::{File, Finding};

const FOLDERS: &[&str] = &["host/src", "dialects/src", "signatures/src", "plugin-sdk", "plugins"];
/// What plugin authors write tests with, and plugins that misbehave for the host's tests.
const FOR_TESTS: &[&str] = &["plugin-sdk/src/testkit", "plugins/testing/"];
const METHODS: &[&str] = &["unwrap", "expect", "unwrap_err", "expect_err"];
const MACROS: &[&str] = &["panic", "todo", "unimplemented"];

/// No product code ends the process on purpose.
pub(super) fn none_outside_tests(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let product = files.iter().filter(|file| file.is_our_rust() && FOLDERS.iter().any(|folder| file.within(folder)));
    for file in product.filter(|file| !FOR_TESTS.iter().any(|path| file.path.starts_with(path))) {
        let tokens = tokens::product(file);
        let mut at = 0;
        while at + 3 <= tokens.len() {
            if let Some(name) = panics(&tokens[at..at + 3]) {
                let text = format!("`{name}` in product code: return an error, or make the case impossible");
                findings.push(Finding::at(file, tokens[at + 1].line, text));
            }
            at = after_constant(&tokens, at).unwrap_or(at + 1);
        }
    }
    findings
}

/// Where the item ends that begins here, if it is a constant or a static.
fn after_constant(tokens: &[Token], at: usize) -> Option<usize> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let before = at.checked_sub(1).map_or("", text);
    let named = text(at + 2) == ":" && (text(at) == "const" || text(at) == "static") && !matches!(before, "<" | ",");
    if !named {
        return None;
    }
    let mut depth = 0usize;
    for (end, token) in tokens.iter().enumerate().skip(at) {
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            ";" if depth == 0 => return Some(end),
            _ => {}
        }
    }
    None
}

fn panics(three: &[Token]) -> Option<&str> {
    let [a, b, c] = three else { return None };
    if a.text == "." && METHODS.contains(&b.text.as_str()) && c.text == "(" {
        return Some(&b.text);
    }
    (MACROS.contains(&a.text.as_str()) && b.text == "!" && matches!(c.text.as_str(), "(" | "[" | "{"))
        .then_some(&a.text)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, shown};
    use super::*;

    #[test]
    fn a_panic_in_product_code_is_found_and_one_in_a_test_is_not() {
        for bad in ["a.unwrap()", "a\n.expect(\"x\")", "panic!(\"x\")", "todo!()", "m!(a.unwrap())"] {
            let text = format!("fn f() {{ {bad} }}");
            assert_eq!(none_outside_tests(&[file("host/src/a.rs", &text)]).len(), 1, "{bad}");
            let test = format!("#[cfg(test)] mod tests {{ {text} }}");
            assert_eq!(none_outside_tests(&[file("host/src/a.rs", &test)]), [], "{bad}");
            assert_eq!(none_outside_tests(&[file("host/tests/it/a.rs", &text)]), [], "{bad}");
        }
        let constant = "static A: [u8; 2] = *B.as_array().expect(\"x\"); const C: u8 = { D.unwrap() };";
        assert_eq!(none_outside_tests(&[file("plugin-sdk/src/a.rs", constant)]), []);
        let generic =
            "fn f<const N: usize>() { a.unwrap() } fn g(a: &'static str) { a.unwrap() } const fn h() { a.unwrap() }";
        assert_eq!(none_outside_tests(&[file("plugin-sdk/src/a.rs", generic)]).len(), 3);
        let fine = "fn expect() { a.unwrap_or(b); c.expect; }";
        assert_eq!(none_outside_tests(&[file("dialects/src/a.rs", fine)]), []);
        assert!(
            shown(&none_outside_tests(&[file("host/src/a.rs", "\nfn f() { a.unwrap() }")]))[0]
                .starts_with("host/src/a.rs:2: ")
        );
    }
}
