// SPDX-License-Identifier: Apache-2.0
//! What a process has counted after it had handed the directory over: a file for the one that follows. A kill between the two
//! writes of [`take`] counts a file twice, which only a report shows; limits have a journal.

use std::fs;
use std::io;
use std::path::Path;

use super::usage::Row;
use crate::library::Refused;

/// How the names of the files begin and end.
const NAME: (&str, &str) = ("late-usage-", ".json");

/// Leaves rows for the process that follows.
pub(super) fn leave(state: &Path, rows: &[Row]) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let (begin, end) = NAME;
    let process = std::process::id();
    let scratch = state.join(format!("{begin}{process}.new"));
    fs::write(&scratch, serde_json::to_vec(rows)?)?;
    fs::rename(scratch, state.join(format!("{begin}{process}{end}")))
}

/// Takes what was left, file by file: what `keep` has kept is removed.
pub(super) fn take(state: &Path, keep: impl Fn(&[Row]) -> Result<(), Refused>) -> Result<(), Refused> {
    let problem = |error: io::Error| {
        let message = format!("what the gateway before this one has counted cannot be read: {error}");
        Refused::new("directory-broken", message, "see that the state directory can be read and written")
    };
    for entry in fs::read_dir(state).map_err(problem)? {
        let entry = entry.map_err(problem)?;
        let name = entry.file_name();
        let is_left = name.to_str().is_some_and(|name| name.starts_with(NAME.0) && name.ends_with(NAME.1));
        if is_left {
            let rows: Vec<Row> = fs::read(entry.path())
                .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from))
                .map_err(problem)?;
            keep(&rows)?;
            fs::remove_file(entry.path()).map_err(problem)?;
        }
    }
    Ok(())
}
