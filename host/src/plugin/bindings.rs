// SPDX-License-Identifier: Apache-2.0
//! The contract as wasmtime sees it: generated, and nothing else.
//!
//! One world over all interfaces, so that each type exists once. What a plugin of a kind may import is decided by the
//! linker that it gets (`engine`), what it must export by the role that it plays (`pool`).

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    dead_code,
    clippy::all,
    clippy::pedantic,
    clippy::cast_possible_truncation,
    reason = "generated from wit/"
)]

wasmtime::component::bindgen!({
    path: "../wit",
    inline: "
        package penstock:host;
        world every-kind {
            include penstock:plugin/base@0.1.0;
            import penstock:plugin/secrets@0.1.0;
            import penstock:plugin/state@0.1.0;
            import penstock:plugin/virtual-keys@0.1.0;
            import penstock:plugin/rules@0.1.0;
            import penstock:plugin/documents@0.1.0;
            import penstock:plugin/signatures@0.1.0;
            export penstock:plugin/adapter@0.1.0;
            export penstock:plugin/signing@0.1.0;
            export penstock:plugin/credentials@0.1.0;
            export penstock:plugin/auth@0.1.0;
            export penstock:plugin/limits@0.1.0;
            export penstock:plugin/routing@0.1.0;
            export penstock:plugin/head-filter@0.1.0;
            export penstock:plugin/response-filter@0.1.0;
        }
    ",
    world: "every-kind",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
    with: {
        "penstock:plugin/secrets.secret": super::imports::SecretHandle,
        "penstock:plugin/metrics.counter": super::series::CounterHandle,
        "penstock:plugin/metrics.histogram": super::series::HistogramHandle,
    },
});
