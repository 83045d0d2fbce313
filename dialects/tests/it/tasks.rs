// SPDX-License-Identifier: Apache-2.0
//! Tasks against recorded exchanges.
