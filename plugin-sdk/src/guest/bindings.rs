// SPDX-License-Identifier: Apache-2.0
//! What wit-bindgen makes of `wit/`: the imports once, and for each kind of plugin the traits of its exports. Nothing
//! outside of [`crate::guest`] and the wrappers of imports (documents, log, metrics, rules, secrets, signatures, state, virtual keys) names it.
#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unsafe_code,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the documentation is in wit/"
)]

pub use imports::penstock::plugin::{
    documents, filter_types, log, metrics, requests, rules, secrets, signatures, state, types, virtual_keys,
};

pub mod imports {
    wit_bindgen::generate!({
        path: ["../wit", "wit"],
        world: "penstock:sdk/imports",
        generate_all,
        generate_unused_types: true,
        runtime_path: "::penstock_sdk::guest::rt",
    });
}

macro_rules! part {
    ($module:ident, $world:literal $(, $interface:literal = $shared:ident)*) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: ["../wit", "wit"],
                world: $world,
                pub_export_macro: true,
                runtime_path: "::penstock_sdk::guest::rt",
                with: { $($interface: super::$shared),* },
            });
        }
    };
}

part!(lifecycle, "penstock:sdk/lifecycle-part");
part!(
    adapter,
    "penstock:sdk/adapter-part",
    "penstock:plugin/requests@0.1.0" = requests,
    "penstock:plugin/types@0.1.0" = types
);
part!(
    credentials,
    "penstock:sdk/credentials-part",
    "penstock:plugin/requests@0.1.0" = requests,
    "penstock:plugin/types@0.1.0" = types
);
part!(signing, "penstock:sdk/signing-part", "penstock:plugin/types@0.1.0" = types);
part!(auth, "penstock:sdk/auth-part", "penstock:plugin/types@0.1.0" = types);
part!(limits, "penstock:sdk/limits-part", "penstock:plugin/types@0.1.0" = types);
part!(routing, "penstock:sdk/routing-part", "penstock:plugin/types@0.1.0" = types);
part!(
    head_filter,
    "penstock:sdk/head-filter-part",
    "penstock:plugin/types@0.1.0" = types,
    "penstock:plugin/filter-types@0.1.0" = filter_types
);
part!(
    response_filter,
    "penstock:sdk/response-filter-part",
    "penstock:plugin/types@0.1.0" = types,
    "penstock:plugin/filter-types@0.1.0" = filter_types
);
