// SPDX-License-Identifier: Apache-2.0
//! Golden cases of Penstock plugins.
