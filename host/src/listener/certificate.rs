// SPDX-License-Identifier: Apache-2.0
//! What the certificate of a caller says, read once for a connection. That it is in order (who has signed it, when it ends,
//! whether it is revoked) TLS has found by then; who the caller is, an auth plugin decides.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::clock;
use crate::config::place::hex;

/// Names that are read of one certificate; the rest is not looked at.
const NAMES_MAX: usize = 64;
/// Longest name, in bytes; a longer one is not looked at.
const NAME_BYTES_MAX: usize = 512;
/// Names of attributes in a distinguished name (RFC 4514 section 3).
const ATTRIBUTES: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// A certificate that a caller has shown.
#[derive(Debug)]
pub struct ClientCertificate {
    /// SHA-256 of it.
    pub sha256: [u8; 32],
    /// What it says, as facts for auth plugins: `client-certificate.sha256`, `.not-after` (seconds since 1970), `.subject` (RFC
    /// 4514), and each of `.common-name`, `.dns`, `.uri`, `.email`, `.ip` as often as it is there.
    pub facts: Vec<(String, String)>,
    /// When it ends, in seconds since 1970.
    not_after: i64,
}

impl ClientCertificate {
    /// Reads a certificate; none if it cannot be read.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let sha256: [u8; 32] = Sha256::digest(der).into();
        let not_after = certificate.validity().not_after.timestamp();
        let subject = distinguished(certificate.subject());
        let own = [("sha256", hex(&sha256)), ("not-after", not_after.to_string()), ("subject", subject)];
        let common = certificate.subject().iter_common_name().filter_map(|name| Some(name.as_str().ok()?.to_owned()));
        let names = common.map(|name| ("common-name", name)).chain(alternatives(&certificate)?);
        let fits = |name: &(&str, String)| name.1.len() <= NAME_BYTES_MAX && !name.1.chars().any(char::is_control);
        let facts = own.into_iter().chain(names.take(NAMES_MAX).filter(fits));
        let facts = facts.map(|(name, value)| (format!("client-certificate.{name}"), value)).collect();
        Some(Self { sha256, facts, not_after })
    }

    /// Whether its time is over. TLS does not look at that again when a session is taken up.
    pub(super) fn is_over(&self) -> bool {
        i64::try_from(clock::unix_s()).is_ok_and(|now| now > self.not_after)
    }
}

/// The alternative names of the subject; none if they cannot be read.
fn alternatives(certificate: &X509Certificate<'_>) -> Option<Vec<(&'static str, String)>> {
    let Some(extension) = certificate.subject_alternative_name().ok()? else { return Some(Vec::new()) };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(("dns", name.to_ascii_lowercase())),
        GeneralName::URI(name) => Some(("uri", (*name).to_owned())),
        GeneralName::RFC822Name(name) => Some(("email", (*name).to_owned())),
        GeneralName::IPAddress(bytes) => Some(("ip", address(bytes)?.to_string())),
        _ => None,
    };
    Some(extension.value.general_names.iter().filter_map(name).collect())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).into());
    v4().or_else(|| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()))
}

/// A distinguished name as a text (RFC 4514): the last part first, what has a meaning there escaped.
fn distinguished(name: &X509Name<'_>) -> String {
    let mut parts: Vec<_> = name.iter().collect();
    parts.reverse();
    let part = |part: &&x509_parser::x509::RelativeDistinguishedName<'_>| {
        part.iter().map(attribute).collect::<Vec<_>>().join("+")
    };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let known = ATTRIBUTES.iter().find(|(known, _)| *known == oid);
    match (known, attribute.as_str()) {
        (Some((_, name)), Ok(text)) => format!("{name}={}", escaped(text)),
        _ => format!("{oid}=#{}", hex(attribute.as_slice())),
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, char) in text.char_indices() {
        let at_an_end = at == 0 || at + char.len_utf8() == text.len();
        match char {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => out.extend(['\\', char]),
            ' ' if at_an_end => out.push_str("\\ "),
            '#' if at == 0 => out.push_str("\\#"),
            char if char.is_control() => {
                let mut bytes = [0; 4];
                for byte in char.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(out, "\\{byte:02x}");
                }
            }
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn names_are_read_by_their_types_and_cannot_pretend_to_be_another() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "Acme, CN=root");
        name.push(DnType::CommonName, "ann\n");
        params.distinguished_name = name;
        params.subject_alt_names = vec![
            SanType::DnsName("Ann.Example".try_into().unwrap()),
            SanType::URI("spiffe://corp/ns/a".try_into().unwrap()),
            SanType::Rfc822Name("ann@corp".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
            SanType::IpAddress("::1".parse().unwrap()),
        ];
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let read = ClientCertificate::read(certificate.der()).unwrap();
        let facts =
            read.facts.iter().map(|(name, value)| (name.strip_prefix("client-certificate.").unwrap(), value.as_str()));
        let facts: Vec<_> = facts.collect();
        assert_eq!(facts[0], ("sha256", &*hex(&read.sha256)));
        assert_eq!(facts[1].0, "not-after");
        let rest = [
            ("subject", "CN=ann\\0a,O=Acme\\, CN\\=root"),
            ("dns", "ann.example"),
            ("uri", "spiffe://corp/ns/a"),
            ("email", "ann@corp"),
            ("ip", "10.0.0.1"),
            ("ip", "::1"),
        ];
        assert_eq!(facts[2..], rest, "a common name with a line end is not looked at");
        assert!(ClientCertificate::read(b"no certificate").is_none());

        let mut over = |year| {
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            ClientCertificate::read(certificate.der()).unwrap().is_over()
        };
        assert_eq!([2020, 2124].map(&mut over), [true, false]);
    }
}
