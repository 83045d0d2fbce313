// SPDX-License-Identifier: Apache-2.0
//! The `[traces]` section of a policy, read into what traces are told with.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use http::{HeaderMap, HeaderName, HeaderValue};
use toml::Spanned;

use crate::config::load::Policy;
use crate::config::place::Problem;
use crate::keys::{Secret, Source};
use crate::metrics::Metrics;
use crate::random;
use crate::snapshot::{PROXY_HELP, read_proxy};
use crate::traces::Tracer;
use crate::traces::export::{Exporter, Options};
use crate::upstream::{Client, Endpoint};

/// What traces requests as the policy says, and what tells the traces; nothing is traced without a collector.
///
/// # Errors
/// A part of the section is wrong.
pub(super) fn start(
    policy: &Policy,
    client: &Client,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<(Tracer, Option<Exporter>)> {
    let Some(options) = options(policy).map_err(|problem| anyhow!("{problem}"))? else {
        return Ok((Tracer::default(), None));
    };
    let config = &policy.config.traces;
    let (ratio, queue_max) = (config.sample_ratio, config.queue_max);
    let (tracer, finished) = Tracer::new(ratio, config.follow_parent, queue_max, Arc::clone(metrics));
    let exporter = Exporter::start(options, client.clone(), Arc::clone(metrics), finished);
    Ok((tracer, Some(exporter)))
}

/// The collector that the policy names; none if it names none.
///
/// # Errors
/// What is wrong, and where.
pub(super) fn options(policy: &Policy) -> Result<Option<Options>, Problem> {
    let config = &policy.config.traces;
    let Some(url) = &config.endpoint else { return Ok(None) };
    let problem = |span, message: String, help: &str| Problem::new(policy.sources.place(span), message, help);
    if !(0.0..=1.0).contains(&config.sample_ratio) {
        let message = format!("traces.sample_ratio is {}", config.sample_ratio);
        return Err(problem(url.span(), message, "write a share from 0 to 1, such as 0.1"));
    }
    let ca = config.ca.as_ref().map(|path| {
        let read = std::fs::read(path.get_ref());
        read.map_err(|error| {
            problem(path.span(), format!("{}: {error}", path.get_ref()), "name a PEM file that the gateway may read")
        })
    });
    let ca = ca.transpose()?;
    let endpoint = Endpoint::parse(url.get_ref(), ca.as_deref(), false);
    let help = "write the address of a collector, such as http://127.0.0.1:4318";
    let mut endpoint = endpoint.map_err(|message| problem(url.span(), message, help))?;
    if let Some(written) = &config.proxy {
        let proxy = read_proxy(written.get_ref()).and_then(|proxy| endpoint.through(Arc::new(proxy)));
        endpoint = proxy.map_err(|message| problem(written.span(), message, PROXY_HELP))?;
    }
    let mut headers = HeaderMap::new();
    for (name, source) in &config.headers {
        let (name, value) = header(name, source).map_err(|(message, help)| problem(source.span(), message, help))?;
        headers.insert(name, value);
    }
    let instance = format!("{:016x}", random::u64());
    let who = vec![
        ("service.name", config.service_name.clone()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", instance),
    ];
    Ok(Some(Options {
        endpoint,
        headers,
        who,
        batch_spans_max: config.batch_spans_max.max(1),
        interval: Duration::from_millis(config.interval_ms),
        timeout: Duration::from_millis(config.timeout_ms.max(1)),
    }))
}

/// A header for the collector. No error repeats the value.
fn header(name: &str, source: &Spanned<String>) -> Result<(HeaderName, HeaderValue), (String, &'static str)> {
    let name = HeaderName::try_from(name)
        .map_err(|_| ("this is no name of a header".to_owned(), "write a name such as authorization"))?;
    let help = "write env:NAME or file:PATH, and set the variable or make the file";
    let secret: Secret = Source::parse(source.get_ref()).and_then(|source| source.read()).map_err(|why| (why, help))?;
    let value = HeaderValue::from_bytes(secret.expose());
    let mut value = value.map_err(|_| (format!("what is read for {name} cannot be sent as a header"), help))?;
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;
    use crate::config::place::Sources;

    fn told(section: &str) -> Result<Option<Options>, String> {
        let sources = Sources::new([("p.toml".to_owned(), format!("[traces]\n{section}"))]);
        options(&load::parse(sources).unwrap()).map_err(|problem| problem.to_string())
    }

    #[test]
    fn the_collector_is_checked_and_no_error_repeats_a_secret() {
        assert!(told("").unwrap().is_none());
        assert!(told("endpoint = \"https://h:4318/otlp\"").unwrap().is_some());
        for (section, place, word) in [
            ("endpoint = \"h:4318\"", "p.toml:2", "http://"),
            ("endpoint = \"http://user:hunter2@h\"", "p.toml:2", "password"),
            ("endpoint = \"http://h\"\nsample_ratio = 7.0", "p.toml:2", "from 0 to 1"),
            ("endpoint = \"http://h\"\nca = \"/no/such\"", "p.toml:3", "PEM"),
            ("endpoint = \"http://h\"\nproxy = \"http://user:hunter2@p\"", "p.toml:3", "env:NAME"),
            ("endpoint = \"unix:/s\"\nproxy = \"http://p:3128\"", "p.toml:3", "Unix socket"),
            ("endpoint = \"http://h\"\n[traces.headers]\nauthorization = \"hunter2\"", "p.toml:4", "env:NAME"),
            ("endpoint = \"http://h\"\n[traces.headers]\n\"a b\" = \"env:PATH\"", "p.toml:4", "header"),
        ] {
            let error = told(section).err().unwrap();
            assert!(error.contains(place) && error.contains(word) && !error.contains("hunter2"), "{error}");
        }
    }
}
