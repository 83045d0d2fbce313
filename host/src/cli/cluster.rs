// SPDX-License-Identifier: Apache-2.0
//! The policy, the directory and the cluster of a start: on a node of a cluster they come from each other. What the node is
//! stands in its own file; then it takes over what the cluster has; that is the policy of the start.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;

use super::Flags;
use super::start::all;
use super::state::{Address, server};
use crate::cluster::{Cluster, Settings};
use crate::config::load::{self, NODE_FILE, Policy};
use crate::config::place::{Problem, Sources};
use crate::config::{self, Admin};
use crate::control::Places;
use crate::directory::Directory;
use crate::directory::beats::Beats;
use crate::directory::seal;
use crate::keys::Source;
use crate::metrics::Metrics;

/// A poll more often than this would be work for nothing, in milliseconds.
const POLL_MS_MIN: u64 = 50;
/// A lease shorter than this would be lost by a busy machine, in milliseconds.
const LEASE_MS_MIN: u64 = 500;

/// What a start begins with.
pub(super) struct Begun {
    pub(super) policy: Policy,
    pub(super) places: Places,
    pub(super) directory: Directory,
    pub(super) cluster: Option<Cluster>,
    pub(super) beats: Arc<Beats>,
}

/// Reads policies and opens the directory, within a cluster if the node has one.
///
/// # Errors
/// Everything that is wrong, and where.
pub(super) async fn begin(flags: &Flags, metrics: &Arc<Metrics>) -> anyhow::Result<Begun> {
    let (mut places, state, beats) = (flags.places(), flags.state_dir(), Arc::<Beats>::default());
    let Some(own) = own(&places).map_err(|problems| all(&problems))? else {
        let policy =
            load::parse(places.policy().map_err(|problems| all(&problems))?).map_err(|problems| all(&problems))?;
        misplaced(&policy).map_err(|problem| all(&[problem]))?;
        let source = master(&policy.config.admin)?;
        let opened = tokio::task::spawn_blocking(move || Directory::open(&state, source.as_ref())).await?;
        let directory = opened.map_err(|error| anyhow!(error))?;
        return Ok(Begun { policy, places, directory, cluster: None, beats });
    };
    let settings = settings(&own).map_err(|problem| all(&[problem]))?;
    let source = master(&own.config.admin)?;
    let (with_beats, with_metrics) = (Arc::clone(&beats), Arc::clone(metrics));
    let opened = tokio::task::spawn_blocking(move || {
        let master = seal::master(&state, source.as_ref())?;
        let cluster = Cluster::open(settings, &state, &master, with_beats, with_metrics)?;
        let directory = Directory::shared(&state, &master, |own| cluster.store(own))?;
        Ok::<_, String>((cluster, directory))
    });
    let (cluster, directory) = opened.await?.map_err(|error| anyhow!(error))?;
    cluster.join(&directory).await.map_err(|error| anyhow!("[cluster]: {error}"))?;
    places.shared = Some(cluster.policies());
    let policy = load::parse(places.policy().map_err(|problems| all(&problems))?).map_err(|problems| all(&problems))?;
    let prepared = cluster.prepare(policy.config.sandbox.component_bytes_max).await;
    prepared.map_err(|error| anyhow!("[cluster]: {error}"))?;
    Ok(Begun { policy, places, directory, cluster: Some(cluster), beats })
}

/// Places of a check, which asks nobody: on a node of a cluster with what it knows of it.
///
/// # Errors
/// What is wrong with the node's own file.
pub(super) fn places(flags: &Flags) -> Result<Places, Vec<Problem>> {
    let mut places = flags.places();
    if let Some(own) = own(&places)? {
        settings(&own).map_err(|problem| vec![problem])?;
        places.shared = Some(Cluster::policies_of(&flags.state_dir()));
    }
    Ok(places)
}

/// The node's own file, if it makes it a node of a cluster.
fn own(places: &Places) -> Result<Option<Policy>, Vec<Problem>> {
    let Some(directory) = places.policies.as_deref().filter(|path| path.join(NODE_FILE).is_file()) else {
        return Ok(None);
    };
    let text = node_file(directory)?;
    let policy = load::parse(Sources::new([text]))?;
    Ok(Some(policy).filter(|policy| policy.config.cluster.redis.is_some()))
}

fn node_file(directory: &Path) -> Result<(String, String), Vec<Problem>> {
    let sources = load::read(Some(&directory.join(NODE_FILE)))?;
    let text = sources.files().map(|(name, text)| (name.to_owned(), text.to_owned())).next();
    text.ok_or_else(|| vec![Problem::new(NODE_FILE, "it cannot be read", "see that the gateway may read it")])
}

/// A cluster that stands where it is not looked for.
fn misplaced(policy: &Policy) -> Result<(), Problem> {
    let Some(redis) = &policy.config.cluster.redis else { return Ok(()) };
    let help =
        format!("write [cluster], [admin] and [[listeners]] into {NODE_FILE} at the top of the policy directory");
    Err(Problem::new(policy.sources.place_of(redis), "[cluster] is read from the node's own file only", help))
}

fn settings(own: &Policy) -> Result<Settings, Problem> {
    let config::Cluster { redis, user, password, ca, prefix, name, timeout_ms, poll_ms, lease_ms } =
        &own.config.cluster;
    let address = redis.as_ref().map(|url| Address { section: "cluster", url, user, password, ca });
    let address = address.ok_or_else(|| Problem::new("cluster", "there is no redis", "name one"))?;
    Ok(Settings {
        server: server(&own.sources, &address)?,
        prefix: prefix.clone(),
        name: name.clone(),
        timeout: Duration::from_millis((*timeout_ms).max(1)),
        poll: Duration::from_millis((*poll_ms).max(POLL_MS_MIN)),
        lease: Duration::from_millis((*lease_ms).max(LEASE_MS_MIN)),
    })
}

fn master(admin: &Admin) -> anyhow::Result<Option<Source>> {
    let source = admin.master_key.as_ref().map(|master| Source::parse(master.get_ref())).transpose();
    source.map_err(|error| anyhow!("admin.master_key: {error}"))
}
