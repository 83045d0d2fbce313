// SPDX-License-Identifier: Apache-2.0
//! What every test needs: a gateway in this process, a fake upstream, and a caller that notices a cut.

pub mod caller;
pub mod cluster;
pub mod dns;
pub mod fake;
pub mod plugins;
pub mod program;
pub mod redis;
pub mod rig;
pub mod sources;
