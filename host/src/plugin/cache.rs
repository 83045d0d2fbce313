// SPDX-License-Identifier: Apache-2.0
//! Compiled components on disk: a restart or a reload then takes half a millisecond instead of a compilation.
//!
//! A compiled component is machine code that this process will run, so whoever can write into the directory can run
//! code here. Therefore the directory must belong to this user and be open to nobody else, and files are made 0600. A
//! file is named by the SHA-256 of the component and a hash of everything that the code depends on; it appears by a
//! rename, whole.

use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Files kept; past it the oldest ones go.
const FILES_MAX: usize = 512;

/// The directory.
pub(super) struct Cache {
    dir: PathBuf,
    configuration: u64,
}

impl Cache {
    /// Opens or makes the directory.
    ///
    /// # Errors
    /// It cannot be made, belongs to another user, or others may write into it.
    pub(super) fn open(dir: PathBuf, engine: &Engine) -> anyhow::Result<Self> {
        let shown = dir.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("cannot make the directory {shown} for compiled plugins"))?;
        let meta = fs::symlink_metadata(&dir).with_context(|| format!("cannot look at {shown}"))?;
        if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            bail!(
                "{shown} holds machine code that is run: it must be a directory of this user, mode 0700 (chmod 700 {shown})"
            );
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { dir, configuration: hasher.finish() })
    }

    /// The compiled form of a component. One that cannot be used counts as absent, and is compiled and written anew.
    pub(super) fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let path = self.path(digest);
        if !path.exists() {
            return None;
        }
        #[allow(unsafe_code, reason = "the only way to load compiled code")]
        // SAFETY: the file must be what `Engine::precompile_component` made, unchanged. It lies in a directory that
        // only this user can enter or write (checked in `open`), was written whole by `store` before it got this name,
        // and is never written again, only replaced. Whoever can change it can already act as this user.
        let component = unsafe { Component::deserialize_file(engine, &path) };
        component
            .inspect_err(|error| tracing::warn!(file = %path.display(), %error, "compiled plugin is of no use"))
            .ok()
    }

    /// Keeps a compiled component. A failure costs a compilation next time, so it is only logged.
    pub(super) fn store(&self, digest: &str, compiled: &[u8]) {
        let path = self.path(digest);
        if let Err(error) = self.write(&path, compiled) {
            tracing::warn!(file = %path.display(), %error, "cannot keep a compiled plugin");
        }
        self.tidy();
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{digest}-{:016x}.cwasm", self.configuration))
    }

    fn write(&self, path: &Path, compiled: &[u8]) -> std::io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let draft = self.dir.join(format!(".{}-{number}.draft", std::process::id()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        let written = file.write_all(compiled).and_then(|()| fs::rename(&draft, path));
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written
    }

    fn tidy(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut files: Vec<_> = entries
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        if files.len() > FILES_MAX {
            files.sort();
            for (_, path) in &files[..files.len() - FILES_MAX] {
                let _ = fs::remove_file(path);
            }
        }
    }
}
