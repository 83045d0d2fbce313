// SPDX-License-Identifier: Apache-2.0
//! What an operator writes about the sockets that callers connect to.

use std::net::SocketAddr;

use serde::Deserialize;
use toml::Spanned;

/// A socket that callers connect to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address and port, `"127.0.0.1:8080"`; port 0 takes a free one.
    pub address: SocketAddr,
    /// TLS; none for clear text. HTTP/1.1 and HTTP/2 are served on both.
    #[serde(default)]
    pub tls: Option<Tls>,
}

/// Certificates of a listener. Their files are read again when they change.
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
