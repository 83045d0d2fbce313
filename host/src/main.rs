// SPDX-License-Identifier: Apache-2.0
//! The `penstock` command.

fn main() {}
