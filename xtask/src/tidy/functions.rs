// SPDX-License-Identifier: Apache-2.0
//! The rule about functions: one fits on a screen.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::{File, Finding};

const LINES_MAX: usize = 70;

/// A function has at most 70 lines, from its signature to its closing brace; one that is longer wants to be split into
/// what decides and what does.
pub(super) fn lengths(files: &[File]) -> Vec<Finding> {
    files.iter().filter(|file| file.is_our_rust()).flat_map(long_functions).collect()
}

fn long_functions(file: &File) -> Vec<Finding> {
    match syn::parse_file(&file.text) {
        Ok(syntax) => {
            let mut visitor = Functions { file, findings: Vec::new() };
            visitor.visit_file(&syntax);
            visitor.findings
        }
        Err(error) => vec![Finding::at(file, error.span().start().line, format!("cannot be parsed: {error}"))],
    }
}

struct Functions<'a> {
    file: &'a File,
    findings: Vec<Finding>,
}

impl Functions<'_> {
    fn measure(&mut self, signature: &syn::Signature, end: Span) {
        let begin = signature.span().start().line;
        let lines = end.end().line - begin + 1;
        if lines > LINES_MAX {
            let text = format!("`{}` has {lines} lines; a function has at most {LINES_MAX}", signature.ident);
            self.findings.push(Finding::at(self.file, begin, text));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.measure(&function.sig, function.block.span());
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.measure(&function.sig, function.block.span());
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.measure(&function.sig, block.span());
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, shown};
    use super::*;

    fn function_of(lines: usize) -> String {
        format!("#[inline]\nfn long() {{\n{}}}\n", "    step();\n".repeat(lines - 2))
    }

    #[test]
    fn a_function_that_is_too_long_is_found_wherever_it_is() {
        assert_eq!(lengths(&[file("a.rs", &function_of(70))]), []);
        let found = shown(&lengths(&[file("a.rs", &function_of(71))]));
        assert_eq!(found, ["a.rs:2: `long` has 71 lines; a function has at most 70"]);
        for around in ["impl A { @ }", "trait A { @ }", "mod a { @ }", "fn f() { @ }"] {
            let text = around.replace('@', &function_of(71));
            assert!(!lengths(&[file("a.rs", &text)]).is_empty(), "{around}");
        }
    }

    #[test]
    fn a_file_that_is_not_rust_is_found() {
        assert_eq!(lengths(&[file("a.rs", "fn (")]).len(), 1);
    }
}
