// SPDX-License-Identifier: Apache-2.0
//! Which route a request takes, and where a model is served.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use foldhash::quality::RandomState;
use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use penstock_prices::price::Price;
use penstock_prices::table::Table;

use crate::clock;
use crate::config;
use crate::directory::pool::Pool;
use crate::keys;
use crate::plugin::{Adapter, Auth, Filter, Limits, Routing};
use crate::upstream::balance::key_of;
use crate::upstream::{Breaker, Endpoint, Fleet, Hedge, Verdict};

/// What is served at a path.
pub struct Route {
    /// Name, for logs and metrics.
    pub name: Arc<str>,
    /// Path prefix without a trailing slash; empty for the root.
    pub prefix: String,
    /// Host name in lower case; none for any.
    pub host: Option<String>,
    /// Filters, in order.
    pub filters: Vec<Arc<Filter>>,
    /// Who may ask.
    pub auth: Option<Arc<Authority>>,
    /// What it is charged to.
    pub limits: Vec<Arc<Limits>>,
    /// Order of the targets.
    pub routing: Option<Arc<Routing>>,
    /// When a second target is asked beside a slow one.
    pub hedge: Option<Arc<Hedge>>,
    /// Refuse what a translation cannot carry.
    pub strict: bool,
    /// Dialects that are spoken here; empty for all.
    pub dialects: Vec<String>,
    /// Codings in which answers may be compressed, and whether streams of events may be, too.
    pub compress: (Vec<config::Coding>, bool),
    /// AI or plain HTTP.
    pub serves: Serves,
}

/// Who says who may ask.
pub struct Authority {
    /// The plugin.
    pub plugin: Arc<Auth>,
    /// Where it may ask others, by the names that it knows.
    pub endpoints: BTreeMap<String, Arc<Endpoint>>,
}

/// What a route leads to.
pub enum Serves {
    /// The models of the policy.
    Models,
    /// A plain HTTP service.
    Service {
        /// Where it is.
        service: Arc<Service>,
        /// Whether the prefix is taken off the path.
        strip_prefix: bool,
    },
}

/// A plain HTTP upstream.
pub struct Service {
    /// Name, for logs and metrics.
    pub name: Arc<str>,
    /// Its endpoints, as they are now. A new generation takes them over.
    pub fleet: Arc<Fleet>,
    /// Which of them is asked.
    pub balance: config::Balance,
    /// What the balance goes by.
    pub hash: HashBy,
    /// When one of them is ejected.
    pub breaker: config::Breaker,
    /// Who finds them, if they are not written down.
    pub source: Option<Arc<Source>>,
    /// How they are probed.
    pub probe: Option<config::Probe>,
}

/// What requests that go to the same endpoint have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    /// The caller's address.
    Client,
    /// A header.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
}

/// Where it is asked which endpoints there are.
pub struct Source {
    /// What is asked for.
    pub written: config::Discover,
    /// The server that is asked, if it is asked by HTTP.
    pub server: Option<Endpoint>,
    /// What it wants to see.
    pub token: Option<keys::Source>,
    /// Where a new generation knows it by.
    pub fingerprint: [u8; 32],
}

impl HashBy {
    /// Reads `client`, `header:NAME` or `cookie:NAME`.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "client" => Ok(Self::Client),
            Some(("header", name)) => {
                name.parse().map(Self::Header).map_err(|_| format!("{name:?} is no name of a header"))
            }
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.to_owned())),
            _ => Err(format!("{text:?} says nothing to go by")),
        }
    }

    /// The number that a request has in common with those that are alike.
    #[must_use]
    pub fn key(&self, headers: &HeaderMap, client: IpAddr) -> Option<u64> {
        match self {
            Self::Client => Some(match client {
                IpAddr::V4(address) => key_of(&address.octets()),
                IpAddr::V6(address) => key_of(&address.octets()),
            }),
            Self::Header(name) => headers.get(name).map(|value| key_of(value.as_bytes())),
            Self::Cookie(name) => {
                let pairs =
                    headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
                let mut values = pairs.filter_map(|pair| {
                    let pair = pair.trim_ascii();
                    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
                });
                values.next().map(key_of)
            }
        }
    }
}

/// A company behind an API, ready to be asked.
pub struct Vendor {
    /// Name.
    pub name: Arc<str>,
    /// Who speaks its API.
    pub adapter: Arc<Adapter>,
    /// Where it is; none for an adapter that answers by itself.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Further endpoints, by the names that its adapter knows.
    pub endpoints: BTreeMap<String, Arc<Endpoint>>,
    /// Models, as the policy lists them.
    pub models: Vec<String>,
    /// Features of its adapter that it does not have.
    pub without: Vec<String>,
    /// The vendor whose keys in the directory it uses; mostly its own name.
    pub keys_of: Arc<str>,
    /// Its keys, if the directory has some.
    pub pool: Option<Pool>,
    /// What each attempt is charged to.
    pub limits: Vec<Arc<Limits>>,
    /// When a model of it is ejected.
    pub breaker: config::Breaker,
    /// How its models are doing. A new generation takes it over.
    pub breakers: Arc<Breakers>,
}

/// How the models of a vendor are doing, by their names.
#[derive(Default)]
pub struct Breakers {
    by_model: papaya::HashMap<Box<str>, Arc<Breaker>, RandomState>,
    /// Of all models for which there is no room.
    others: Arc<Breaker>,
}

impl Breakers {
    /// How a model is doing.
    #[must_use]
    pub fn of(&self, model: &str) -> Arc<Breaker> {
        let kept = self.by_model.pin();
        if let Some(breaker) = kept.get(model) {
            return Arc::clone(breaker);
        }
        if kept.len() >= KEPT_MAX {
            return Arc::clone(&self.others);
        }
        Arc::clone(kept.get_or_insert_with(model.into(), Arc::default))
    }
}

impl Vendor {
    /// Host and port of where it is; empty for an adapter that answers by itself.
    #[must_use]
    pub fn server(&self) -> &str {
        self.endpoint.as_ref().map_or("", |endpoint| endpoint.place())
    }
}

/// One place where a model is served.
#[derive(Clone)]
pub struct Target {
    /// "vendor/model".
    pub id: Arc<str>,
    /// The same for the headers of an answer; none if the name of a model cannot stand in one.
    pub shown: Option<HeaderValue>,
    /// Who is asked.
    pub vendor: Arc<Vendor>,
    /// The vendor's name of the model.
    pub model: Arc<str>,
    /// Weight for routing.
    pub weight: u32,
    /// Order for routing.
    pub priority: u32,
    /// What the model costs, if that is known.
    pub price: Option<Arc<Price>>,
    /// How the model is doing.
    pub breaker: Arc<Breaker>,
}

impl Target {
    /// Whether to ask here before targets that are not well: the model answers, and the vendor can be reached.
    #[must_use]
    pub fn is_healthy(&self, now: Instant) -> bool {
        self.breaker.healthy(&self.vendor.breaker, now)
            && self.vendor.endpoint.as_ref().is_none_or(|endpoint| endpoint.health.healthy(now))
    }

    /// A request goes here.
    pub fn begins(&self) {
        self.breaker.begin(&self.vendor.breaker, Instant::now());
    }

    /// What has become of it.
    pub fn records(&self, verdict: Verdict) {
        if let Some(lasts) = self.breaker.record(verdict, &self.vendor.breaker, Instant::now()) {
            tracing::warn!(target_id = %self.id, ms = clock::millis(lasts), "a target is ejected for a while");
        }
    }
}

/// Where the name of a model leads.
pub struct Alias {
    /// Targets, at least one.
    pub targets: Vec<Target>,
    /// Order of the targets; none for the route's own.
    pub routing: Option<Arc<Routing>>,
    /// When a second target is asked beside a slow one; none for what the route says.
    pub hedge: Option<Arc<Hedge>>,
}

/// The routes of a snapshot.
#[derive(Default)]
pub struct Routes {
    by_prefix: HashMap<String, Vec<Arc<Route>>, RandomState>,
}

impl Routes {
    /// Adds a route; one with a host comes before one without.
    pub fn add(&mut self, route: Arc<Route>) {
        let routes = self.by_prefix.entry(route.prefix.clone()).or_default();
        let place = if route.host.is_some() { 0 } else { routes.len() };
        routes.insert(place, route);
    }

    /// The route with the longest prefix of whole segments that matches.
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        let mut prefix = path.trim_end_matches('/');
        loop {
            let here = self.by_prefix.get(prefix).into_iter().flatten();
            let matches =
                |route: &&Arc<Route>| route.host.as_deref().is_none_or(|name| name.eq_ignore_ascii_case(host));
            if let Some(route) = here.into_iter().find(matches) {
                return Some(route);
            }
            prefix = &prefix[..prefix.rfind('/')?];
        }
    }

    /// Every route.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.by_prefix.values().flatten()
    }
}

/// Names of models beside those that the policy gives whose way is kept. Callers choose them, so there is an end to it.
const KEPT_MAX: usize = 4_096;

/// The models of a snapshot.
#[derive(Default)]
pub struct Models {
    /// Names that the policy gives.
    pub aliases: HashMap<String, Arc<Alias>, RandomState>,
    /// Vendors by name.
    pub vendors: HashMap<String, Arc<Vendor>>,
    /// What models cost.
    pub prices: Arc<Table>,
    /// Where further names have been found to lead.
    kept: papaya::HashMap<Box<str>, Arc<Alias>, RandomState>,
}

impl Models {
    /// No models yet, and what any cost.
    #[must_use]
    pub fn with(prices: Arc<Table>) -> Self {
        Self { prices, ..Self::default() }
    }

    /// Where a model is served: an alias, `vendor/model`, or what vendors list, in this order.
    #[must_use]
    pub fn resolve(&self, name: &str) -> Option<Arc<Alias>> {
        if let Some(alias) = self.aliases.get(name) {
            return Some(Arc::clone(alias));
        }
        let kept = self.kept.pin();
        if let Some(alias) = kept.get(name) {
            return Some(Arc::clone(alias));
        }
        let targets = self.look_up(name);
        let alias = (!targets.is_empty()).then(|| Arc::new(Alias { targets, routing: None, hedge: None }))?;
        if kept.len() < KEPT_MAX {
            kept.insert(name.into(), Arc::clone(&alias));
        }
        Some(alias)
    }

    /// The targets of a name to which the policy gives no targets of its own.
    fn look_up(&self, name: &str) -> Vec<Target> {
        if let Some((vendor, model)) = name.split_once('/')
            && let Some(vendor) = self.vendors.get(vendor)
            && !model.is_empty()
        {
            return vec![self.target(vendor, model)];
        }
        let mut listed: Vec<_> = self.vendors.values().filter(|vendor| lists(&vendor.models, name)).collect();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        listed.into_iter().map(|vendor| self.target(vendor, name)).collect()
    }

    /// A target of a vendor, with the defaults of the policy.
    #[must_use]
    pub fn target(&self, vendor: &Arc<Vendor>, model: &str) -> Target {
        let id: Arc<str> = format!("{}/{model}", vendor.name).into();
        let shown = HeaderValue::from_str(&id).ok();
        let price = self.prices.find(&vendor.name, model).cloned();
        let breaker = vendor.breakers.of(model);
        Target { id, shown, vendor: Arc::clone(vendor), model: model.into(), weight: 1, priority: 0, price, breaker }
    }

    /// The vendor that a request without a model goes to: the one that the caller names, or the only one that serves the
    /// operation.
    ///
    /// # Errors
    /// What the caller should name.
    pub fn vendor(&self, named: Option<&str>, operation: &str) -> Result<Target, String> {
        let mut serving: Vec<_> = self.vendors.values().filter(|vendor| vendor.adapter.serves(operation)).collect();
        serving.sort_by(|a, b| a.name.cmp(&b.name));
        let names = || serving.iter().map(|vendor| &*vendor.name).collect::<Vec<_>>().join(", ");
        let vendor = match named {
            Some(name) => serving
                .iter()
                .find(|vendor| &*vendor.name == name)
                .ok_or_else(|| format!("no vendor {name:?} that serves {operation}; there are: {}", names()))?,
            None => match serving.as_slice() {
                [vendor] => vendor,
                [] => return Err(format!("no vendor serves {operation}")),
                _ => {
                    return Err(format!(
                        "name a vendor in the header penstock-vendor; {operation} is served by: {}",
                        names()
                    ));
                }
            },
        };
        Ok(Target { id: Arc::clone(&vendor.name), ..self.target(vendor, "") })
    }

    /// Every name that a caller may use, with who serves it, sorted; patterns are left out.
    #[must_use]
    pub fn names(&self) -> Vec<(String, String)> {
        let mut names: Vec<_> = self.aliases.keys().map(|alias| (alias.clone(), "penstock".to_owned())).collect();
        for vendor in self.vendors.values() {
            for model in vendor.models.iter().filter(|model| !model.ends_with('*')) {
                names.push((model.clone(), vendor.name.to_string()));
            }
        }
        names.sort();
        names.dedup_by(|a, b| a.0 == b.0);
        names
    }
}

fn lists(models: &[String], name: &str) -> bool {
    models.iter().any(|model| match model.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => model == name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_requests_have_in_common_is_read_from_header_cookie_or_address() {
        let client: IpAddr = "10.0.0.1".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-user", HeaderValue::from_static("ann"));
        headers.append(COOKIE, HeaderValue::from_static("a=1; sid=s1;b=2"));
        headers.append(COOKIE, HeaderValue::from_static("sid=s2"));
        let key = |text: &str| HashBy::parse(text).unwrap().key(&headers, client);
        assert_eq!(key("header:X-User"), Some(key_of(b"ann")));
        assert_eq!(key("cookie:sid"), Some(key_of(b"s1")), "the first one");
        assert_eq!((key("cookie:id"), key("cookie:si"), key("header:x")), (None, None, None));
        assert_eq!(key("client"), Some(key_of(&[10, 0, 0, 1])));
        for bad in ["", "header", "header:", "header:a b", "cookie:", "ip", "client:"] {
            assert!(HashBy::parse(bad).is_err(), "{bad}");
        }
    }
}
