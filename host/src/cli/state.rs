// SPDX-License-Identifier: Apache-2.0
//! The `[state]` section of a policy, read into what the state is opened with.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use toml::Spanned;

use crate::config;
use crate::config::load::Policy;
use crate::config::place::{Problem, Sources};
use crate::keys::Source;
use crate::random;
use crate::state::link::Server;
use crate::state::{Memory, Options, Redis, State};

/// The least that [`config::State::unsent_bytes_max`] can be.
const UNSENT_BYTES_MIN: u64 = 32 << 20;

/// Memory of the size that the policy allows.
pub(super) fn memory(config: &config::Config) -> Arc<Memory> {
    Arc::new(Memory::with_lasting(config.limits.counters_max, config.state.budgets_max))
}

/// Opens the state that the policy asks for.
///
/// # Errors
/// A part of the section is wrong, or the journal cannot be opened.
pub(super) async fn open(policy: &Policy, memory: Arc<Memory>, state_dir: &Path) -> anyhow::Result<Arc<State>> {
    let redis = redis(policy).map_err(|problem| anyhow!("{problem}"))?;
    let session = format!("{:016x}{:016x}", random::u64(), random::u64());
    let folder = Some(state_dir.join("counters"));
    State::open(Options { memory, folder, redis, session })
        .await
        .map_err(|error| anyhow!("the state of limits: {error}"))
}

/// The shared store that the policy names.
///
/// # Errors
/// What is wrong, and where.
pub(super) fn redis(policy: &Policy) -> Result<Option<Redis>, Problem> {
    let config = &policy.config.state;
    let config::State { redis, user, password, ca, .. } = config;
    let Some(url) = redis else { return Ok(None) };
    let Server { url, user, password, ca } =
        server(&policy.sources, &Address { section: "state", url, user, password, ca })?;
    Ok(Some(Redis {
        url,
        user,
        password,
        ca,
        prefix: config.prefix.clone(),
        timeout: Duration::from_millis(config.timeout_ms.max(1)),
        away: config.away,
        lease: Duration::from_millis(config.lease_ms.max(1000)),
        // Less than a segment of the journal or two would be full of what has long been told.
        unsent_bytes_max: config.unsent_bytes_max.max(UNSENT_BYTES_MIN),
    }))
}

/// A Redis as a section of a policy names it.
pub(super) struct Address<'c> {
    pub(super) section: &'static str,
    pub(super) url: &'c Spanned<String>,
    pub(super) user: &'c Option<String>,
    pub(super) password: &'c Option<Spanned<String>>,
    pub(super) ca: &'c Option<Spanned<String>>,
}

/// Reads what a Redis is spoken to with.
///
/// # Errors
/// What is wrong, and where.
pub(super) fn server(sources: &Sources, address: &Address<'_>) -> Result<Server, Problem> {
    let Address { section, url, user, password, ca } = address;
    let problem = |span, message: String, help: &str| Problem::new(sources.place(span), message, help);
    let text = url.get_ref();
    let rest = text.strip_prefix("redis://").or_else(|| text.strip_prefix("rediss://"));
    let rest = rest.filter(|rest| !rest.is_empty()).ok_or_else(|| {
        problem(url.span(), "this is no address of a Redis".to_owned(), "write redis://host:port or rediss://host:port")
    })?;
    if rest.contains('@') {
        let help = format!("write user = \"NAME\" and password = \"env:NAME\" in [{section}]");
        return Err(problem(url.span(), "a password has no place in this address".to_owned(), &help));
    }
    let password = password.as_ref().map(|password| {
        let read = Source::parse(password.get_ref()).and_then(|source| source.read());
        let read =
            read.and_then(|secret| String::from_utf8(secret.expose().to_vec()).map_err(|error| error.to_string()));
        read.map_err(|error| {
            problem(password.span(), error, "write env:NAME or file:PATH, and set the variable or make the file")
        })
    });
    let ca = ca.as_ref().map(|path| {
        let read = std::fs::read(path.get_ref());
        read.map_err(|error| {
            problem(path.span(), format!("{}: {error}", path.get_ref()), "name a PEM file that the gateway may read")
        })
    });
    Ok(Server { url: text.clone(), user: (*user).clone(), password: password.transpose()?, ca: ca.transpose()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Away;
    use crate::config::load;

    fn told(section: &str) -> Result<Option<Redis>, String> {
        let sources = Sources::new([("p.toml".to_owned(), format!("[state]\n{section}"))]);
        redis(&load::parse(sources).unwrap()).map_err(|problem| problem.to_string())
    }

    #[test]
    fn the_address_of_the_shared_store_is_checked_and_holds_no_password() {
        assert!(told("").unwrap().is_none());
        let redis = told("redis = \"redis://127.0.0.1:6379/2\"\naway = \"closed\"").unwrap().unwrap();
        assert_eq!((redis.timeout, redis.away), (Duration::from_millis(50), Away::Closed));
        for (section, place, word) in [
            ("redis = \"http://h\"", "p.toml:2", "no address"),
            ("redis = \"redis://:hunter2@h\"", "p.toml:2", "no place"),
            ("redis = \"redis://h\"\npassword = \"hunter2\"", "p.toml:3", "env:NAME"),
            ("redis = \"rediss://h\"\nca = \"/no/such\"", "p.toml:3", "PEM"),
        ] {
            let error = told(section).err().unwrap();
            assert!(error.contains(place) && error.contains(word) && !error.contains("hunter2"), "{error}");
        }
    }
}
