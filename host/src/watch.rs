// SPDX-License-Identifier: Apache-2.0
//! Notices that files change, and tells [`Control`] to look at them. What has changed, and whether it is whole and good, is
//! found out there; an event that is missed or made up does no harm.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher};

use crate::cluster::Cluster;
use crate::control::{Control, Places};
use crate::listener::Certificates;

/// Events within this time of each other are one change.
const QUIET: Duration = Duration::from_millis(100);
/// A stream of events is cut into changes of this length.
const QUIET_MAX: Duration = Duration::from_millis(400);
/// Without events: the file system may not send any (network mounts), and a directory may be made anew.
const LOOK: Duration = Duration::from_secs(5);
/// The same when events cannot be had at all.
const POLL: Duration = Duration::from_millis(500);

/// Watches the policy files, the plugin directories and the certificates from a thread of its own, as long as the process lives.
pub fn start(
    control: Control,
    cluster: Option<Cluster>,
    places: &Places,
    certificates: Certificates,
) -> std::io::Result<()> {
    let (sender, events) = channel();
    let report = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = sender.send(()); // the thread is gone only when the process is
        }
    };
    let watcher = notify::recommended_watcher(report)
        .map_err(|error| tracing::warn!("files are polled, since their changes cannot be watched: {error}"))
        .ok();
    let mut watched = Watched { watcher, places: targets(places, &certificates), failed: false };
    watched.renew();
    std::thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || watched.run(&events, &control, cluster.as_ref(), &certificates))?;
    Ok(())
}

struct Watched<W> {
    watcher: Option<W>,
    places: Vec<(PathBuf, RecursiveMode)>,
    /// Some place that exists cannot be watched.
    failed: bool,
}

impl<W: Watcher> Watched<W> {
    fn run(mut self, events: &Receiver<()>, control: &Control, cluster: Option<&Cluster>, certificates: &Certificates) {
        loop {
            let wait = if self.failed || self.watcher.is_none() { POLL } else { LOOK };
            match events.recv_timeout(wait) {
                Ok(()) => until_quiet(events),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(POLL), // there is no watcher
            }
            self.renew();
            certificates.look();
            control.files_changed();
            cluster.into_iter().for_each(Cluster::files_changed);
        }
    }

    /// A directory that was made anew is another one to the system. Watching one twice is the same as once.
    fn renew(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let there = self.places.iter().filter(|(path, _)| path.exists());
        let failed = there.filter_map(|(path, mode)| watcher.watch(path, *mode).err().map(|error| (path, error)));
        let failed: Vec<_> = failed.collect();
        if let (Some((path, error)), false) = (failed.first(), self.failed) {
            tracing::warn!(path = %path.display(), "files are polled, since their changes cannot be watched: {error}");
        }
        self.failed = !failed.is_empty();
    }
}

fn until_quiet(events: &Receiver<()>) {
    let begun = Instant::now();
    while begun.elapsed() < QUIET_MAX && events.recv_timeout(QUIET).is_ok() {}
}

/// A policy file is watched by its directory, since editors replace files; so is a certificate, since whoever renews it does.
fn targets(places: &Places, certificates: &Certificates) -> Vec<(PathBuf, RecursiveMode)> {
    let plugins = places.plugin_directories().into_iter().map(|directory| (directory, RecursiveMode::NonRecursive));
    let policies = places.policies.iter().map(|path| {
        let is_file = path.is_file();
        if is_file {
            (directory_of(path), RecursiveMode::NonRecursive)
        } else {
            (path.clone(), RecursiveMode::Recursive)
        }
    });
    let mut targets: Vec<_> = plugins.chain(policies).collect();
    for directory in certificates.files().map(directory_of) {
        // Watched a second time in another way, a directory would be watched in that way only.
        if !targets.iter().any(|(known, _)| *known == directory) {
            targets.push((directory, RecursiveMode::NonRecursive));
        }
    }
    targets
}

fn directory_of(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    parent.unwrap_or(Path::new(".")).to_owned()
}
