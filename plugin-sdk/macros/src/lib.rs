// SPDX-License-Identifier: Apache-2.0
//! The macros of penstock-sdk that have to read source: the derive for configuration, and the embedding of golden cases.
//! Authors reach them through `penstock_sdk`.

mod cases;
mod config;

use proc_macro::TokenStream;

/// Makes a struct or an enum without fields a configuration: the JSON schema that operators see, and a reader that names
/// every wrong place at once. Doc comments are the schema's descriptions.
///
/// On a struct every field is required unless it is an `Option` or has `#[config(default)]` or `#[config(default = value)]`.
/// Further: `#[config(rename = "name")]`, and `#[config(min = 1, max = 10)]` for the value of a number or the length of a
/// text, list or map. The names of an enum's variants are written in `snake_case`. Unknown members are refused.
#[proc_macro_derive(Config, attributes(config))]
pub fn derive_config(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    config::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// The cases of the plugin's `cases/` folder that are marked `"self_test": true`, as the bytes of a JSON array.
#[doc(hidden)]
#[proc_macro]
pub fn self_test_cases(input: TokenStream) -> TokenStream {
    let input = proc_macro2::TokenStream::from(input);
    cases::embed(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
