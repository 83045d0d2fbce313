// SPDX-License-Identifier: Apache-2.0
//! Reads what an adapter says of itself in its source: the constants `DIALECTS`, `OPERATIONS` and `FEATURES`.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use syn::{Expr, ImplItem, Item, UseTree};

/// What an adapter can do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Adapter {
    pub(super) dialects: Vec<String>,
    pub(super) operations: Vec<String>,
    pub(super) features: Vec<String>,
}

impl Adapter {
    /// Reads the `lib.rs` of an adapter.
    ///
    /// # Errors
    /// When it is not Rust, or a constant is not a list of texts and names of dialects.
    pub(super) fn read(source: &str) -> anyhow::Result<Self> {
        let file = syn::parse_file(source).context("it is not Rust")?;
        let mut names = BTreeMap::new();
        for item in &file.items {
            if let Item::Use(item) = item {
                imported(&item.tree, "", &mut names);
            }
        }
        let mut adapter = Self::default();
        let items = file.items.iter().filter_map(|item| match item {
            Item::Impl(item) if item.trait_.as_ref().is_some_and(|(path, _)| path.is_ident("Adapter")) => Some(item),
            _ => None,
        });
        for item in items.flat_map(|item| &item.items) {
            let ImplItem::Const(constant) = item else { continue };
            let list = match constant.ident.to_string().as_str() {
                "DIALECTS" => &mut adapter.dialects,
                "OPERATIONS" => &mut adapter.operations,
                "FEATURES" => &mut adapter.features,
                _ => continue,
            };
            *list = texts(&constant.expr, &names).with_context(|| format!("`{}` cannot be read", constant.ident))?;
        }
        if adapter.operations.is_empty() {
            bail!("there is no `impl Adapter` with OPERATIONS");
        }
        Ok(adapter)
    }
}

/// The constants `NAME` that are imported, under the name that they have here, with the module that they are of.
fn imported(tree: &UseTree, module: &str, names: &mut BTreeMap<String, String>) {
    match tree {
        UseTree::Path(path) => imported(&path.tree, &path.ident.to_string(), names),
        UseTree::Group(group) => group.items.iter().for_each(|tree| imported(tree, module, names)),
        UseTree::Name(name) if name.ident == "NAME" => drop(names.insert("NAME".to_owned(), module.to_owned())),
        UseTree::Rename(rename) if rename.ident == "NAME" => {
            names.insert(rename.rename.to_string(), module.to_owned());
        }
        _ => {}
    }
}

/// `&["text", NAME, module::NAME]`; the name of a dialect is that of its module.
fn texts(value: &Expr, names: &BTreeMap<String, String>) -> anyhow::Result<Vec<String>> {
    let Expr::Reference(reference) = value else { bail!("it is no list") };
    let Expr::Array(array) = &*reference.expr else { bail!("it is no list") };
    let text = |element: &Expr| match element {
        Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Ok(text.value()),
        Expr::Path(path) => {
            let segments: Vec<String> = path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            let module = match segments.as_slice() {
                [name] => names.get(name),
                [.., module, _] => Some(module),
                [] => None,
            };
            module.map(|module| module.replace('_', "-")).context("a name in it is not imported from a dialect")
        }
        _ => bail!("it has something else than texts and names"),
    };
    array.elems.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_read_through_the_names_of_dialects() {
        let source = "use a::dialects::openai_chat::{Other, NAME};\nuse a::dialects::openai_responses::NAME as RESPONSES;\n\
            impl Other for A { const OPERATIONS: &[&str] = &[\"no\"]; }\n\
            impl Adapter for A {\nconst DIALECTS: &[&str] = &[NAME, RESPONSES, gemini::NAME, \"x\"];\n\
            const OPERATIONS: &[&str] = &[\"chat\"];\nconst SECRETS: &[&str] = &[KEY];\n}";
        let adapter = Adapter::read(source).unwrap();
        assert_eq!(adapter.dialects, ["openai-chat", "openai-responses", "gemini", "x"]);
        assert_eq!((adapter.operations, adapter.features), (vec!["chat".to_owned()], Vec::new()));
        for wrong in ["fn", "", "impl Adapter for A { const OPERATIONS: &[&str] = &[NAME]; }"] {
            assert!(Adapter::read(wrong).is_err(), "{wrong}");
        }
    }
}
