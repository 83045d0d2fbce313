// SPDX-License-Identifier: Apache-2.0
//! The rule that a request cannot bring the gateway down: product code does not unwrap, expect or panic. Clippy says so,
//! too; this rule cannot be switched off in place.

use super::tokens::{self, Token};
use super::{File, Finding};

const FOLDERS: &[&str] = &["host/src", "dialects/src", "plugin-sdk", "plugins"];
const METHODS: &[&str] = &["unwrap", "expect", "unwrap_err", "expect_err"];
const MACROS: &[&str] = &["panic", "todo", "unimplemented"];

/// No product code ends the process on purpose.
pub(super) fn none_outside_tests(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_our_rust() && FOLDERS.iter().any(|folder| file.within(folder))) {
        for three in tokens::product(file).windows(3) {
            if let Some(name) = panics(three) {
                let text = format!("`{name}` in product code: return an error, or make the case impossible");
                findings.push(Finding::at(file, three[1].line, text));
            }
        }
    }
    findings
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
        let fine = "fn expect() { a.unwrap_or(b); c.expect; }";
        assert_eq!(none_outside_tests(&[file("dialects/src/a.rs", fine)]), []);
        assert!(
            shown(&none_outside_tests(&[file("host/src/a.rs", "\nfn f() { a.unwrap() }")]))[0]
                .starts_with("host/src/a.rs:2: ")
        );
    }
}
