// SPDX-License-Identifier: Apache-2.0
//! Where an upstream is. Only configuration makes endpoints: no header, body or plugin can name another authority.

use std::sync::{Arc, OnceLock};

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use super::Lanes;
use super::health::Health;
use crate::head;

/// Where an upstream is, and how it is doing.
pub struct Endpoint {
    /// In-flight exchanges, latency, breaker. A new generation may take it over from the old one's endpoint.
    pub health: Arc<Health>,
    scheme: Scheme,
    authority: Authority,
    prefix: String,
    http2: bool,
    trust: Option<Trust>,
    pub(super) own_lanes: OnceLock<Arc<Lanes>>,
}

/// Further roots of trust of one endpoint.
pub(super) struct Trust {
    pub(super) digest: [u8; 32],
    pub(super) roots: Vec<CertificateDer<'static>>,
}

impl Endpoint {
    /// Reads a base URL, `https://host[:port][/prefix]`. `ca` is PEM text with roots to trust beside the system's. With
    /// `http2`, HTTP/2 is spoken to a clear-text upstream without negotiation; with TLS it is negotiated anyway.
    /// The error says what is wrong and what to write instead.
    pub fn parse(url: &str, ca: Option<&[u8]>, http2: bool) -> Result<Self, String> {
        let uri: Uri =
            url.parse().map_err(|error| format!("not a URL ({error}); write `https://host[:port][/path]`"))?;
        let parts = uri.into_parts();
        let scheme = match parts.scheme {
            Some(scheme) if scheme == Scheme::HTTP || scheme == Scheme::HTTPS => scheme,
            _ => return Err(String::from("the URL must start with `http://` or `https://`")),
        };
        let authority = parts.authority.filter(|authority| !authority.host().is_empty());
        let authority =
            authority.ok_or_else(|| String::from("the URL has no host; write `https://host[:port][/path]`"))?;
        if authority.as_str().contains('@') {
            return Err(String::from("the URL must not hold a user or a password; grant a secret instead"));
        }
        let path = parts.path_and_query.unwrap_or(PathAndQuery::from_static("/"));
        if path.query().is_some() {
            return Err(String::from("a base URL has no query; leave out what follows `?`"));
        }
        if head::has_dot_segment(path.path()) {
            return Err(String::from("the path must not have `.` or `..` segments"));
        }
        let prefix = path.path().trim_end_matches('/').to_owned();
        let trust = ca.map(Trust::parse).transpose()?;
        let http2 = http2 && scheme == Scheme::HTTP;
        Ok(Self { health: Arc::default(), scheme, authority, prefix, http2, trust, own_lanes: OnceLock::new() })
    }

    /// The URI of a path (with its query) below the base URL: `/v1/models` gives `https://host/prefix/v1/models`.
    /// A path that does not start with `/`, has dot segments or characters that a URI cannot have is an error.
    pub fn uri(&self, path_and_query: &str) -> Result<Uri, String> {
        if !path_and_query.starts_with('/') {
            return Err(String::from("the path must start with `/`"));
        }
        let joined = if self.prefix.is_empty() {
            PathAndQuery::try_from(path_and_query)
        } else {
            PathAndQuery::try_from(format!("{}{path_and_query}", self.prefix))
        };
        let joined = joined.map_err(|error| format!("not a path: {error}"))?;
        if head::has_dot_segment(joined.path()) || path_and_query.contains('#') {
            return Err(String::from("the path must not have dot segments or a fragment"));
        }
        let uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(joined);
        uri.build().map_err(|error| format!("not a URI: {error}"))
    }

    /// The URI of the base URL itself, with a query that is empty or begins with `?`.
    pub fn itself(&self, query: &str) -> Result<Uri, String> {
        if self.prefix.is_empty() {
            return self.uri(&format!("/{query}"));
        }
        let path = PathAndQuery::try_from(format!("{}{query}", self.prefix));
        let path = path.map_err(|error| format!("not a path: {error}"))?;
        let uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(path);
        uri.build().map_err(|error| format!("not a URI: {error}"))
    }

    /// Host and port, for logs and metrics.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// Whether a URI has this endpoint's scheme and authority.
    pub fn owns(&self, uri: &Uri) -> bool {
        uri.scheme() == Some(&self.scheme) && uri.authority() == Some(&self.authority)
    }

    /// Whether HTTP/2 is spoken without negotiation.
    pub(super) fn prior_knowledge(&self) -> bool {
        self.http2
    }

    pub(super) fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }
}

impl Trust {
    fn parse(pem: &[u8]) -> Result<Self, String> {
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let roots = roots.map_err(|error| format!("not a PEM file: {error}"))?;
        if roots.is_empty() {
            return Err(String::from("no certificate in it; a PEM file has `-----BEGIN CERTIFICATE-----`"));
        }
        let mut store = RootCertStore::empty();
        for root in &roots {
            store.add(root.clone()).map_err(|error| format!("not a root of trust: {error}"))?;
        }
        let mut digest = Sha256::new();
        for root in &roots {
            digest.update(u64::try_from(root.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(root);
        }
        Ok(Self { digest: digest.finalize().into(), roots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_below_the_base_url_and_nowhere_else() {
        let endpoint = Endpoint::parse("https://api.example.com:8443/compatible/v1/", None, false).unwrap();
        let uri = endpoint.uri("/chat/completions?a=b").unwrap();
        assert_eq!(uri, "https://api.example.com:8443/compatible/v1/chat/completions?a=b");
        assert!(endpoint.owns(&uri));
        assert!(!endpoint.owns(&"https://api.example.com/compatible/v1".parse().unwrap()));
        for bad in
            ["", "x", "@evil/", "https://evil/", "/../admin", "/a/%2e%2E/b", "/a/./b", "/a b", "/a\r\nb", "/a#b", "/.."]
        {
            assert!(endpoint.uri(bad).is_err(), "{bad:?}");
        }
        assert_eq!(endpoint.itself("?a=b").unwrap(), "https://api.example.com:8443/compatible/v1?a=b");
        assert!(endpoint.itself("#a").is_err() || endpoint.itself("#a").unwrap().query().is_none());
        let root = Endpoint::parse("http://127.0.0.1:1", None, false).unwrap();
        assert_eq!(root.uri("//evil.example/x").unwrap().host(), Some("127.0.0.1"));
    }

    #[test]
    fn what_is_no_base_url_is_refused_with_a_reason() {
        let bad =
            ["", "x", "/v1", "ftp://x/", "http:///x", "http://user:hunter2@x/", "http://x/?key=1", "http://x/../y"];
        for url in bad {
            let error = Endpoint::parse(url, None, false).err().unwrap_or_else(|| panic!("{url:?} was taken"));
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(Endpoint::parse("https://x", Some(b"not PEM"), false).is_err());
    }
}
