// SPDX-License-Identifier: Apache-2.0
//! A process that holds keys leaves no image of its memory behind. The ceiling of zero bytes keeps the kernel from writing a core
//! file; that the process is not dumpable keeps it from handing one to a program, for which that ceiling does not count, and
//! other processes of the same user from reading its memory and environment.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Forbids images of this process and of those that it starts.
///
/// # Errors
/// The kernel does not allow it.
pub fn forbid() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
