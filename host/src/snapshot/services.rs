// SPDX-License-Identifier: Apache-2.0
//! Plain HTTP upstreams of a snapshot. Endpoints that were there before, written down or found, are taken over with how they are doing.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use toml::Spanned;

use super::builder::Builder;
use crate::config::place::Problem;
use crate::config::{self, Balance, Discover, Scheme};
use crate::keys;
use crate::routes::{HashBy, Service, Source};
use crate::upstream::fleet::Mould;
use crate::upstream::{Endpoint, Fleet, Member};

/// What may be written in `discover`.
const SOURCES: &str = "write one of dns, srv, consul, kubernetes and registry";

impl<'a> Builder<'a> {
    /// A service; none if it is wrong.
    pub(super) fn service(&mut self, name: &str, service: &'a config::Service) -> Option<Service> {
        let before = self.build.previous.and_then(|previous| previous.services.get(name));
        let hash = self.hash_by(service)?;
        if let Some(probe) = &service.probe {
            let checked = check_probe(probe.get_ref());
            self.noted(probe.span(), checked, "write what is asked for, as path = \"/healthz\", and when")?;
        }
        let probe = service.probe.as_ref().map(|probe| probe.get_ref().clone());
        let (fleet, source) = match &service.discover {
            None if service.endpoints.is_empty() => {
                let (place, help) =
                    (format!("services.{name}"), "write endpoints = [\"http://HOST:PORT\"], or discover");
                self.problems.push(Problem::new(place, "there is no endpoint, and nobody to ask for some", help));
                return None;
            }
            None => (Arc::new(self.fixed(name, service, before.map(|before| &*before.fleet))), None),
            Some(discover) => {
                let source = self.source(discover, service)?;
                let mould = self.mould(discover, service)?;
                let kept = before.filter(|before| {
                    before.source.as_ref().is_some_and(|old| old.fingerprint == source.fingerprint)
                        && before.fleet.is_made_by(&mould)
                });
                match kept.and_then(|kept| Some((&kept.fleet, kept.source.as_ref()?))) {
                    Some((fleet, source)) => (Arc::clone(fleet), Some(Arc::clone(source))),
                    None => (Arc::new(Fleet::sought(mould)), Some(Arc::new(source))),
                }
            }
        };
        let (balance, breaker) = (service.balance, service.breaker);
        Some(Service { name: name.into(), fleet, balance, hash, breaker, source, probe })
    }

    fn hash_by(&mut self, service: &'a config::Service) -> Option<HashBy> {
        let Some(written) = &service.hash else { return Some(HashBy::Client) };
        if service.balance != Balance::Hash {
            let wrong = Err("only `balance = \"hash\"` goes by it".to_owned());
            return self.noted(written.span(), wrong, "write that, or leave `hash` out");
        }
        let help = "write \"client\", \"header:NAME\" or \"cookie:NAME\"";
        self.noted(written.span(), HashBy::parse(written.get_ref()), help)
    }

    fn fixed(&mut self, name: &str, service: &'a config::Service, before: Option<&Fleet>) -> Fleet {
        let reach = self.reach(service.ca.as_ref(), service.http2, service.proxy.as_ref());
        let mut members = Vec::with_capacity(service.endpoints.len());
        for base in &service.endpoints {
            let (url, weight, priority) = (&base.get_ref().url, base.get_ref().weight, base.get_ref().priority);
            let written = Spanned::new(base.span(), url.clone());
            if let Some(endpoint) = reach.as_ref().and_then(|reach| self.endpoint(name, &written, reach)) {
                members.push(Member::new(url, endpoint, weight, priority));
            }
        }
        Fleet::fixed(members, before)
    }

    fn mould(&mut self, discover: &Spanned<Discover>, service: &'a config::Service) -> Option<Mould> {
        let wrong = |what: &str| Err(format!("{what} has no place beside `discover`"));
        if let Some(endpoint) = service.endpoints.first() {
            return self.noted(endpoint.span(), wrong("`endpoints`"), "leave one of them out");
        }
        if let Some(proxy) = &service.proxy {
            return self.noted(proxy.span(), wrong("`proxy`"), "leave one of them out");
        }
        let ca = match &service.ca {
            None => None,
            Some(path) => Some(self.pem(path.span(), path.get_ref())?),
        };
        let max = discover.get_ref().endpoints_max;
        Some(Mould { ca, http2: service.http2, probed: service.probe.is_some(), max })
    }

    fn pem(&mut self, span: std::ops::Range<usize>, path: &str) -> Option<Vec<u8>> {
        let read = std::fs::read(path).map_err(|error| format!("{path}: {error}"));
        self.noted(span, read, "name a PEM file that the gateway may read")
    }

    /// Where it is asked.
    fn source(&mut self, discover: &Spanned<Discover>, service: &'a config::Service) -> Option<Source> {
        let (span, written) = (discover.span(), discover.get_ref());
        self.noted(span.clone(), check_source(written), SOURCES)?;
        let asked = match (&written.consul, &written.kubernetes) {
            (Some(consul), _) => Some((consul.url.clone(), consul.ca.clone(), consul.token.clone())),
            (None, Some(kubernetes)) => {
                let url = self.noted(span.clone(), api_server(kubernetes), "write url = \"https://HOST:PORT\"")?;
                let is_tls = url.starts_with("https:");
                Some((url, is_tls.then(|| kubernetes.ca.clone()), Some(kubernetes.token.clone())))
            }
            (None, None) => None,
        };
        let mut source = Source { written: written.clone(), server: None, token: None, fingerprint: [0; 32] };
        let mut roots = None;
        if let Some((url, ca, token)) = asked {
            roots = match ca {
                Some(ca) => Some(self.pem(span.clone(), &ca)?),
                None => None,
            };
            let server = Endpoint::parse(&url, roots.as_deref(), false);
            source.server = Some(self.noted(span.clone(), server, "write a URL such as http://127.0.0.1:8500")?);
            if let Some(token) = token {
                let help = "write env:NAME or file:PATH, and set the variable or make the file";
                let read = keys::Source::parse(&token).and_then(|source| source.read().map(|_| source));
                source.token = Some(self.noted(span, read, help)?);
            }
        }
        let probed = service.probe.is_some();
        let whole = format!("{written:?} {probed} {:?}", source.server.as_ref().map(Endpoint::authority));
        source.fingerprint =
            Sha256::new().chain_update(roots.unwrap_or_default()).chain_update(whole).finalize().into();
        Some(source)
    }
}

fn check_source(written: &Discover) -> Result<(), String> {
    let given = [
        written.dns.is_some(),
        written.srv.is_some(),
        written.consul.is_some(),
        written.kubernetes.is_some(),
        written.registry.is_some(),
    ];
    match given.into_iter().filter(|given| *given).count() {
        1 => {}
        0 => return Err("it does not say where to ask".to_owned()),
        _ => return Err("it says more than one place to ask".to_owned()),
    }
    let port = |name: &str| name.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if let Some(name) = written.dns.as_deref().filter(|name| !port(name)) {
        return Err(format!("{name:?} has no port; write \"{name}:8080\""));
    }
    if written.srv.as_deref().is_some_and(|name| name.is_empty() || name.contains(':')) {
        return Err("an SRV record says the port itself; write a name such as \"_http._tcp.api.internal\"".to_owned());
    }
    if written.refresh_ms_min < REFRESH_MS_MIN || written.refresh_ms_max < written.refresh_ms_min {
        return Err(format!("refresh_ms_min must be {REFRESH_MS_MIN} or more, and refresh_ms_max no less than that"));
    }
    if written.endpoints_max == 0 || !(written.path.is_empty() || written.path.starts_with('/')) {
        return Err("endpoints_max must be 1 or more, and path begin with a slash".to_owned());
    }
    let host = written.host.as_deref().or(written.dns.as_deref()).unwrap_or("localhost");
    Endpoint::parse(&format!("{}://{host}{}", written.scheme.name(), written.path), None, false).map(drop)
}

/// Nobody is asked more often than this, in milliseconds.
const REFRESH_MS_MIN: u64 = 100;

fn check_probe(probe: &config::Probe) -> Result<(), String> {
    if !probe.path.starts_with('/') {
        return Err(format!("{:?} is no path", probe.path));
    }
    if probe.every_ms < REFRESH_MS_MIN
        || probe.timeout_ms == 0
        || probe.healthy_after == 0
        || probe.unhealthy_after == 0
    {
        return Err(format!("every_ms must be {REFRESH_MS_MIN} or more, and the other numbers 1 or more"));
    }
    Ok(())
}

/// Where the API server is: as written, or as every container of the cluster is told.
fn api_server(kubernetes: &config::Kubernetes) -> Result<String, String> {
    if let Some(url) = &kubernetes.url {
        return Ok(url.clone());
    }
    let variable =
        |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set: this is no container of a cluster"));
    let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Ok(format!("{}://{host}:{port}", Scheme::Https.name()))
}
