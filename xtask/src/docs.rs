// SPDX-License-Identifier: Apache-2.0
//! Makes the configuration reference from the types that read the configuration: names, defaults and doc comments of
//! host/src/config.rs, in the order in which they stand there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use syn::{Expr, Fields, Item};

/// Where the types are.
pub(crate) const SOURCES: [&str; 5] = [
    "host/src/config.rs",
    "host/src/config/listeners.rs",
    "host/src/config/models.rs",
    "host/src/config/services.rs",
    "host/src/config/stores.rs",
];
/// The page that is made of them.
pub(crate) const PAGE: &str = "docs/configuration.md";

const INTRODUCTION: &str = "<!-- Made by `cargo xtask docs` from host/src/config.rs; edit the doc comments there. -->\n\
# Configuration\n\n\
Penstock reads a directory of TOML files (`--policies DIR`), at any depth, as one configuration: what stands in two files \
is put together, and the same name twice is an error. Without a directory the policies that are built in are used \
([policies/](../policies)). A change is checked as a whole and then swapped in; if anything is wrong with it, it is \
refused with file, line and what to write instead, and what was in force stays. `penstock check` makes the same checks.\n\n\
An unknown key is an error. Times are in milliseconds and sizes in bytes where the name says so.\n";

/// Writes the page.
///
/// # Errors
/// When the types cannot be read or the page cannot be written.
pub(crate) fn write(root: &Path) -> anyhow::Result<()> {
    let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| format!("cannot read {path}"));
    let sources = SOURCES.into_iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    fs::write(root.join(PAGE), render(&sources)?).with_context(|| format!("cannot write {PAGE}"))
}

/// The page for these sources.
///
/// # Errors
/// When the source is not Rust, has no type `Config`, or a public field has no doc comment.
pub(crate) fn render<S: AsRef<str>>(sources: &[S]) -> anyhow::Result<String> {
    let types = Types::read(sources)?;
    let mut page = INTRODUCTION.to_owned();
    types.section(&mut page, "Config", "")?;
    Ok(page)
}

/// What the source says of each type.
struct Types {
    structs: BTreeMap<String, syn::ItemStruct>,
    enums: BTreeMap<String, syn::ItemEnum>,
    /// Defaults of the fields, by type and field.
    defaults: BTreeMap<(String, String), String>,
    /// What functions answer that take nothing, by name: serde's `default = "name"`.
    constants: BTreeMap<String, String>,
}

/// A field as the reader of the page sees it.
struct Field {
    name: String,
    kind: Kind,
    default: String,
    text: String,
}

/// The shape of a value.
enum Kind {
    /// Something that is written in place, in words.
    Plain(String),
    /// A table of its own: name of the type, and what follows the field's name in the table's header.
    Section { of: String, list: bool, named: bool },
}

impl Types {
    fn read<S: AsRef<str>>(sources: &[S]) -> anyhow::Result<Self> {
        let mut types = Self {
            structs: BTreeMap::new(),
            enums: BTreeMap::new(),
            defaults: BTreeMap::new(),
            constants: BTreeMap::new(),
        };
        let files = sources.iter().map(|source| syn::parse_file(source.as_ref()));
        let files = files.collect::<Result<Vec<_>, _>>().with_context(|| format!("one of {SOURCES:?} is not Rust"))?;
        for item in files.into_iter().flat_map(|file| file.items) {
            match item {
                Item::Struct(item) => drop(types.structs.insert(item.ident.to_string(), item)),
                Item::Enum(item) => drop(types.enums.insert(item.ident.to_string(), item)),
                Item::Fn(item) => {
                    if let Some(syn::Stmt::Expr(value, None)) = item.block.stmts.last() {
                        types.constants.insert(item.sig.ident.to_string(), shown(value, ""));
                    }
                }
                Item::Impl(item) => types.read_defaults(&item),
                _ => {}
            }
        }
        Ok(types)
    }

    /// Takes the values out of `impl Default for X { fn default() -> Self { Self { a: 1, … } } }`.
    fn read_defaults(&mut self, item: &syn::ItemImpl) {
        let is_default = item.trait_.as_ref().is_some_and(|(path, _)| path.is_ident("Default"));
        let syn::Type::Path(of) = &*item.self_ty else { return };
        let (true, Some(name)) = (is_default, of.path.get_ident()) else { return };
        for member in &item.items {
            let syn::ImplItem::Fn(function) = member else { continue };
            if let Some(syn::Stmt::Expr(Expr::Struct(value), None)) = function.block.stmts.last() {
                for field in &value.fields {
                    let syn::Member::Named(ident) = &field.member else { continue };
                    let field_name = ident.to_string();
                    let text = shown(&field.expr, &field_name);
                    self.defaults.insert((name.to_string(), field_name), text);
                }
            }
        }
    }

    /// Writes a type and then the types of its fields.
    fn section(&self, page: &mut String, name: &str, place: &str) -> anyhow::Result<()> {
        let of = self.structs.get(name).ok_or_else(|| anyhow!("{SOURCES:?} have no struct `{name}`"))?;
        let fields = self.fields(of)?;
        if !place.is_empty() {
            page.push_str(&format!("\n## `{place}`\n\n{}\n", documentation(&of.attrs)));
        }
        page.push_str("\n| key | value | default | meaning |\n|---|---|---|---|\n");
        for Field { name, kind, default, text } in &fields {
            let value = match kind {
                Kind::Plain(words) => words.clone(),
                Kind::Section { list, named, .. } => link(&header(place, name, *list, *named)),
            };
            page.push_str(&format!("| `{name}` | {value} | {default} | {} |\n", text.replace('|', "\\|")));
        }
        for Field { name, kind, .. } in &fields {
            if let Kind::Section { of, list, named } = kind {
                self.section(page, of, &header(place, name, *list, *named))?;
            }
        }
        Ok(())
    }

    fn fields(&self, of: &syn::ItemStruct) -> anyhow::Result<Vec<Field>> {
        let Fields::Named(named) = &of.fields else { bail!("`{}` has no named fields", of.ident) };
        named.named.iter().filter(|field| !serde_has(&field.attrs, "skip")).map(|field| self.field(of, field)).collect()
    }

    fn field(&self, of: &syn::ItemStruct, field: &syn::Field) -> anyhow::Result<Field> {
        let name = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
        let text = documentation(&field.attrs);
        if text.is_empty() {
            bail!("`{}.{name}` has no doc comment", of.ident);
        }
        let (kind, empty) = self.kind(&field.ty)?;
        let own = serde_value(&field.attrs, "default").and_then(|function| self.constants.get(&function).cloned());
        let stated = self.defaults.get(&(of.ident.to_string(), name.clone())).cloned();
        let may_be_absent = serde_has(&of.attrs, "default") || serde_has(&field.attrs, "default");
        let default = own.or(stated).unwrap_or(if may_be_absent { empty } else { "required".into() });
        Ok(Field { name, kind, default, text })
    }

    /// The shape of a type, and what it is when it is left out.
    fn kind(&self, of: &syn::Type) -> anyhow::Result<(Kind, String)> {
        let (name, inner) = type_name(of)?;
        let section = |of: &str, list: bool, named: bool| Kind::Section { of: of.to_owned(), list, named };
        let plain = |words: &str, empty: &str| Ok((Kind::Plain(words.to_owned()), empty.to_owned()));
        match (name.as_str(), inner.last()) {
            ("Option", Some(inner)) => self.kind(inner).map(|(kind, _)| (kind, "none".into())),
            ("Spanned" | "Arc" | "Box", Some(inner)) => self.kind(inner),
            ("Vec", Some(inner)) => Ok(match self.kind(inner)?.0 {
                Kind::Section { of, .. } => (section(&of, true, false), "none".into()),
                Kind::Plain(words) => (Kind::Plain(format!("list of {words}")), "none".into()),
            }),
            ("BTreeMap", Some(inner)) => Ok(match self.kind(inner)?.0 {
                Kind::Section { of, .. } => (section(&of, false, true), "none".into()),
                Kind::Plain(words) => (Kind::Plain(format!("table of {words}")), "none".into()),
            }),
            ("String" | "PathBuf", _) => plain("text", "empty"),
            ("SocketAddr", _) => plain("address and port", "none"),
            ("Place", _) => plain("address and port, or a Unix socket", "none"),
            ("Base", _) => plain("URL, or table of `url`, `weight` and `priority`", "none"),
            ("Coding", _) => plain("`\"br\"` or `\"gzip\"`", "none"),
            ("Table" | "Value", _) => plain("table", "none"),
            ("Price", _) => plain("table; see [prices](prices.md)", "none"),
            ("bool", _) => plain("true or false", "false"),
            ("usize" | "u64" | "u32" | "u16" | "u8" | "i64" | "f64", _) => plain("number", "0"),
            (name, _) if self.structs.contains_key(name) => Ok((section(name, false, false), "the defaults".into())),
            (name, _) => match self.enums.get(name) {
                Some(of) => Ok(choices(of)),
                None => bail!("{SOURCES:?}: the reference has no words for the type `{name}`"),
            },
        }
    }
}

/// The header of a field's table: `[limits]`, `[[routes]]`, `[plugins.NAME]`.
fn header(place: &str, field: &str, list: bool, named: bool) -> String {
    let outer = place.trim_matches(['[', ']']);
    let path = if outer.is_empty() { field.to_owned() } else { format!("{outer}.{field}") };
    match (list, named) {
        (true, _) => format!("[[{path}]]"),
        (false, true) => format!("[{path}.NAME]"),
        (false, false) => format!("[{path}]"),
    }
}

/// A link to the section of a table, by the rule with which Markdown renderers name headings.
fn link(header: &str) -> String {
    let anchor: String =
        header.chars().filter(|it| it.is_alphanumeric() || matches!(it, '_' | '-')).collect::<String>().to_lowercase();
    format!("[`{header}`](#{anchor})")
}

/// An enum as the words that may be written, and the one that is meant when none is.
fn choices(of: &syn::ItemEnum) -> (Kind, String) {
    let kebab = serde_value(&of.attrs, "rename_all").is_some_and(|case| case == "kebab-case");
    let word = |variant: &syn::Variant| format!("`\"{}\"`", written(&variant.ident.to_string(), kebab));
    let described = of.variants.iter().map(|variant| format!("{}: {}", word(variant), documentation(&variant.attrs)));
    let words = described.collect::<Vec<_>>().join(" ");
    let default = of.variants.iter().find(|variant| variant.attrs.iter().any(|it| it.path().is_ident("default")));
    (Kind::Plain(words), default.map_or_else(|| "required".to_owned(), word))
}

/// The name of a variant as it is written: in lower case, with dashes between words if they are.
fn written(name: &str, kebab: bool) -> String {
    let mut written = String::new();
    for (at, letter) in name.char_indices() {
        if kebab && at > 0 && letter.is_uppercase() {
            written.push('-');
        }
        written.extend(letter.to_lowercase());
    }
    written
}

/// The last segment of a type's path, and the types in its angle brackets.
fn type_name(of: &syn::Type) -> anyhow::Result<(String, Vec<syn::Type>)> {
    let syn::Type::Path(path) = of else { bail!("{SOURCES:?}: a type in `Config` is not a plain path") };
    let last = path.path.segments.last().context("a path has a segment")?;
    let inner = match &last.arguments {
        syn::PathArguments::AngleBracketed(arguments) => arguments.args.iter().filter_map(as_type).collect(),
        _ => Vec::new(),
    };
    Ok((last.ident.to_string(), inner))
}

fn as_type(argument: &syn::GenericArgument) -> Option<syn::Type> {
    match argument {
        syn::GenericArgument::Type(of) => Some(of.clone()),
        _ => None,
    }
}

/// The doc comment, as one paragraph.
fn documentation(attributes: &[syn::Attribute]) -> String {
    let lines = attributes.iter().filter(|attribute| attribute.path().is_ident("doc")).filter_map(|attribute| {
        let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
        let Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value else { return None };
        Some(text.value().trim().to_owned())
    });
    lines.collect::<Vec<_>>().join(" ")
}

/// Whether a serde attribute has this word.
fn serde_has(attributes: &[syn::Attribute], word: &str) -> bool {
    let mut found = false;
    visit_serde(attributes, |meta| found |= meta.path.is_ident(word));
    found
}

/// The text of `#[serde(word = "text")]`.
fn serde_value(attributes: &[syn::Attribute], word: &str) -> Option<String> {
    let mut found = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        // What is not understood here is serde's business, and serde reports it.
        let _ = attribute.parse_nested_meta(|meta| {
            let text = meta.value().and_then(|value| value.parse::<syn::LitStr>());
            if let (true, Ok(text)) = (meta.path.is_ident(word), text) {
                found = Some(text.value());
            }
            Ok(())
        });
    }
    found
}

fn visit_serde(attributes: &[syn::Attribute], mut visit: impl FnMut(&syn::meta::ParseNestedMeta<'_>)) {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        // As above.
        let _ = attribute.parse_nested_meta(|meta| {
            visit(&meta);
            if meta.input.peek(syn::Token![=]) {
                meta.value()?.parse::<Expr>()?;
            }
            Ok(())
        });
    }
}

/// A default as a person writes it: numbers computed, sizes with their unit.
fn shown(value: &Expr, name: &str) -> String {
    match number(value) {
        Some(number) if name.contains("bytes") => size(number),
        Some(number) => number.to_string(),
        None => words(value),
    }
}

fn words(value: &Expr) -> String {
    match value {
        Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => format!("`\"{}\"`", text.value()),
        Expr::Lit(syn::ExprLit { lit: syn::Lit::Bool(it), .. }) => it.value.to_string(),
        Expr::Path(path) if path.path.is_ident("None") => "none".to_owned(),
        Expr::Call(call) if call.args.is_empty() => "none".to_owned(), // `Vec::new()`
        Expr::MethodCall(call) if call.args.is_empty() => words(&call.receiver),
        Expr::Call(call) if call.args.len() == 1 => call.args.first().map(words).unwrap_or_default(),
        _ => "see the source".to_owned(),
    }
}

fn size(bytes: u64) -> String {
    const UNITS: &[(u64, &str)] = &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{bytes} ({} {name})", bytes / unit),
        None => bytes.to_string(),
    }
}

/// The value of an expression of literals.
fn number(value: &Expr) -> Option<u64> {
    match value {
        Expr::Lit(syn::ExprLit { lit: syn::Lit::Int(digits), .. }) => digits.base10_parse().ok(),
        Expr::Paren(inner) => number(&inner.expr),
        Expr::Binary(both) => {
            let (left, right) = (number(&both.left)?, number(&both.right)?);
            match both.op {
                syn::BinOp::Shl(_) => left.checked_shl(u32::try_from(right).ok()?),
                syn::BinOp::Mul(_) => left.checked_mul(right),
                syn::BinOp::Add(_) => left.checked_add(right),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"
        /// All.
        #[serde(deny_unknown_fields, default)]
        pub struct Config {
            /// Sockets.
            pub listeners: Vec<Listener>,
            /// Ceilings.
            pub limits: Limits,
            /// Secrets.
            pub secrets: BTreeMap<String, Spanned<String>>,
        }
        /// A socket.
        pub struct Listener {
            /// Where.
            pub address: SocketAddr,
            /// How
            /// much.
            #[serde(default = "one")]
            pub weight: u32,
            /// Sharing.
            #[serde(default)]
            pub isolation: Isolation,
        }
        /// Ceilings.
        #[serde(default)]
        pub struct Limits {
            /// Largest | body.
            pub body_bytes_max: usize,
        }
        impl Default for Limits { fn default() -> Self { Self { body_bytes_max: 32 << 20 } } }
        pub enum Isolation {
            /// Many.
            #[default]
            Shared,
            /// One.
            Request,
        }
        fn one() -> u32 { 1 }
    "#;

    #[test]
    fn names_defaults_and_comments_reach_the_page() {
        let page = render(&[SAMPLE]).unwrap();
        for line in [
            "| `listeners` | [`[[listeners]]`](#listeners) | none | Sockets. |",
            "| `limits` | [`[limits]`](#limits) | the defaults | Ceilings. |",
            "| `secrets` | table of text | none | Secrets. |",
            "## `[[listeners]]`\n\nA socket.",
            "| `address` | address and port | required | Where. |",
            "| `weight` | number | 1 | How much. |",
            "| `isolation` | `\"shared\"`: Many. `\"request\"`: One. | `\"shared\"` | Sharing. |",
            "| `body_bytes_max` | number | 33554432 (32 MiB) | Largest \\| body. |",
        ] {
            assert!(page.contains(line), "{line}\nis not in\n{page}");
        }
    }

    #[test]
    fn a_field_without_a_comment_is_refused() {
        let error = render(&["pub struct Config { pub a: u8 }"]).unwrap_err().to_string();
        assert_eq!(error, "`Config.a` has no doc comment");
    }

    #[test]
    fn a_type_without_words_is_refused() {
        assert!(render(&["pub struct Config { /// A.\n pub a: Strange }"]).is_err());
    }
}
