// SPDX-License-Identifier: Apache-2.0
//! Which certificate a caller is shown: the one for the name that it asks for (SNI, RFC 6066 section 3), else the listener's own.
//!
//! An exact name goes before a wildcard, and a wildcard stands for one label, as in certificates (RFC 9525 section 6.3).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

/// The certificates of a listener by name.
#[derive(Debug)]
pub(super) struct Names {
    own: Arc<CertifiedKey>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows `*.`.
    wildcards: HashMap<String, Arc<CertifiedKey>>,
}

impl Names {
    /// A listener with one certificate.
    pub(super) fn new(own: CertifiedKey) -> Self {
        Self { own: Arc::new(own), exact: HashMap::new(), wildcards: HashMap::new() }
    }

    /// A further certificate, for these names, or without any for those that stand in it. The error says which name is wrong.
    pub(super) fn add(&mut self, names: &[&str], key: CertifiedKey) -> Result<(), String> {
        let leaf = key.cert.first().ok_or("no certificate in it")?;
        let names = if names.is_empty() {
            own_names(leaf)?
        } else {
            let leaf = ParsedCertificate::try_from(leaf).map_err(|error| format!("cannot be read: {error}"))?;
            names.iter().map(|name| stands_in(name, &leaf)).collect::<Result<_, _>>()?
        };
        let key = Arc::new(key);
        for name in names {
            let (map, place) = match name.strip_prefix("*.") {
                Some(domain) => (&mut self.wildcards, domain),
                None => (&mut self.exact, name.as_str()),
            };
            if map.insert(place.to_owned(), Arc::clone(&key)).is_some() {
                return Err(format!("another certificate of this listener is for `{name}`; name it once"));
            }
        }
        Ok(())
    }

    fn named(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name else { return &self.own };
        let wildcard = || self.wildcards.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard).unwrap_or(&self.own)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // The TLS library has made the name lower-case.
        Some(Arc::clone(self.named(hello.server_name())))
    }
}

/// A name that an operator has written, in lower case, if the certificate is for it.
fn stands_in(name: &str, leaf: &ParsedCertificate<'_>) -> Result<String, String> {
    let name = name.to_ascii_lowercase();
    let asked = name.strip_prefix("*.").map_or_else(|| name.clone(), |domain| format!("any.{domain}"));
    let asked = match ServerName::try_from(asked) {
        Ok(asked @ ServerName::DnsName(_)) if !name.contains(char::is_whitespace) => asked,
        _ => return Err(format!("`{name}` is no name; write `api.example.com` or `*.example.com`")),
    };
    match rustls::client::verify_server_name(leaf, &asked) {
        Ok(()) => Ok(name),
        Err(_) => Err(format!("the certificate is not for `{name}`; leave `names` out to take those that stand in it")),
    }
}

/// The DNS names that stand in a certificate.
fn own_names(leaf: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).map_err(|error| format!("cannot be read: {error}"))?;
    let alternatives = leaf.subject_alternative_name().map_err(|error| format!("cannot be read: {error}"))?;
    let names = alternatives.into_iter().flat_map(|names| &names.value.general_names);
    let names: Vec<_> = names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if names.is_empty() { Err("no DNS name in it; callers ask for one (SNI)".to_owned()) } else { Ok(names) }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::ring::sign::any_supported_type;
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    fn certified(names: &[&str]) -> CertifiedKey {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&private).unwrap())
    }

    #[test]
    fn an_exact_name_goes_before_a_wildcard_and_no_name_before_the_listeners_own() {
        let (own, exact, wild) =
            (certified(&["own"]), certified(&["a.example"]), certified(&["*.wild.example", "b.test"]));
        let digest = |key: &CertifiedKey| key.cert[0].to_vec();
        let (of_own, of_exact, of_wild) = (digest(&own), digest(&exact), digest(&wild));
        let mut names = Names::new(own);
        names.add(&["A.example"], exact).unwrap();
        names.add(&[], wild).unwrap();
        let cases = [
            (Some("a.example"), &of_exact),
            (Some("b.wild.example"), &of_wild),
            (Some("b.test"), &of_wild),
            (Some("c.b.wild.example"), &of_own),
            (Some("wild.example"), &of_own),
            (None, &of_own),
        ];
        for (name, expected) in cases {
            assert_eq!(digest(names.named(name)), *expected, "{name:?}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_served_is_refused_with_a_reason() {
        let cases: [(&[&str], &[&str], &str); 7] = [
            (&["b.example"], &["a.example"], "is not for `b.example`"),
            (&["*.example"], &["a.example"], "is not for `*.example`"),
            (&["*"], &["a.example"], "is no name"),
            (&["127.0.0.1"], &["127.0.0.1"], "is no name"),
            (&["a b"], &["a.example"], "is no name"),
            (&["a.example", "A.EXAMPLE"], &["a.example"], "name it once"),
            (&[], &["127.0.0.1"], "no DNS name"),
        ];
        for (names, of, reason) in cases {
            let error = Names::new(certified(&["own"])).add(names, certified(of)).unwrap_err();
            assert!(error.contains(reason), "{names:?}: {error}");
        }
    }
}
