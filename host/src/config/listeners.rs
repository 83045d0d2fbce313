// SPDX-License-Identifier: Apache-2.0
//! What an operator writes about the sockets that callers connect to.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use toml::Spanned;

/// A socket that callers connect to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address and port, `"127.0.0.1:8080"`; port 0 takes a free one. Or a Unix socket, `"unix:/run/penstock/http.sock"`: its file is made
    /// at the start and removed at the end, and its callers have the address 127.0.0.1.
    pub address: Place,
    /// Permissions of the file of a Unix socket, in octal: who may write to it may connect.
    #[serde(default = "for_the_group")]
    pub mode: String,
    /// Load balancers that say who the caller is, by the PROXY protocol (versions 1 and 2).
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// TLS; none for clear text. HTTP/1.1 and HTTP/2 are served on both.
    #[serde(default)]
    pub tls: Option<Tls>,
}

impl Listener {
    /// A socket at this place, for callers in clear text.
    #[must_use]
    pub fn plain(address: Place) -> Self {
        Self { address, mode: for_the_group(), proxy_protocol: None, tls: None }
    }
}

fn for_the_group() -> String {
    "660".to_owned()
}

/// Where a listener is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Place {
    /// An address and a port of the network.
    Network(SocketAddr),
    /// The file of a Unix socket.
    File(PathBuf),
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') && !path.ends_with('/') => Ok(Self::File(path.into())),
            Some(_) => Err("write `unix:` and the whole path of a file, `unix:/run/penstock/http.sock`".to_owned()),
            None => text.parse().map(Self::Network).map_err(|_| {
                "write an IP address and a port, `127.0.0.1:8080` or `[::]:8080`, or `unix:/path/to/socket`".to_owned()
            }),
        }
    }
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self::Network(address)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(out),
            Self::File(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

/// Who may say who the caller is. What they say goes for the log, for what plugins see, and for `x-forwarded-for`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Networks of the load balancers: `["10.0.0.0/8", "fd00::1"]`. A connection from there that does not begin with a header is
    /// closed. Not needed for a Unix socket: whoever may open it is a load balancer.
    #[serde(default)]
    pub from: Vec<Spanned<String>>,
    /// Serve callers from elsewhere, too, as what they are; without it, they are not connected. A header from them is not believed.
    #[serde(default)]
    pub others: bool,
}

/// Certificates of a listener. Their files are watched, and read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the certificate chain, leaf first.
    pub certificate: Spanned<String>,
    /// PEM file with the private key.
    pub key: Spanned<String>,
    /// Further certificates, for callers that ask for a name (SNI); any other caller is shown the one above.
    #[serde(default)]
    pub sni: Vec<Sni>,
    /// PEM file with the roots of trust for certificates of callers; without it none is asked for.
    #[serde(default)]
    pub client_ca: Option<Spanned<String>>,
    /// Whether a caller must show a certificate; with `client_ca` and without this, it must.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
    /// PEM files with lists of certificates that are revoked. With any, who has issued a caller's certificate must have a list
    /// among them.
    #[serde(default)]
    pub client_crls: Vec<Spanned<String>>,
}

/// A certificate for callers that ask for certain names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sni {
    /// The names: `"api.example.com"`, or `"*.example.com"` for any one label before it. Those that stand in the certificate, if
    /// this is left out.
    #[serde(default)]
    pub names: Vec<Spanned<String>>,
    /// PEM file with the certificate chain, leaf first.
    pub certificate: Spanned<String>,
    /// PEM file with the private key.
    pub key: Spanned<String>,
}

/// Whether callers must show a certificate that `client_ca` has signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// Who has none is connected, too: a route decides by its auth plugin.
    Optional,
    /// Who has none is not connected.
    Required,
}
