// SPDX-License-Identifier: Apache-2.0
//! One test binary; a file per topic.

mod anthropic;
