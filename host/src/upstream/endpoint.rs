// SPDX-License-Identifier: Apache-2.0
//! Where an upstream is. Only configuration makes endpoints: no header, body or plugin can name another authority.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use super::Lanes;
use super::health::Health;
use super::through::Proxy;
use crate::head;

/// Where an upstream is, and how it is doing.
pub struct Endpoint {
    /// In-flight exchanges, latency, breaker. A new generation may take it over from the old one's endpoint.
    pub health: Arc<Health>,
    scheme: Scheme,
    authority: Authority,
    prefix: String,
    http2: bool,
    /// What logs and metrics call it.
    place: String,
    own: Option<Own>,
    pub(super) own_lanes: OnceLock<Arc<Lanes>>,
}

/// What an endpoint does not share with most others, and only with those that have the same.
#[derive(Default)]
pub(super) struct Own {
    /// Further roots of trust.
    pub(super) roots: Vec<CertificateDer<'static>>,
    pub(super) way: Way,
}

/// How the host of an endpoint is reached.
#[derive(Debug, Clone, Default)]
pub(super) enum Way {
    #[default]
    Network,
    /// Through a proxy.
    Through(Arc<Proxy>),
    /// By a Unix socket, whatever the name.
    Socket(Arc<Path>),
    /// By an address that was found for the name.
    At(SocketAddr),
}

impl Endpoint {
    /// Reads a base URL, `https://host[:port][/prefix]`, or `unix:/path/to/socket`, or both joined by a colon: a Unix socket, and the
    /// URL that is asked for there (without it, `http://localhost`). `ca` is PEM text with roots to trust beside the system's. With
    /// `http2`, HTTP/2 is spoken to a clear-text upstream without negotiation; with TLS it is negotiated anyway.
    /// The error says what is wrong and what to write instead.
    pub fn parse(url: &str, ca: Option<&[u8]>, http2: bool) -> Result<Self, String> {
        let Some(rest) = url.strip_prefix("unix:") else { return Self::over_network(url, ca, http2) };
        let ends = ["http://", "https://"].map(|scheme| rest.find(&format!(":{scheme}")));
        let (path, url) = match ends.into_iter().flatten().min() {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, "http://localhost"),
        };
        if !path.starts_with('/') || path.contains('\0') {
            return Err(String::from("write `unix:/path/to/socket` or `unix:/path/to/socket:http://host/path`"));
        }
        let mut endpoint = Self::over_network(url, ca, http2)?;
        endpoint.place = format!("unix:{path}");
        endpoint.own.get_or_insert_default().way = Way::Socket(Path::new(path).into());
        Ok(endpoint)
    }

    /// The same endpoint, reached through a proxy.
    ///
    /// # Errors
    /// It is reached by a Unix socket.
    pub fn through(mut self, proxy: Arc<Proxy>) -> Result<Self, String> {
        let own = self.own.get_or_insert_default();
        if matches!(own.way, Way::Socket(_)) {
            return Err(String::from("there is no proxy on the way to a Unix socket; leave `proxy` out"));
        }
        own.way = Way::Through(proxy);
        Ok(self)
    }

    /// The same endpoint at this address, whatever its name resolves to.
    #[must_use]
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.own.get_or_insert_default().way = Way::At(address);
        self.place = address.to_string();
        self
    }

    fn over_network(url: &str, ca: Option<&[u8]>, http2: bool) -> Result<Self, String> {
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
        let own = match ca {
            Some(pem) => Some(Own { roots: roots(pem)?, way: Way::Network }),
            None => None,
        };
        let http2 = http2 && scheme == Scheme::HTTP;
        let (health, place, own_lanes) = (Arc::default(), authority.to_string(), OnceLock::new());
        Ok(Self { health, scheme, authority, prefix, http2, place, own, own_lanes })
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

    /// Host and port, as they are sent.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// What logs and metrics call it: host and port, or the Unix socket.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether a URI has this endpoint's scheme and authority.
    pub fn owns(&self, uri: &Uri) -> bool {
        uri.scheme() == Some(&self.scheme) && uri.authority() == Some(&self.authority)
    }

    /// Whether HTTP/2 is spoken without negotiation.
    pub(super) fn prior_knowledge(&self) -> bool {
        self.http2
    }

    pub(super) fn own(&self) -> Option<&Own> {
        self.own.as_ref()
    }
}

impl Own {
    /// The same for all that share connections, and for nobody else.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for root in &self.roots {
            digest.update(u64::try_from(root.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(root);
        }
        // No root is as long as that.
        digest.update(u64::MAX.to_be_bytes());
        match &self.way {
            Way::Network => {}
            Way::Through(proxy) => digest.update([b"proxy ", &proxy.fingerprint()[..]].concat()),
            Way::Socket(path) => digest.update([b"unix ", path.as_os_str().as_encoded_bytes()].concat()),
            Way::At(address) => digest.update(format!("at {address}")),
        }
        digest.finalize().into()
    }

    /// The same for all that trust the same roots.
    pub(super) fn roots_fingerprint(&self) -> [u8; 32] {
        Self { roots: self.roots.clone(), way: Way::Network }.fingerprint()
    }
}

/// Further roots of trust.
fn roots(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let roots = roots.map_err(|error| format!("not a PEM file: {error}"))?;
    if roots.is_empty() {
        return Err(String::from("no certificate in it; a PEM file has `-----BEGIN CERTIFICATE-----`"));
    }
    let mut store = RootCertStore::empty();
    for root in &roots {
        store.add(root.clone()).map_err(|error| format!("not a root of trust: {error}"))?;
    }
    Ok(roots)
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

    #[test]
    fn a_unix_socket_has_a_name_to_send_and_one_for_logs() {
        let cases = [
            ("unix:/run/a.sock", "http://localhost/x", "unix:/run/a.sock"),
            ("unix:/run/a.sock:https://b.example/v1/", "https://b.example/v1/x", "unix:/run/a.sock"),
            ("unix:/run/a:b.sock:http://c:81", "http://c:81/x", "unix:/run/a:b.sock"),
        ];
        for (url, uri, place) in cases {
            let endpoint = Endpoint::parse(url, None, false).unwrap();
            assert_eq!((endpoint.uri("/x").unwrap().to_string(), endpoint.place()), (uri.to_owned(), place));
        }
        for bad in ["unix:", "unix:run/a.sock", "unix:/a:http://", "unix:/a:http://u:p@x"] {
            assert!(Endpoint::parse(bad, None, false).is_err(), "{bad}");
        }
        let proxy = Arc::new(Proxy::parse("http://proxy:1").unwrap());
        assert!(Endpoint::parse("unix:/a", None, false).unwrap().through(proxy).is_err());
    }

    #[test]
    fn connections_are_shared_only_by_those_that_go_the_same_way() {
        let proxy = |url| Arc::new(Proxy::parse(url).unwrap());
        let endpoint = |url| Endpoint::parse(url, None, false).unwrap();
        let own = |endpoint: Endpoint| endpoint.own.map(|own| own.fingerprint());
        let through = |url| own(endpoint("http://x").through(proxy(url)).unwrap());
        let all = [
            own(endpoint("http://x")),
            own(endpoint("unix:/a")),
            own(endpoint("unix:/b")),
            through("http://p:1"),
            through("http://u:p@p:1"),
            through("socks5://p:1"),
            own(endpoint("http://x").at("10.0.0.1:80".parse().unwrap())),
            own(endpoint("http://x").at("10.0.0.1:81".parse().unwrap())),
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(through("http://p:1"), own(endpoint("https://y").through(proxy("http://p:1")).unwrap()));
    }
}
