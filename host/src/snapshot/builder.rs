// SPDX-License-Identifier: Apache-2.0
//! Turns what an operator wrote into a snapshot, step by step: secrets, plugins, vendors, services, models, routes. A step
//! that fails leaves a problem and goes on, so that one run tells everything.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use penstock_prices::table::Table;
use serde_json::Value;
use sha2::{Digest, Sha256};
use toml::Spanned;

use super::reach::Reach;
use super::{Build, Configured, JobRules, Snapshot, Webhook};
use crate::config::load::built_in_prices;
use crate::config::place::Problem;
use crate::config::{self, Isolation};
use crate::directory::pool::Pool;
use crate::documents::Documents;
use crate::keys::{Grants, Secret, Source};
use crate::library::trust::Trust;
use crate::plugin::{Adapter, Kind, Limits, Plugin, Refusal, Routing, Settings};
use crate::routes::{Alias, Authority, Models, Route, Routes, Serves, Service, Target, Vendor};
use crate::upstream::{ADDRESSES_HELP, Addresses, Endpoint};

/// A snapshot that is being built.
pub(super) struct Builder<'a> {
    pub(super) build: &'a Build<'a>,
    pub(super) problems: Vec<Problem>,
    secrets: BTreeMap<&'a str, Arc<Secret>>,
    plugins: HashMap<String, Configured>,
    pub(super) endpoints: HashMap<String, Arc<Endpoint>>,
    /// Where plugins may ask others, by the names of the plugins.
    places: HashMap<&'a str, BTreeMap<String, Arc<Endpoint>>>,
    dormant: Vec<(String, String)>,
    trust: Trust,
}

/// A plugin as the policy asks for it.
struct Wanted<'a> {
    /// What an auth plugin may ask, and where; the documents that it has stay as long as this does.
    sources: [u8; 32],
    /// Unique name: "plugins.fair", "vendors.echo".
    key: String,
    /// Name for logs, metrics and counters.
    name: &'a str,
    component: &'a Spanned<String>,
    config: Option<&'a Spanned<toml::Table>>,
    grants: Grants,
    isolation: Isolation,
}

impl<'a> Builder<'a> {
    pub(super) fn new(build: &'a Build<'a>) -> Self {
        Self {
            build,
            problems: Vec::new(),
            secrets: BTreeMap::new(),
            plugins: HashMap::new(),
            endpoints: HashMap::new(),
            places: HashMap::new(),
            dormant: Vec::new(),
            trust: Trust::default(),
        }
    }

    pub(super) fn run(mut self) -> Result<Snapshot, Vec<Problem>> {
        let config = self.build.config;
        match Trust::read(&config.trust, self.build.sources) {
            Ok(trust) => self.trust = trust,
            Err(problems) => self.problems.extend(problems),
        }
        if let Err(why) = Addresses::parse(&config.limits.upstream_addresses) {
            self.problems.push(Problem::new("limits.upstream_addresses", why, ADDRESSES_HELP));
        }
        for (name, source) in &config.secrets {
            if let Some(secret) = self.secret(source) {
                self.secrets.insert(name, secret);
            }
        }
        for (name, plugin) in &config.plugins {
            self.policy_plugin(name, plugin);
        }
        let mut models = Models::with(self.prices());
        for (name, vendor) in &config.vendors {
            if let Some(vendor) = self.vendor(name, vendor) {
                models.vendors.insert(name.clone(), Arc::new(vendor));
            }
        }
        let mut services = BTreeMap::new();
        for (name, service) in &config.services {
            if let Some(service) = self.service(name, service) {
                services.insert(name.clone(), Arc::new(service));
            }
        }
        for (name, model) in &config.models {
            if let Some(alias) = self.alias(name, model, &models) {
                models.aliases.insert(name.clone(), Arc::new(alias));
            }
        }
        let routes = self.routes(&services);
        let jobs = self.jobs();
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        Ok(Snapshot {
            generation: self.build.generation,
            routes,
            services,
            models,
            limits: config.limits.clone(),
            timeouts: config.timeouts.clone(),
            jobs,
            dormant: self.dormant,
            plugins: self.plugins,
            endpoints: self.endpoints,
        })
    }

    // -- secrets

    fn secret(&mut self, written: &Spanned<String>) -> Option<Arc<Secret>> {
        let read = Source::parse(written.get_ref()).and_then(|source| source.read());
        self.noted(written.span(), read, "write env:NAME or file:PATH, and set the variable or make the file")
            .map(Arc::new)
    }

    fn granted(&mut self, name: &str, written: &Spanned<String>, grants: &mut Grants) {
        match self.secrets.get(written.get_ref().as_str()) {
            Some(secret) => grants.insert(name.to_owned(), Arc::clone(secret)),
            None if self.build.config.secrets.contains_key(written.get_ref()) => {} // told above
            None => {
                let known = self.build.config.secrets.keys().map(String::as_str);
                self.unknown(written, "secret", "[secrets]", known);
            }
        }
    }

    // -- plugins

    fn policy_plugin(&mut self, name: &'a str, plugin: &'a config::Plugin) {
        let mut grants = Grants::default();
        for secret in &plugin.secrets {
            self.granted(secret.get_ref(), secret, &mut grants);
        }
        let mut endpoints = BTreeMap::new();
        let reach = self.reach(plugin.ca.as_ref(), false, plugin.proxy.as_ref());
        for (place, url) in &plugin.endpoints {
            if let Some(endpoint) = reach.as_ref().and_then(|reach| self.endpoint(name, url, reach)) {
                endpoints.insert(place.clone(), endpoint);
            }
        }
        let sources = sources(plugin, &grants, &self.build.config.auth);
        self.places.insert(name, endpoints);
        let configured = self.configured(Wanted {
            sources,
            key: format!("plugins.{name}"),
            name,
            component: &plugin.plugin,
            config: plugin.config.as_ref(),
            grants,
            isolation: plugin.isolation,
        });
        if let (Some(url), Some(other)) = (plugin.endpoints.values().next(), configured)
            && !matches!(other, Plugin::Auth(_))
        {
            let message = format!("a plugin of kind {} asks nobody", kind_of(&other));
            self.problem(url.span(), message, "leave the endpoints out; only auth plugins have them");
        }
    }

    /// Configures a plugin, or takes it over from the snapshot that is in force.
    fn configured(&mut self, wanted: Wanted<'a>) -> Option<Plugin> {
        let Some(component) = self.build.library.components.get(wanted.component.get_ref()) else {
            let known = self.build.library.components.keys().map(String::as_str);
            self.unknown(wanted.component, "plugin", "the plugin directories", known);
            return None;
        };
        let origin = self.build.library.origins.get(wanted.component.get_ref());
        let seal = origin.and_then(|origin| origin.facts.seal.as_ref());
        if let Err(refused) = self.trust.check(component.digest(), seal) {
            let message = format!("{}: {} [{}]", wanted.name, refused.message, refused.code);
            self.problem(wanted.component.span(), message, &refused.help);
            return None;
        }
        let table = wanted.config.map(|config| config.get_ref().clone()).unwrap_or_default();
        let json = serde_json::to_value(table).unwrap_or(Value::Null);
        let fingerprint = fingerprint(&wanted, component.digest().as_bytes(), &json);
        let previous = self.build.previous.and_then(|previous| previous.plugins.get(&wanted.key));
        let plugin = match previous.filter(|configured| configured.fingerprint == fingerprint) {
            Some(configured) => configured.plugin.clone(),
            None => {
                let kept = previous.filter(|before| before.sources == wanted.sources).and_then(Configured::documents);
                let settings = Settings {
                    name: wanted.name.to_owned(),
                    config: json,
                    secrets: wanted.grants,
                    isolation: wanted.isolation,
                    state: Arc::clone(self.build.state),
                    directory: Some(self.build.directory.clone()),
                    documents: kept.unwrap_or_else(|| Arc::new(Documents::new(&self.build.config.auth))),
                    metrics: self.build.metrics.clone(),
                };
                match component.configure(settings) {
                    Ok(plugin) => plugin,
                    Err(refusal) => {
                        let span = wanted.config.map_or_else(|| wanted.component.span(), Spanned::span);
                        self.refused(span, wanted.name, &refusal);
                        return None;
                    }
                }
            }
        };
        let of = Arc::from(wanted.component.get_ref().as_str());
        self.plugins.insert(
            wanted.key,
            Configured { fingerprint, sources: wanted.sources, component: of, plugin: plugin.clone() },
        );
        Some(plugin)
    }

    fn refused(&mut self, span: Range<usize>, name: &str, refusal: &Refusal) {
        if refusal.issues.is_empty() {
            let message = format!("{name}: {} [{}]", refusal.message, refusal.code);
            self.problems.push(Problem::new(self.build.sources.place(span), message, refusal.help.clone()));
            return;
        }
        for issue in &refusal.issues {
            let place = self.build.sources.place_within(span.clone(), &issue.path);
            let path = if issue.path.is_empty() { String::new() } else { format!("{}: ", issue.path) };
            let message = format!("{name}: {path}{} [{}]", issue.message, refusal.code);
            self.problems.push(Problem::new(place, message, refusal.help.clone()));
        }
    }

    // -- upstreams

    fn vendor(&mut self, name: &'a str, vendor: &'a config::Vendor) -> Option<Vendor> {
        let mut grants = Grants::default();
        if let Some(why) = vendor.optional.then(|| self.missing(name, vendor)).flatten() {
            self.dormant.push((name.to_owned(), why));
            return None;
        }
        let view = self.build.directory.view();
        let keys_of = self.keys_of(name, vendor);
        if let Some(pool) = view.pool(keys_of) {
            // For adapters that sign; where a key is written into a request, the pool is asked each time.
            pool.iter().take(1).for_each(|key| grants.insert("key".to_owned(), Arc::clone(&key.secret)));
        } else if let Some(secret) = vendor.key.as_ref().and_then(|key| self.secret(key)) {
            grants.insert("key".to_owned(), secret);
        }
        for (granted, secret) in &vendor.secrets {
            self.granted(granted, secret, &mut grants);
        }
        let base_url = vendor.base_url.as_ref();
        let reach = self.reach(vendor.ca.as_ref(), vendor.http2, vendor.proxy.as_ref())?;
        let endpoint = base_url.and_then(|url| self.endpoint(name, url, &reach));
        let mut endpoints = BTreeMap::new();
        for (place, url) in &vendor.endpoints {
            if let Some(endpoint) = self.endpoint(name, url, &reach) {
                endpoints.insert(place.clone(), endpoint);
            }
        }
        let plugin = self.configured(Wanted {
            sources: [0; 32],
            key: format!("vendors.{name}"),
            name,
            component: &vendor.adapter,
            config: vendor.config.as_ref(),
            grants,
            isolation: vendor.isolation,
        })?;
        let adapter: Arc<Adapter> = match plugin {
            Plugin::Adapter(adapter) => adapter,
            other => {
                self.wrong_kind(&vendor.adapter, kind_of(&other), "an adapter");
                return None;
            }
        };
        for feature in vendor.without.iter().filter(|name| !adapter.features().contains(name.get_ref())) {
            self.unknown(feature, "feature", "the adapter", adapter.features().iter().map(String::as_str));
        }
        let without = vendor.without.iter().map(|feature| feature.get_ref().clone()).collect();
        let limits = self.limits(&vendor.limits)?;
        let before = self.build.previous.and_then(|previous| previous.models.vendors.get(name)?.pool.as_ref());
        let pool = view.pool(keys_of).map(|keys| Pool::of(keys, before));
        let breakers = self.build.previous.and_then(|previous| previous.models.vendors.get(name));
        let breakers = breakers.map(|before| Arc::clone(&before.breakers)).unwrap_or_default();
        let breaker = vendor.breaker;
        let (name, keys_of, models) = (name.into(), keys_of.into(), vendor.models.clone());
        Some(Vendor { name, keys_of, adapter, endpoint, endpoints, models, without, pool, limits, breaker, breakers })
    }

    /// The vendor whose keys in the directory a vendor uses.
    fn keys_of(&mut self, name: &'a str, vendor: &'a config::Vendor) -> &'a str {
        let Some(other) = &vendor.keys_of else { return name };
        let vendors = &self.build.config.vendors;
        if !vendors.contains_key(other.get_ref()) {
            self.unknown(other, "vendor", "[vendors]", vendors.keys().map(String::as_str));
        }
        if self.build.directory.view().pool(name).is_some() { name } else { other.get_ref() }
    }

    /// What an optional vendor lacks.
    fn missing(&self, name: &str, vendor: &config::Vendor) -> Option<String> {
        let adapter = vendor.adapter.get_ref();
        if !self.build.library.components.contains_key(adapter) {
            return Some(format!("the plugin {adapter} is not there"));
        }
        let key = vendor.key.as_ref()?.get_ref();
        let others = vendor.keys_of.iter().map(|other| other.get_ref().as_str());
        let view = self.build.directory.view();
        let absent = std::iter::once(name).chain(others).all(|name| view.pool(name).is_none())
            && Source::parse(key).is_ok_and(|source| source.read().is_err());
        absent.then(|| format!("{key} is not set"))
    }

    // -- models and routes

    fn alias(&mut self, name: &str, model: &'a config::Model, models: &Models) -> Option<Alias> {
        let mut targets = Vec::new();
        for target in &model.targets {
            let vendor = target.vendor.get_ref();
            match models.vendors.get(vendor) {
                Some(vendor) => {
                    let plain = models.target(vendor, target.model.as_deref().unwrap_or(name));
                    targets.push(Target { weight: target.weight, priority: target.priority, ..plain });
                }
                None if self.build.config.vendors.contains_key(vendor) => {} // dormant, or told above
                None => {
                    let known = self.build.config.vendors.keys().map(String::as_str);
                    self.unknown(&target.vendor, "vendor", "[vendors]", known);
                }
            }
        }
        let routing = model.routing.as_ref().and_then(|name| self.routing(name));
        let hedge = model.hedge.as_ref().and_then(|hedge| self.hedge(hedge));
        (!targets.is_empty()).then_some(Alias { targets, routing, hedge })
    }

    fn routes(&mut self, services: &BTreeMap<String, Arc<Service>>) -> Routes {
        let config = self.build.config;
        let mut routes = Routes::default();
        let mut seen: HashMap<(Option<String>, String), String> = HashMap::new();
        for route in &config.routes {
            let prefix = route.path.get_ref().trim_end_matches('/').to_owned();
            let clean = !prefix.contains(['?', '#', '%']) && !prefix.contains("//");
            if !route.path.get_ref().starts_with('/') || !clean {
                let message = format!("{:?} is no path prefix", route.path.get_ref());
                self.problem(
                    route.path.span(),
                    message,
                    "write whole segments such as \"/v1\", or \"/\" for everything",
                );
            }
            let host = route.host.as_ref().map(|host| host.to_ascii_lowercase());
            let before = seen.insert((host.clone(), prefix.clone()), route.name.get_ref().clone());
            if let Some(before) = before {
                let message = format!("route {before:?} has the same path and host");
                self.problem(route.path.span(), message, "give one of them another path or host");
            }
            if let Some(route) = self.route(route, prefix, host, services) {
                routes.add(Arc::new(route));
            }
        }
        routes
    }

    fn route(
        &mut self,
        route: &'a config::Route,
        prefix: String,
        host: Option<String>,
        services: &BTreeMap<String, Arc<Service>>,
    ) -> Option<Route> {
        let serves = match &route.service {
            None => Serves::Models,
            Some(name) => match services.get(name.get_ref().as_str()) {
                Some(service) => Serves::Service { service: Arc::clone(service), strip_prefix: route.strip_prefix },
                None if self.build.config.services.contains_key(name.get_ref()) => return None, // told above
                None => {
                    self.unknown(name, "service", "[services]", services.keys().map(String::as_str));
                    return None;
                }
            },
        };
        let mut filters = Vec::new();
        for name in &route.filters {
            match self.plugin(name)? {
                Plugin::Filter(filter) => filters.push(filter),
                other => self.wrong_kind(name, kind_of(&other), "a filter"),
            }
        }
        let limits = self.limits(&route.limits)?;
        let mut auth = None;
        if let Some(name) = &route.auth {
            match self.plugin(name)? {
                Plugin::Auth(plugin) => {
                    let endpoints = self.places.get(name.get_ref().as_str()).cloned().unwrap_or_default();
                    auth = Some(Arc::new(Authority { plugin, endpoints }));
                }
                other => self.wrong_kind(name, kind_of(&other), "an auth plugin"),
            }
        }
        let routing = match &route.routing {
            Some(name) => Some(self.routing(name)?),
            None => None,
        };
        let hedge = self.hedge_of(route);
        for dialect in &route.dialects {
            if penstock_dialects::by_name(dialect.get_ref()).is_none() {
                self.unknown(dialect, "dialect", "Penstock", penstock_dialects::ALL.iter().map(|codec| codec.name()));
            }
        }
        let dialects = route.dialects.iter().map(|dialect| dialect.get_ref().clone()).collect();
        let name = route.name.get_ref().as_str().into();
        let (strict, compress) = (route.strict, (route.compress.clone(), route.compress_events));
        Some(Route { name, prefix, host, filters, auth, limits, routing, hedge, strict, dialects, compress, serves })
    }

    /// The built-in prices, and those of the policy over them.
    fn prices(&mut self) -> Arc<Table> {
        let (written, built_in) = (&self.build.config.prices, built_in_prices());
        if written.is_empty() {
            return Arc::clone(built_in);
        }
        let mut table = Table::clone(built_in);
        table.put(written.iter().map(|(name, price)| (name, Arc::new(price.get_ref().clone()))));
        for price in written.values() {
            if let Some(like) = price.get_ref().like.as_ref().filter(|like| !table.refers(like)) {
                self.problem(price.span(), format!("there is no price {like:?}"), "name a model that has one");
            }
        }
        Arc::new(table)
    }

    fn limits(&mut self, names: &[Spanned<String>]) -> Option<Vec<Arc<Limits>>> {
        let mut limits = Vec::new();
        for name in names {
            match self.plugin(name)? {
                Plugin::Limits(limit) => limits.push(limit),
                other => self.wrong_kind(name, kind_of(&other), "a limits plugin"),
            }
        }
        Some(limits)
    }

    fn routing(&mut self, name: &Spanned<String>) -> Option<Arc<Routing>> {
        match self.plugin(name)? {
            Plugin::Routing(routing) => Some(routing),
            other => {
                self.wrong_kind(name, kind_of(&other), "a routing plugin");
                None
            }
        }
    }

    /// The configured plugin of a name; one that failed has told why already.
    fn plugin(&mut self, name: &Spanned<String>) -> Option<Plugin> {
        let configured = self.plugins.get(&format!("plugins.{}", name.get_ref()));
        let plugin = configured.map(|configured| configured.plugin.clone());
        if plugin.is_none() && !self.build.config.plugins.contains_key(name.get_ref()) {
            let known = self.build.config.plugins.keys().map(String::as_str);
            self.unknown(name, "configured plugin", "[plugins]", known);
        }
        plugin
    }

    // -- jobs

    fn jobs(&mut self) -> JobRules {
        let jobs = &self.build.config.jobs;
        let webhook_secret = jobs.webhook_secret.as_ref().and_then(|secret| self.secret(secret));
        if let (Some(first), None) = (jobs.webhooks.first(), &jobs.webhook_secret) {
            let help = "set webhook_secret = \"env:NAME\" in [jobs]";
            self.problem(first.span(), "there is no secret to sign these reports with", help);
        }
        let reach = self.reach(None, false, jobs.webhook_proxy.as_ref()).unwrap_or_default();
        let webhooks = jobs.webhooks.iter().filter_map(|url| self.webhook(url, &reach)).collect();
        JobRules {
            kept: Duration::from_secs(jobs.kept_hours.saturating_mul(3600)),
            max: jobs.max,
            bytes_max: jobs.bytes_max,
            concurrent: jobs.concurrent,
            deadline: Duration::from_secs(jobs.deadline_s),
            webhooks,
            webhook_secret,
        }
    }

    fn webhook(&mut self, url: &Spanned<String>, reach: &Reach) -> Option<Webhook> {
        // As a whole it must be a base URL; what is asked is scheme and authority with the caller's path.
        let checked = Endpoint::parse(url.get_ref(), None, false);
        self.noted(url.span(), checked, "write a URL such as https://hooks.example.com/penstock")?;
        let uri: Uri = url.get_ref().parse().ok()?;
        let origin = format!("{}://{}", uri.scheme_str()?, uri.authority()?);
        let endpoint = self.endpoint("webhooks", &Spanned::new(url.span(), origin), reach)?;
        Some(Webhook { endpoint, path: uri.path().trim_end_matches('/').to_owned() })
    }

    // -- problems

    pub(super) fn problem(&mut self, span: Range<usize>, message: impl Into<String>, help: &str) {
        self.problems.push(Problem::new(self.build.sources.place(span), message, help));
    }

    pub(super) fn noted<T>(&mut self, span: Range<usize>, result: Result<T, String>, help: &str) -> Option<T> {
        result.map_err(|message| self.problem(span, message, help)).ok()
    }

    fn wrong_kind(&mut self, name: &Spanned<String>, kind: &str, wanted: &str) {
        let message = format!("{:?} is of kind {kind}", name.get_ref());
        self.problem(name.span(), message, &format!("name {wanted} here"));
    }

    fn unknown<'n>(&mut self, name: &Spanned<String>, what: &str, place: &str, known: impl Iterator<Item = &'n str>) {
        let known: Vec<_> = known.collect();
        let help = if known.is_empty() {
            format!("there is none in {place}")
        } else {
            format!("{place} has: {}", known.join(", "))
        };
        self.problem(name.span(), format!("there is no {what} {:?}", name.get_ref()), &help);
    }
}

fn kind_of(plugin: &Plugin) -> &'static str {
    match plugin {
        Plugin::Adapter(_) => Kind::Adapter,
        Plugin::Auth(_) => Kind::Auth,
        Plugin::Limits(_) => Kind::Limits,
        Plugin::Routing(_) => Kind::Routing,
        Plugin::Filter(_) => Kind::Filter,
    }
    .name()
}

fn fingerprint(wanted: &Wanted<'_>, digest: &[u8], config: &Value) -> [u8; 32] {
    let config = config.to_string();
    let isolation = format!("{:?}", wanted.isolation);
    let secrets = wanted.grants.fingerprint();
    let mut hash = Sha256::new();
    for part in [wanted.key.as_bytes(), digest, config.as_bytes(), isolation.as_bytes(), &secrets, &wanted.sources] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// SHA-256 over all that decides what is asked of others for a plugin, and how much of it is kept.
fn sources(plugin: &config::Plugin, grants: &Grants, limits: &config::Auth) -> [u8; 32] {
    let ca = plugin.ca.as_ref().map(|ca| ca.get_ref().as_str());
    let places: Vec<_> = plugin.endpoints.iter().map(|(name, url)| (name.as_str(), url.get_ref().as_str())).collect();
    let proxy = plugin.proxy.as_ref().map(|proxy| proxy.get_ref().as_str());
    let written = format!("{places:?} {ca:?} {proxy:?} {limits:?}");
    Sha256::new().chain_update(grants.fingerprint()).chain_update(written).finalize().into()
}
