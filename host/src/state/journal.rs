// SPDX-License-Identifier: Apache-2.0
//! A journal of lines that outlive the process: what was written before a `kill -9` is there at the next start.
//!
//! A line is appended with one `write` to a file that is opened for appending, so writers need no lock, and the kernel has
//! it whatever becomes of the process. It is not told to the disk (`fsync`): a power cut may take the last seconds.
//!
//! The folder holds a base and segments, `base-N` and `segment-M` with M > N. The base stands for all segments up to its
//! number. Compaction begins a new segment, waits until nobody writes to the one before, writes the next base beside it and
//! renames that into its place; only then are the older files removed. Wherever the process ends, what is read at the next
//! start is each line once.
//!
//! Two processes can share a folder for a while: one that hands its sockets over writes what it settles after that into a file of its
//! own, `late-PID`, which it holds locked. Whoever finds such a file without a lock takes it over as a segment.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

/// A segment of this size is compacted, or one of the size of the base if that is larger.
const SEGMENT_BYTES: u64 = 8 << 20;
/// A writer holds on to a segment for one `write`; how often it is looked whether that is over.
const WRITER: Duration = Duration::from_millis(1);

/// How the file of a process begins that has handed over.
const LATE: &str = "late-";

/// What becomes of the lines when the journal is compacted: as many that say the same, in fewer.
pub(super) type Fold = dyn Fn(&[String]) -> Vec<String> + Send + Sync;

pub(super) struct Journal {
    folder: PathBuf,
    segment: ArcSwap<Segment>,
    base_bytes: AtomicU64,
    compacting: AtomicBool,
    /// The last line could not be written, or not whole.
    torn: AtomicBool,
    fold: Box<Fold>,
}

struct Segment {
    number: u64,
    file: File,
    bytes: AtomicU64,
}

impl Journal {
    /// Opens a journal, compacts it, and answers with its lines.
    pub(super) fn open(folder: &Path, fold: Box<Fold>) -> io::Result<(Arc<Self>, Vec<String>)> {
        fs::create_dir_all(folder)?;
        let mut last = files(folder)?.into_iter().map(|(number, _, _)| number).max().unwrap_or(0);
        for left in left_behind(folder)? {
            last += 1;
            fs::rename(left, segment_path(folder, last))?;
        }
        let segment = Segment::create(folder, last + 1)?;
        let journal = Self {
            folder: folder.to_owned(),
            segment: ArcSwap::from_pointee(segment),
            base_bytes: AtomicU64::new(0),
            compacting: AtomicBool::new(false),
            torn: AtomicBool::new(false),
            fold,
        };
        let lines = journal.rebase(last)?;
        Ok((Arc::new(journal), lines))
    }

    /// Appends a line, which must hold no line break. One that cannot be written is lost; the log says so once, and once when lines are
    /// written again.
    pub(super) fn append(self: &Arc<Self>, line: &str) {
        // What a full disk has left of a line must not spoil the next one; an empty line is none.
        let begin = if self.torn.load(Ordering::Relaxed) { "\n" } else { "" };
        let checked = format!("{begin}{:08x} {line}\n", crc32fast::hash(line.as_bytes()));
        let bytes = {
            let segment = self.segment.load();
            let written = (&segment.file).write_all(checked.as_bytes());
            self.tell(written.as_ref().err());
            if written.is_err() {
                return;
            }
            segment.bytes.fetch_add(checked.len() as u64, Ordering::Relaxed) + checked.len() as u64
        };
        let full = bytes >= SEGMENT_BYTES.max(self.base_bytes.load(Ordering::Relaxed));
        if full && !self.compacting.swap(true, Ordering::Relaxed) {
            let journal = Arc::clone(self);
            let compact = move || {
                if let Err(error) = journal.compact() {
                    tracing::error!("the journal {} cannot be compacted: {error}", journal.folder.display());
                }
                journal.compacting.store(false, Ordering::Relaxed);
            };
            if let Err(error) = std::thread::Builder::new().name("journal".to_owned()).spawn(compact) {
                tracing::error!("the journal {} cannot be compacted: {error}", self.folder.display());
                self.compacting.store(false, Ordering::Relaxed);
            }
        }
    }

    fn tell(&self, error: Option<&io::Error>) {
        // Looked at before it is changed, so that writers share it while all is well.
        if self.torn.load(Ordering::Relaxed) == error.is_some()
            || self.torn.swap(error.is_some(), Ordering::Relaxed) == error.is_some()
        {
            return;
        }
        let folder = self.folder.display();
        match error {
            Some(error) => tracing::error!("the journal {folder} cannot be written: {error}"),
            None => tracing::info!("the journal {folder} is written again"),
        }
    }

    /// Bytes of all its files.
    pub(super) fn bytes(&self) -> u64 {
        self.base_bytes.load(Ordering::Relaxed) + self.segment.load().bytes.load(Ordering::Relaxed)
    }

    /// Writes into a file of this process from now on, so that another one may open the journal. It is not compacted any more.
    pub(super) fn hand_over(&self) -> io::Result<()> {
        while self.compacting.swap(true, Ordering::Relaxed) {
            std::thread::sleep(WRITER);
        }
        let path = self.late_path();
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        file.lock()?;
        let late = Segment { number: 0, file, bytes: AtomicU64::new(0) };
        let mut before = self.segment.swap(Arc::new(late));
        while Arc::get_mut(&mut before).is_none() {
            std::thread::sleep(WRITER);
        }
        Ok(())
    }

    /// Forgets what was written since [`Self::hand_over`]: it was told elsewhere.
    pub(super) fn forget_late(&self) -> io::Result<()> {
        fs::remove_file(self.late_path())
    }

    /// Takes over what processes have written after they had handed over and before they ended. The lines are in the journal when
    /// this returns.
    pub(super) fn take_late(&self) -> io::Result<Vec<String>> {
        let left = left_behind(&self.folder)?;
        let mut lines = Vec::new();
        if left.is_empty() || self.compacting.swap(true, Ordering::Relaxed) {
            return Ok(lines); // the next look finds it
        }
        let taken = left.into_iter().try_for_each(|left| {
            let number = self.segment.load().number + 1;
            // Numbers keep their order: what was left behind comes before what is written from now on.
            self.segment.store(Arc::new(Segment::create(&self.folder, number + 1)?));
            let path = segment_path(&self.folder, number);
            fs::rename(left, &path)?;
            read(&path, &mut lines)
        });
        self.compacting.store(false, Ordering::Relaxed);
        taken.map(|()| lines)
    }

    fn late_path(&self) -> PathBuf {
        self.folder.join(format!("{LATE}{}", std::process::id()))
    }

    fn compact(&self) -> io::Result<()> {
        let number = self.segment.load().number;
        let mut before = self.segment.swap(Arc::new(Segment::create(&self.folder, number + 1)?));
        while Arc::get_mut(&mut before).is_none() {
            std::thread::sleep(WRITER);
        }
        self.rebase(number).map(drop)
    }

    /// Makes a base of everything up to a number, and answers with its lines.
    fn rebase(&self, up_to: u64) -> io::Result<Vec<String>> {
        let all = files(&self.folder)?;
        let base =
            all.iter().filter(|(number, is_base, _)| *is_base && *number <= up_to).map(|(number, ..)| *number).max();
        let is_read = |number: u64, is_base: bool| {
            number <= up_to && base.is_none_or(|base| if is_base { number == base } else { number > base })
        };
        let mut lines = Vec::new();
        let mut old = Vec::new();
        for (number, is_base, path) in all {
            if is_read(number, is_base) {
                read(&path, &mut lines)?;
            }
            if number <= up_to {
                old.push((number, is_base, path));
            }
        }
        if old.is_empty() {
            return Ok(lines);
        }
        let lines = (self.fold)(&lines);
        let (scratch, place) = (self.folder.join("base.new"), self.folder.join(format!("base-{up_to:020}")));
        let mut text = String::new();
        for line in &lines {
            text.push_str(&format!("{:08x} {line}\n", crc32fast::hash(line.as_bytes())));
        }
        let mut file = File::create(&scratch)?;
        file.write_all(text.as_bytes())?;
        // A base is all there is of what came before it, so that it must not be lost to a power cut.
        file.sync_data()?;
        fs::rename(&scratch, &place)?;
        self.base_bytes.store(text.len() as u64, Ordering::Relaxed);
        for (number, is_base, path) in old {
            if !(is_base && number == up_to) {
                fs::remove_file(path)?;
            }
        }
        Ok(lines)
    }
}

impl Segment {
    fn create(folder: &Path, number: u64) -> io::Result<Self> {
        let path = segment_path(folder, number);
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        Ok(Self { number, file, bytes: AtomicU64::new(0) })
    }
}

fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("segment-{number:020}"))
}

/// Files of processes that have handed over and ended: nobody holds a lock on them.
fn left_behind(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(LATE)) {
            match File::open(entry.path())?.try_lock() {
                Ok(()) => found.push(entry.path()),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// Number, whether it is a base, and path of each file, in the order of the numbers.
fn files(folder: &Path) -> io::Result<Vec<(u64, bool, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((kind, number)) = name.to_str().and_then(|name| name.split_once('-')) else { continue };
        let (Ok(number), true) = (number.parse(), kind == "base" || kind == "segment") else { continue };
        found.push((number, kind == "base", entry.path()));
    }
    found.sort();
    Ok(found)
}

/// Reads the lines of a file that are whole. Only the last one of a process that was killed can be torn.
fn read(path: &Path, lines: &mut Vec<String>) -> io::Result<()> {
    let bytes = fs::read(path)?;
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let whole = std::str::from_utf8(line).ok().and_then(|line| line.split_once(' ')).filter(|(sum, text)| {
            u32::from_str_radix(sum, 16).is_ok_and(|sum| sum == crc32fast::hash(text.as_bytes()))
        });
        match whole {
            Some((_, text)) => lines.push(text.to_owned()),
            None => tracing::warn!("{}: a line that is torn is left out", path.display()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(lines: &[String]) -> Vec<String> {
        vec![lines.iter().map(|line| line.parse::<u64>().unwrap()).sum::<u64>().to_string()]
    }

    fn open(folder: &Path) -> (Arc<Journal>, Vec<String>) {
        Journal::open(folder, Box::new(sum)).unwrap()
    }

    #[test]
    fn lines_are_there_at_the_next_start_and_a_torn_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, lines) = open(folder.path());
        assert_eq!(lines, Vec::<String>::new());
        (1..=4).for_each(|number| journal.append(&number.to_string()));
        (&journal.segment.load().file).write_all(b"0badc0de 500\n12").unwrap();
        let (journal, lines) = open(folder.path());
        assert_eq!(lines, ["10"]);
        journal.append("5");
        drop(journal);
        assert_eq!(open(folder.path()).1, ["15"]);
        assert_eq!(open(folder.path()).1, ["15"]);
    }

    #[test]
    fn wherever_a_compaction_ends_each_line_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = open(folder.path());
        journal.append("7");
        let kept = tempfile::tempdir().unwrap();
        let copy = |to: &Path| {
            for (_, _, path) in files(folder.path()).unwrap() {
                fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
            }
        };
        copy(kept.path());
        journal.compact().unwrap();
        journal.append("8");
        journal.compact().unwrap();
        // The files from before both compactions were never removed, and a base was being written.
        copy(kept.path());
        fs::write(kept.path().join("base.new"), "torn").unwrap();
        assert_eq!(open(kept.path()).1, ["15"]);
    }

    #[test]
    fn what_is_settled_after_a_hand_over_counts_once_when_the_process_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (old, _) = open(folder.path());
        old.append("1");
        old.hand_over().unwrap();
        let (new, lines) = open(folder.path());
        assert_eq!(lines, ["1"]);
        old.append("20");
        new.append("300");
        assert_eq!(new.take_late().unwrap(), Vec::<String>::new(), "it may still write");
        drop(old);
        assert_eq!(new.take_late().unwrap(), ["20"]);
        assert_eq!(new.take_late().unwrap(), Vec::<String>::new());
        new.append("4000");
        new.compact().unwrap();
        drop(new);
        assert_eq!(open(folder.path()).1, ["4321"]);
        // Nobody was there to take it.
        let (last, _) = open(folder.path());
        last.hand_over().unwrap();
        last.append("50000");
        drop(last);
        assert_eq!(open(folder.path()).1, ["54321"]);
    }

    #[test]
    fn nothing_is_lost_when_many_write_while_it_is_compacted() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = open(folder.path());
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let journal = Arc::clone(&journal);
                std::thread::spawn(move || (0..2000).for_each(|_| journal.append("1")))
            })
            .collect();
        (0..20).for_each(|_| journal.compact().unwrap());
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert_eq!(open(folder.path()).1, ["8000"]);
    }
}
