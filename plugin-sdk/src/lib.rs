// SPDX-License-Identifier: Apache-2.0
//! What authors of Penstock plugins depend on.
