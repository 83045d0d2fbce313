// SPDX-License-Identifier: Apache-2.0
//! The macros of penstock-sdk.
