// SPDX-License-Identifier: Apache-2.0
//! `penstock plugin sign`: puts a signature at the end of a component, for gateways that take only what is signed.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::{read, unwritable};
use crate::library::store::digest_of;
use crate::library::trust;

/// Writes the signed component, to its own place if no other is given, and prints what a policy may say of it.
pub(super) fn run(file: &Path, key: &Path, to: Option<&Path>, out: &mut dyn Write) -> Result<(), String> {
    let (signed, public) = trust::sign(&read(file)?, &read(key)?)?;
    let to = to.unwrap_or(file);
    // Beside and renamed: a gateway that watches the folder never reads half of it.
    let beside = to.with_extension("wasm.part");
    let written = fs::write(&beside, &signed).and_then(|()| fs::rename(&beside, to));
    written.map_err(|error| format!("{}: {error}", to.display()))?;
    writeln!(out, "signed {}\nsha256 {}\nkey    {public}", to.display(), digest_of(&signed)).map_err(unwritable)
}
