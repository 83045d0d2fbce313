// SPDX-License-Identifier: Apache-2.0
//! How the endpoints of a vendor, a service or a plugin are reached: whom they trust, and what is on the way.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use toml::Spanned;

use super::builder::Builder;
use crate::keys::Source;
use crate::upstream::{Endpoint, Proxy};

/// What to do about a proxy that cannot be read.
pub const PROXY_HELP: &str = "write a URL without a password, or env:NAME or file:PATH where a URL with one stands";

/// What an endpoint needs beside its URL.
#[derive(Default)]
pub(super) struct Reach {
    /// PEM text with further roots of trust.
    roots: Option<Vec<u8>>,
    http2: bool,
    proxy: Option<Arc<Proxy>>,
}

impl Builder<'_> {
    /// What an endpoint needs beside its URL; none if that is wrong.
    pub(super) fn reach(
        &mut self,
        ca: Option<&Spanned<String>>,
        http2: bool,
        proxy: Option<&Spanned<String>>,
    ) -> Option<Reach> {
        let roots = match ca {
            None => None,
            Some(path) => {
                let read = std::fs::read(path.get_ref()).map_err(|error| format!("{}: {error}", path.get_ref()));
                Some(self.noted(path.span(), read, "name a PEM file that the gateway may read")?)
            }
        };
        let proxy = match proxy {
            None => None,
            Some(written) => Some(Arc::new(self.noted(written.span(), read_proxy(written.get_ref()), PROXY_HELP)?)),
        };
        Some(Reach { roots, http2, proxy })
    }

    /// An endpoint; the one in force is taken over, with its health.
    pub(super) fn endpoint(&mut self, name: &str, url: &Spanned<String>, reach: &Reach) -> Option<Arc<Endpoint>> {
        let key = format!("{name} {} {:?}", url.get_ref(), reach.fingerprint());
        let endpoint = match self.build.previous.and_then(|previous| previous.endpoints.get(&key)) {
            Some(endpoint) => Arc::clone(endpoint),
            None => {
                let parsed = Endpoint::parse(url.get_ref(), reach.roots.as_deref(), reach.http2);
                let parsed = match &reach.proxy {
                    Some(proxy) => parsed.and_then(|endpoint| endpoint.through(Arc::clone(proxy))),
                    None => parsed,
                };
                Arc::new(self.noted(url.span(), parsed, "write a URL such as https://api.example.com/v1")?)
            }
        };
        self.endpoints.insert(key, Arc::clone(&endpoint));
        Some(endpoint)
    }
}

impl Reach {
    fn fingerprint(&self) -> (bool, Option<[u8; 32]>, Option<[u8; 32]>) {
        let roots = self.roots.as_ref().map(|roots| Sha256::digest(roots).into());
        (self.http2, roots, self.proxy.as_ref().map(|proxy| proxy.fingerprint()))
    }
}

/// A proxy as an operator has written it: its URL, or where that stands if it holds a password.
///
/// # Errors
/// What is wrong with it; a password is not repeated.
pub fn read_proxy(written: &str) -> Result<Proxy, String> {
    if !written.starts_with("env:") && !written.starts_with("file:") {
        let in_the_open = written.contains('@').then(|| Err("a password does not stand in a policy".to_owned()));
        return in_the_open.unwrap_or_else(|| Proxy::parse(written));
    }
    let source = Source::parse(written)?;
    let secret = source.read()?;
    let url = std::str::from_utf8(secret.expose()).map_err(|_| format!("{source} is not UTF-8"))?;
    Proxy::parse(url).map_err(|error| format!("{source}: {error}"))
}
