// SPDX-License-Identifier: Apache-2.0
//! `#[derive(Config)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Data, DataEnum, DeriveInput, Error, Expr, ExprLit, Field, Fields, Lit, LitStr, Result, UnOp};

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    if let Some(parameter) = input.generics.params.first() {
        return Err(Error::new_spanned(parameter, "a configuration has no generic parameters"));
    }
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => derive_struct(input, &fields.named.iter().collect::<Vec<_>>()),
            Fields::Unit => derive_struct(input, &[]),
            Fields::Unnamed(fields) => Err(Error::new_spanned(fields, "give the fields names: operators write them")),
        },
        Data::Enum(data) => derive_enum(input, data),
        Data::Union(_) => Err(Error::new_spanned(&input.ident, "a configuration is a struct or an enum")),
    }
}

fn derive_struct(input: &DeriveInput, fields: &[&Field]) -> Result<TokenStream> {
    let name = &input.ident;
    let mut schemas = Vec::new();
    let mut names = Vec::new();
    let mut readers = Vec::new();
    let mut members = Vec::new();
    for field in fields {
        let Some(ident) = &field.ident else { continue };
        let ty = &field.ty;
        let options = Options::parse(&field.attrs)?;
        let written = options.rename.clone().unwrap_or_else(|| ident.to_string().trim_start_matches("r#").to_owned());
        let about = doc_text(&field.attrs);
        let stated = options.default_json();
        let (min, max) = (json_number(options.min.as_ref())?, json_number(options.max.as_ref())?);
        let has_default = options.default.is_some();
        schemas.push(quote! {
            ::penstock_sdk::config::Field {
                name: #written,
                about: #about,
                schema: <#ty as ::penstock_sdk::config::Config>::SCHEMA,
                required: !#has_default && !<#ty as ::penstock_sdk::config::Config>::OPTIONAL,
                default: #stated,
                min: #min,
                max: #max,
            }
        });
        // A literal takes the type of its field by inference; text and computed values are converted.
        let default = match &options.default {
            None => quote! { <#ty as ::penstock_sdk::config::Config>::absent },
            Some(None) => quote! { || ::core::option::Option::Some(<#ty as ::core::default::Default>::default()) },
            Some(Some(value)) if json_number(Some(value)).is_ok() => quote! { || ::core::option::Option::Some(#value) },
            Some(Some(value)) => quote! { || ::core::option::Option::Some((#value).into()) },
        };
        readers.push(quote! {
            let #ident = reader.member::<#ty>(object, #written, #default, #min, #max);
        });
        members.push(quote! { #ident: #ident? });
        names.push(written);
    }
    Ok(quote! {
        impl ::penstock_sdk::config::Config for #name {
            const SCHEMA: &'static ::penstock_sdk::config::Schema =
                &::penstock_sdk::config::Schema::Object(&[#(#schemas),*]);

            fn read(
                value: &::penstock_sdk::config::Value,
                reader: &mut ::penstock_sdk::config::Reader,
            ) -> ::core::option::Option<Self> {
                let object = reader.object(value, &[#(#names),*])?;
                #(#readers)*
                ::core::option::Option::Some(Self { #(#members),* })
            }
        }
    })
}

fn derive_enum(input: &DeriveInput, data: &DataEnum) -> Result<TokenStream> {
    let name = &input.ident;
    let mut written = Vec::new();
    let mut variants = Vec::new();
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(
                variant,
                "a variant of a configuration has no fields: use a struct of options",
            ));
        }
        written.push(Options::parse(&variant.attrs)?.rename.unwrap_or_else(|| snake_case(&variant.ident.to_string())));
        variants.push(&variant.ident);
    }
    let indices = 0..variants.len();
    Ok(quote! {
        impl ::penstock_sdk::config::Config for #name {
            const SCHEMA: &'static ::penstock_sdk::config::Schema =
                &::penstock_sdk::config::Schema::Choice(&[#(#written),*]);

            fn read(
                value: &::penstock_sdk::config::Value,
                reader: &mut ::penstock_sdk::config::Reader,
            ) -> ::core::option::Option<Self> {
                match reader.choice(value, &[#(#written),*])? {
                    #(#indices => ::core::option::Option::Some(Self::#variants),)*
                    _ => ::core::option::Option::None,
                }
            }
        }
    })
}

/// What `#[config(…)]` says of a field.
#[derive(Default)]
struct Options {
    rename: Option<String>,
    /// `Some(None)` is the type's own default.
    default: Option<Option<Expr>>,
    min: Option<Expr>,
    max: Option<Expr>,
}

impl Options {
    fn parse(attributes: &[Attribute]) -> Result<Self> {
        let mut options = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("config")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("rename") {
                    options.rename = Some(meta.value()?.parse::<LitStr>()?.value());
                } else if meta.path.is_ident("default") {
                    let stated = meta.input.peek(syn::Token![=]);
                    options.default = Some(if stated { Some(meta.value()?.parse()?) } else { None });
                } else if meta.path.is_ident("min") {
                    options.min = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("max") {
                    options.max = Some(meta.value()?.parse()?);
                } else {
                    return Err(meta.error("known are: default, rename, min, max"));
                }
                Ok(())
            })?;
        }
        Ok(options)
    }

    /// The default as JSON where it is a literal, for the schema; "" otherwise.
    fn default_json(&self) -> String {
        match &self.default {
            Some(Some(Expr::Lit(ExprLit { lit: Lit::Str(text), .. }))) => {
                serde_json::Value::String(text.value()).to_string()
            }
            Some(Some(Expr::Lit(ExprLit { lit: Lit::Bool(value), .. }))) => value.value.to_string(),
            Some(Some(number)) => json_number(Some(number)).unwrap_or_default(),
            _ => String::new(),
        }
    }
}

/// A number literal, negative or not, as JSON; "" for none.
fn json_number(expression: Option<&Expr>) -> Result<String> {
    match expression {
        None => Ok(String::new()),
        Some(Expr::Lit(ExprLit { lit: Lit::Int(number), .. })) => Ok(number.base10_digits().to_owned()),
        Some(Expr::Lit(ExprLit { lit: Lit::Float(number), .. })) => Ok(number.base10_digits().to_owned()),
        Some(Expr::Unary(unary)) if matches!(unary.op, UnOp::Neg(_)) => {
            Ok(format!("-{}", json_number(Some(&unary.expr))?))
        }
        Some(other) => Err(Error::new_spanned(other, "write a number")),
    }
}

/// The doc comment as one paragraph.
fn doc_text(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("doc")) {
        if let syn::Meta::NameValue(meta) = &attribute.meta
            && let Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) = &meta.value
        {
            let line = line.value();
            if !text.is_empty() && !line.trim().is_empty() {
                text.push(' ');
            }
            text.push_str(line.trim());
        }
    }
    text
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for (index, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && index > 0 {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}
