// SPDX-License-Identifier: Apache-2.0
//! The first credential of the admin API: 32 random bytes, made at the first start, in a file that only its owner may read.
//! There is no default, and no way to set it from outside. The master key that seals vendor keys is made in the same way.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::place::hex;

/// Name of the file in the state directory.
pub const FILE: &str = "admin-token";
/// Random bytes in a token.
const BYTES: usize = 32;

/// The token, as its SHA-256: what is compared has one length, and the token itself is not kept.
pub struct Token {
    sum: [u8; 32],
}

impl Token {
    /// The token of a state directory, made if there is none. The directory is made if need be. Errors name the file, and
    /// say what to do; they hold nothing of the token.
    ///
    /// # Errors
    /// The file cannot be made or read, or others may read it.
    pub fn open(state: &Path) -> Result<(Self, PathBuf), String> {
        let path = state.join(FILE);
        let text = file(&path)?;
        Ok((Self { sum: Sha256::digest(&text).into() }, path))
    }

    /// Whether this is the token; takes the same time for every wrong one of the same length.
    #[must_use]
    pub fn is(&self, given: &[u8]) -> bool {
        let sum: [u8; 32] = Sha256::digest(given).into();
        sum.ct_eq(&self.sum).into()
    }
}

/// The content of a file that only its owner may read: 32 random bytes in hexadecimal, if the file had to be made. Its
/// directory is made if need be.
///
/// # Errors
/// What is wrong with the file, and what to do; nothing of its content.
pub(super) fn file(path: &Path) -> Result<Vec<u8>, String> {
    let problem = |error: io::Error| format!("{}: {error}", path.display());
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(problem)?;
    }
    if let Err(error) = make(path)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(problem(error));
    }
    Ok(read(path)?.trim_ascii().to_vec())
}

/// Written aside and linked into place, so that another process never reads half a token.
fn make(path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut random = [0; BYTES];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let aside = path.with_extension(format!("{}.part", std::process::id()));
    let _ = fs::remove_file(&aside); // left by a process of the same number
    let written =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside).and_then(|mut file| {
            file.write_all(format!("{}\n", hex(&random)).as_bytes()).and_then(|()| file.sync_all())
        });
    let linked = written.and_then(|()| fs::hard_link(&aside, path));
    fs::remove_file(&aside)?;
    linked
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let problem = |error: io::Error| format!("{}: {error}", path.display());
    let file = fs::File::open(path).map_err(problem)?;
    let metadata = file.metadata().map_err(problem)?;
    if !metadata.is_file() {
        return Err(format!("{}: not a file: remove it", path.display()));
    }
    if metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(format!(
            "{}: others may read or write it (mode {mode:04o}): `chmod 600` it if nobody has seen it, or make another",
            path.display()
        ));
    }
    let mut text = Vec::new();
    file.take(4096).read_to_end(&mut text).map_err(problem)?;
    if text.trim_ascii().len() < BYTES {
        return Err(format!("{}: shorter than {BYTES} bytes: remove it, so that a new token is made", path.display()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_first_start_makes_a_token_that_only_the_owner_reads_and_later_starts_keep_it() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("new/state");
        let (token, path) = Token::open(&state).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), fs::metadata(&path).unwrap().mode() & 0o777), (65, 0o600));
        assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
        let (again, _) = Token::open(&state).unwrap();
        for token in [token, again] {
            assert!(token.is(text.trim().as_bytes()));
            for wrong in ["", "x", &text[..63], &text.to_uppercase(), &format!("{}0", text.trim())] {
                assert!(!token.is(wrong.as_bytes()), "{wrong}");
            }
        }
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing is left beside it");
        let other = tempfile::tempdir().unwrap();
        assert!(!Token::open(other.path()).unwrap().0.is(text.trim().as_bytes()), "each state directory has its own");
    }

    #[test]
    fn a_token_that_others_may_read_or_that_is_no_token_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (_, path) = Token::open(directory.path()).unwrap();
        for mode in [0o644, 0o640, 0o602, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Token::open(directory.path()).err().unwrap();
            assert!(error.contains(&format!("{mode:04o}")) && error.contains("admin-token"), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "short\n").unwrap();
        let error = Token::open(directory.path()).err().unwrap();
        assert!(error.contains("shorter") && !error.contains("short\n"), "{error}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(Token::open(directory.path()).is_err());
    }
}
