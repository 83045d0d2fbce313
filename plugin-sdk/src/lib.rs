// SPDX-License-Identifier: Apache-2.0
//! What authors of Penstock plugins depend on: a trait and a macro for each kind of plugin, a derive for its
//! configuration, and wrappers of what the host offers (documents, log, metrics, rules, secrets, signatures, state, virtual
//! keys).
//!
//! A plugin is a library with `crate-type = ["cdylib", "rlib"]`, built for `wasm32-wasip2`:
//!
//! ```
//! use penstock_sdk::prelude::{Call, Config, Issue, Routing, Fault, Order, Target};
//!
//! /// Tries the targets in the order of the policy.
//! #[derive(Config)]
//! struct Options {
//!     /// Whether to leave out what is not healthy.
//!     #[config(default = true)]
//!     skip_unhealthy: bool,
//! }
//!
//! struct InOrder(Options);
//!
//! impl Routing for InOrder {
//!     type Config = Options;
//!
//!     fn new(options: Options) -> Result<Self, Vec<Issue>> {
//!         Ok(Self(options))
//!     }
//!
//!     fn rank(&self, _: &Call, targets: &[Target], _seed: u64) -> Result<Order, Fault> {
//!         let skip = self.0.skip_unhealthy;
//!         Ok((0..targets.len()).filter(|index| targets[*index].healthy || !skip).collect())
//!     }
//! }
//!
//! penstock_sdk::routing!(InOrder);
//! ```
//!
//! Read the trait of your kind first: [`adapter::Adapter`], [`policy::Auth`], [`policy::Limits`], [`policy::Routing`],
//! [`policy::Filter`]. Plugins compute, the host does the I/O: there is no clock, no network and no file in here.

// The macros name the crate by its name, here as in a plugin.
extern crate self as penstock_sdk;

pub mod adapter;
pub mod call;
pub mod claims;
pub mod compatible;
pub mod config;
pub mod credential;
pub mod dialect;
pub mod documents;
pub mod log;
pub mod manifest;
pub mod metrics;
pub mod order;
pub mod passthrough;
pub mod pattern;
pub mod policy;
pub mod random;
pub mod relayed;
pub mod rules;
pub mod scope;
pub mod secrets;
pub mod signatures;
pub mod signing;
pub mod state;
pub mod virtual_keys;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
#[cfg(not(target_arch = "wasm32"))]
pub mod testkit;

pub use penstock_dialects as dialects;
#[doc(hidden)]
pub use penstock_sdk_macros::self_test_cases;

/// What most plugins need, by name.
pub mod prelude {
    pub use crate::adapter::{
        Adapter, Answer, Blob, Body, Credentials, Exchange, Fetching, Framing, Placed, Plan, Signer, TOKEN, Unasked,
        Unsigned, Upstream,
    };
    pub use crate::call::{Call, Pairs, Wants};
    pub use crate::config::{Config, Issue};
    pub use crate::log;
    pub use crate::order::Order;
    pub use crate::policy::{
        Algorithm, Auth, Check, Counted, Edit, Filter, Grant, Head, Limits, Reply, ResponseFilter, Routing, Target,
        Verdict,
    };
    pub use crate::secrets::Secret;
    pub use penstock_dialects::framing::Frame;
    pub use penstock_dialects::ir::{Event, Fault, FaultClass, Finish, Request, Usage};
    pub use penstock_sdk_macros::Config;
}

/// Exports a type that implements [`adapter::Adapter`]; `adapter!(Type, signing)` one that is an
/// [`adapter::Signer`], too, `adapter!(Type, credentials)` one that is [`adapter::Credentials`].
#[macro_export]
macro_rules! adapter {
    ($plugin:ty $(, $further:ident)*) => {
        $crate::__plugin!(
            $plugin,
            "adapter",
            <$plugin as $crate::adapter::Adapter>::Config,
            <$plugin as $crate::adapter::Adapter>::DIALECTS,
            <$plugin as $crate::adapter::Adapter>::OPERATIONS,
            <$plugin as $crate::adapter::Adapter>::FEATURES,
            <$plugin as $crate::adapter::Adapter>::SECRETS,
            AdapterExport,
            AdapterSubject,
            adapter
            $(, $further)*
        );
    };
}

/// Exports a type that implements [`policy::Auth`].
#[macro_export]
macro_rules! auth {
    ($plugin:ty) => {
        $crate::__plugin!(
            $plugin,
            "auth",
            <$plugin as $crate::policy::Auth>::Config,
            &[],
            &[],
            &[],
            <$plugin as $crate::policy::Auth>::SECRETS,
            AuthExport,
            AuthSubject,
            auth
        );
    };
}

/// Exports a type that implements [`policy::Limits`].
#[macro_export]
macro_rules! limits {
    ($plugin:ty) => {
        $crate::__plugin!(
            $plugin,
            "limits",
            <$plugin as $crate::policy::Limits>::Config,
            &[],
            &[],
            &[],
            &[],
            LimitsExport,
            LimitsSubject,
            limits
        );
    };
}

/// Exports a type that implements [`policy::Routing`].
#[macro_export]
macro_rules! routing {
    ($plugin:ty) => {
        $crate::__plugin!(
            $plugin,
            "routing",
            <$plugin as $crate::policy::Routing>::Config,
            &[],
            &[],
            &[],
            &[],
            RoutingExport,
            RoutingSubject,
            routing
        );
    };
}

/// Exports a type that implements [`policy::Filter`].
#[macro_export]
macro_rules! filter {
    ($plugin:ty) => {
        $crate::__plugin!(
            $plugin,
            "filter",
            <$plugin as $crate::policy::Filter>::Config,
            &[],
            &[],
            &[],
            &[],
            FilterExport,
            FilterSubject,
            head_filter
        );
    };
}

/// Exports a type that implements [`policy::ResponseFilter`].
#[macro_export]
macro_rules! response_filter {
    ($plugin:ty) => {
        $crate::__plugin!(
            $plugin,
            "filter",
            <$plugin as $crate::policy::Filter>::Config,
            &[],
            &[],
            &[],
            &[],
            FilterExport,
            ResponseFilterSubject,
            head_filter,
            response_filter
        );
    };
}

/// The manifest and the self-test as custom sections, and the exports. Not for authors.
#[doc(hidden)]
#[macro_export]
macro_rules! __plugin {
    ($plugin:ty, $kind:literal, $config:ty, $dialects:expr, $operations:expr, $features:expr, $secrets:expr, $export:ident, $subject:ident, $($interface:ident),+) => {
        const _: () = {
            const MANIFEST: $crate::manifest::Manifest = $crate::manifest::Manifest {
                kind: $kind,
                name: env!("CARGO_PKG_NAME"),
                version: env!("CARGO_PKG_VERSION"),
                description: env!("CARGO_PKG_DESCRIPTION"),
                licence: env!("CARGO_PKG_LICENSE"),
                dialects: $dialects,
                operations: $operations,
                features: $features,
                secrets: $secrets,
                schema: <$config as $crate::config::Config>::SCHEMA,
            };
            const LENGTH: usize = MANIFEST.render::<0>().length;

            #[used]
            #[cfg_attr(target_arch = "wasm32", unsafe(link_section = "penstock:plugin"))]
            static SECTION: [u8; LENGTH] = MANIFEST.render::<LENGTH>().bytes;

            const CASES: &[u8] = $crate::self_test_cases!();

            #[used]
            #[cfg_attr(target_arch = "wasm32", unsafe(link_section = "penstock:vectors"))]
            static VECTORS: [u8; CASES.len()] = *CASES.as_array().expect("as long as itself");

            #[cfg(target_arch = "wasm32")]
            impl $crate::guest::Installed for $plugin {
                fn slot() -> &'static $crate::guest::Slot<Self> {
                    ::std::thread_local! {
                        static SLOT: ::core::cell::RefCell<::core::option::Option<::std::rc::Rc<$plugin>>> =
                            const { ::core::cell::RefCell::new(::core::option::Option::None) };
                    }
                    &SLOT
                }
            }

            #[cfg(not(target_arch = "wasm32"))]
            impl $crate::testkit::Plugin for $plugin {
                type Subject = $crate::testkit::$subject<$plugin>;
            }

            #[cfg(target_arch = "wasm32")]
            type Export = $crate::guest::$export<$plugin>;
            #[cfg(target_arch = "wasm32")]
            $crate::guest::bindings::lifecycle::export!(Export with_types_in $crate::guest::bindings::lifecycle);
            $(
                #[cfg(target_arch = "wasm32")]
                $crate::guest::bindings::$interface::export!(Export with_types_in $crate::guest::bindings::$interface);
            )+
        };
    };
}
