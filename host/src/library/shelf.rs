// SPDX-License-Identifier: Apache-2.0
//! The directories with plugin files. A file counts once it has not been written to for a moment; what a file was before
//! it broke is remembered, so that a broken copy takes nothing away.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::store::digest_of;
use super::{Facts, Refused};

/// A file that was written to within this time may still be growing.
pub const SETTLE: Duration = Duration::from_millis(100);
/// Plugin files in one directory.
pub const FILES_MAX: usize = 1_000;

/// Code of the refusal of a second file with the same name.
const AMBIGUOUS: &str = "ambiguous-name";

/// The directories, the one that wins last, and what was found in them.
#[derive(Debug)]
pub struct Shelves {
    directories: Vec<PathBuf>,
    files: BTreeMap<PathBuf, Held>,
}

/// What is known of a file.
#[derive(Debug, Clone)]
pub struct Held {
    stamp: Stamp,
    /// Which directory it is in.
    shelf: usize,
    /// Digest of the content that was last read; empty if it could not be.
    pub digest: String,
    /// The last version that was good.
    pub good: Option<Facts>,
    /// Why the content is refused, if it is.
    pub refused: Option<Refused>,
}

/// Says that a file may have changed without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl Shelves {
    /// These directories; those that do not exist hold nothing until they do.
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self { directories, files: BTreeMap::new() }
    }

    /// The files.
    pub fn files(&self) -> &BTreeMap<PathBuf, Held> {
        &self.files
    }

    /// Has the next look read those files anew that were refused with this code.
    pub fn look_again_at(&mut self, code: &str) {
        let refused = |held: &Held| held.refused.as_ref().is_some_and(|refused| refused.code == code);
        for held in self.files.values_mut().filter(|held| refused(held)) {
            held.digest.clear();
            held.stamp.modified = None;
            held.stamp.inode = 0;
        }
    }

    /// Looks through the directories; `load` is given each new content. True: something is not settled, look again soon.
    pub fn scan(&mut self, bytes_max: usize, mut load: impl FnMut(&Path, &[u8]) -> Result<Facts, Refused>) -> bool {
        let mut unsettled = false;
        let mut there = BTreeMap::new();
        for (shelf, directory) in self.directories.iter().enumerate() {
            for path in list(directory, |path| self.files.contains_key(path)) {
                let before = self.files.remove(&path);
                let Some(stamp) = stamp_of(&path) else { continue };
                let known = before.as_ref().is_some_and(|held| held.stamp == stamp);
                let held = match before {
                    Some(held) if known => held,
                    before if !stamp.is_settled() => {
                        unsettled = true;
                        let Some(held) = before else { continue };
                        held
                    }
                    before => match content(&path, &stamp, bytes_max) {
                        Ok(Some(bytes)) => inspect(&path, &bytes, stamp, shelf, before, &mut load),
                        Ok(None) => {
                            unsettled = true;
                            let Some(held) = before else { continue };
                            held
                        }
                        Err(refused) => {
                            warn(&path, &refused);
                            let good = before.and_then(|held| held.good);
                            Held { stamp, shelf, digest: String::new(), good, refused: Some(refused) }
                        }
                    },
                };
                there.insert(path, held);
            }
        }
        self.files = there;
        unsettled
    }

    /// For each name the file that supplies it: the last directory wins; within one, a second file is refused.
    pub fn supply(&mut self, serving: impl Fn(&Facts) -> bool) -> BTreeMap<String, (PathBuf, Facts)> {
        let mut supply: BTreeMap<String, (usize, PathBuf, Facts)> = BTreeMap::new();
        let mut clashes = Vec::new();
        for (path, held) in &self.files {
            let Some(facts) = &held.good else { continue };
            let entry = (held.shelf, path.clone(), facts.clone());
            match supply.get_mut(&facts.name) {
                Some(other) if other.0 == held.shelf && other.2.digest != facts.digest => {
                    if serving(facts) && !serving(&other.2) {
                        let loser = std::mem::replace(other, entry);
                        clashes.push((loser.1, path.clone()));
                    } else {
                        clashes.push((path.clone(), other.1.clone()));
                    }
                }
                Some(other) if other.0 < held.shelf => *other = entry,
                Some(_) => {}
                None => drop(supply.insert(facts.name.clone(), entry)),
            }
        }
        for (path, held) in &mut self.files {
            let winner = clashes.iter().find(|(loser, _)| loser == path).map(|(_, winner)| winner);
            let refused = winner.map(|winner| {
                let message = format!("{} is a plugin of the same name in the same directory", winner.display());
                Refused::new(AMBIGUOUS, message, "remove one of the two files")
            });
            if let Some(refused) = refused.as_ref().filter(|_| held.refused != refused) {
                warn(path, refused);
            }
            if refused.is_some() || held.refused.as_ref().is_some_and(|refused| refused.code == AMBIGUOUS) {
                held.refused = refused;
            }
        }
        supply.into_iter().map(|(name, (_, path, facts))| (name, (path, facts))).collect()
    }
}

impl Stamp {
    /// A time in the future says nothing; the content is then checked by the gate alone.
    fn is_settled(&self) -> bool {
        self.modified.is_none_or(|at| SystemTime::now().duration_since(at).map_or(true, |age| age >= SETTLE))
    }
}

fn warn(path: &Path, refused: &Refused) {
    tracing::warn!(path = %path.display(), code = refused.code, "a plugin file is refused: {refused}");
}

fn inspect(
    path: &Path,
    bytes: &[u8],
    stamp: Stamp,
    shelf: usize,
    before: Option<Held>,
    load: &mut impl FnMut(&Path, &[u8]) -> Result<Facts, Refused>,
) -> Held {
    let digest = digest_of(bytes);
    match before {
        Some(held) if held.digest == digest => Held { stamp, shelf, ..held },
        before => match load(path, bytes) {
            Ok(facts) => Held { stamp, shelf, digest, good: Some(facts), refused: None },
            Err(refused) => {
                warn(path, &refused);
                let good = before.and_then(|held| held.good);
                Held { stamp, shelf, digest, good, refused: Some(refused) }
            }
        },
    }
}

/// Plugin files of a directory by name; hidden ones and other endings (`.part`, `.tmp`) are not looked at. When there are too
/// many, those that were there before come first: a flood of files takes nothing away.
fn list(directory: &Path, is_known: impl Fn(&PathBuf) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let is_plugin = |path: &PathBuf| {
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && path.extension().is_some_and(|extension| extension == "wasm")
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_plugin).collect();
    paths.sort();
    if paths.len() > FILES_MAX {
        tracing::warn!(directory = %directory.display(), files = paths.len(), "only {FILES_MAX} plugin files are read");
        paths.sort_by_key(|path| !is_known(path));
        paths.truncate(FILES_MAX);
    }
    paths
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(Stamp { bytes: metadata.len(), modified: metadata.modified().ok(), inode: metadata.ino() })
}

/// The whole file; none if it was written to meanwhile or is gone.
fn content(path: &Path, stamp: &Stamp, bytes_max: usize) -> Result<Option<Vec<u8>>, Refused> {
    let too_large = || {
        let message = format!("the file has more than {bytes_max} bytes");
        Refused::new("too-large", message, "make it smaller, or raise sandbox.component_bytes_max")
    };
    if stamp.bytes > bytes_max as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    match open(path).and_then(|file| file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Refused::new("unreadable", error.to_string(), "see that the gateway may read the file"));
        }
        Ok(_) => {}
    }
    if bytes.len() > bytes_max {
        return Err(too_large());
    }
    Ok(Some(bytes).filter(|_| stamp_of(path).as_ref() == Some(stamp)))
}

/// Opens a file that was one a moment ago; should it be a pipe by now, nobody waits for it.
fn open(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    fs::File::options().read(true).custom_flags(flags.cast_signed()).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text in place of components: `name version`; anything else is refused.
    fn load(_: &Path, bytes: &[u8]) -> Result<Facts, Refused> {
        let text = String::from_utf8_lossy(bytes);
        let (name, version) = text.split_once(' ').ok_or_else(|| Refused::new("bad", "no blank", ""))?;
        let text = |text: &str| text.to_owned();
        Ok(Facts {
            name: text(name),
            kind: text("auth"),
            version: text(version),
            api: text("0.1.0"),
            digest: digest_of(bytes),
            seal: None,
        })
    }

    /// Writes a file that was finished a while ago.
    fn write(path: &Path, content: &str) {
        fs::write(path, content).unwrap();
        settle(path, Duration::from_secs(1));
    }

    fn settle(path: &Path, age: Duration) {
        fs::File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }

    fn versions(shelves: &mut Shelves) -> Vec<String> {
        shelves.supply(|_| false).into_values().map(|(_, facts)| format!("{} {}", facts.name, facts.version)).collect()
    }

    #[test]
    fn a_later_directory_wins_and_a_removed_file_gives_way() {
        let (built_in, drop_in) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut shelves =
            Shelves::new(vec![built_in.path().to_owned(), drop_in.path().to_owned(), "/nonexistent".into()]);
        write(&built_in.path().join("x.wasm"), "a 1");
        write(&drop_in.path().join("a.wasm"), "a 2");
        write(&drop_in.path().join("b.wasm"), "b 1");
        assert!(!shelves.scan(100, load));
        assert_eq!(versions(&mut shelves), ["a 2", "b 1"]);
        fs::remove_file(drop_in.path().join("a.wasm")).unwrap();
        assert!(!shelves.scan(100, load));
        assert_eq!(versions(&mut shelves), ["a 1", "b 1"]);
    }

    #[test]
    fn a_broken_file_leaves_the_last_good_version_and_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.wasm");
        let mut shelves = Shelves::new(vec![directory.path().to_owned()]);
        write(&path, "a 1");
        shelves.scan(100, load);
        for (content, code) in [("broken", "bad"), (&*"x".repeat(200), "too-large")] {
            write(&path, content);
            shelves.scan(100, load);
            assert_eq!(versions(&mut shelves), ["a 1"]);
            assert_eq!(shelves.files()[&path].refused.as_ref().unwrap().code, code);
        }
        write(&path, "a 2");
        shelves.scan(100, load);
        assert_eq!(versions(&mut shelves), ["a 2"]);
        assert_eq!(shelves.files()[&path].refused, None);
    }

    #[test]
    fn a_file_that_is_being_written_hidden_or_no_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.wasm");
        let mut shelves = Shelves::new(vec![directory.path().to_owned()]);
        for name in [".a.wasm", "a.wasm.part", "a.tmp"] {
            write(&directory.path().join(name), "hidden 1");
        }
        fs::create_dir(directory.path().join("d.wasm")).unwrap();
        fs::write(&path, "a 1").unwrap();
        assert!(shelves.scan(100, load), "just written: look again");
        assert_eq!(versions(&mut shelves), [""; 0]);
        settle(&path, SETTLE);
        assert!(!shelves.scan(100, load));
        assert_eq!(versions(&mut shelves), ["a 1"]);
        fs::write(&path, "half of a ne").unwrap();
        assert!(shelves.scan(100, load));
        assert_eq!(versions(&mut shelves), ["a 1"], "the old version stays while the new one is written");
    }

    #[test]
    fn of_two_files_with_one_name_the_one_that_serves_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mut shelves = Shelves::new(vec![directory.path().to_owned()]);
        write(&path("b.wasm"), "a 1");
        write(&path("a.wasm"), "a 2");
        shelves.scan(100, load);
        let supply = shelves.supply(|facts| facts.version == "1");
        assert_eq!(supply["a"].1.version, "1");
        assert_eq!(shelves.files()[&path("a.wasm")].refused.as_ref().unwrap().code, "ambiguous-name");
        fs::remove_file(path("b.wasm")).unwrap();
        shelves.scan(100, load);
        assert_eq!(versions(&mut shelves), ["a 2"]);
        assert_eq!(shelves.files()[&path("a.wasm")].refused, None);
    }

    #[test]
    fn a_file_is_loaded_once_for_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.wasm");
        let mut shelves = Shelves::new(vec![directory.path().to_owned()]);
        let mut loads = 0;
        for age in [10, 10, 20] {
            fs::write(&path, "a 1").unwrap();
            settle(&path, Duration::from_secs(age));
            shelves.scan(100, |path, bytes| {
                loads += 1;
                load(path, bytes)
            });
        }
        assert_eq!(loads, 1);
    }
}
