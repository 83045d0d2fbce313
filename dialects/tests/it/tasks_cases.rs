// SPDX-License-Identifier: Apache-2.0
//! Tasks, what no recording shows.
