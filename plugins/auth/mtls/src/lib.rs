// SPDX-License-Identifier: Apache-2.0
//! Knows callers by the certificate that they connect with. The listener has found by then that it is in order; here is
//! decided whose it is. Headers that speak of a certificate (`x-forwarded-client-cert`) mean nothing: anybody can write them.

use std::collections::BTreeMap;

use penstock_sdk::pattern::fits;
use penstock_sdk::prelude::{Auth, Call, Config, Fault, FaultClass, Grant, Issue, Pairs, Wants};

/// Begin of the facts of a certificate.
const FACT: &str = "client-certificate.";

/// The configuration.
#[derive(Debug, Config)]
pub struct Options {
    /// Who is let in; the first one that fits counts.
    #[config(min = 1)]
    callers: Vec<Caller>,
    /// How long the host may go on letting a certificate in without asking, in milliseconds; never beyond its end.
    #[config(default = 60000)]
    cache_ms: u32,
}

/// Some callers. Give at least one of the patterns; all that are given must fit. `*` stands for any text.
#[derive(Debug, Config)]
pub struct Caller {
    /// A DNS name of the certificate.
    dns: Option<String>,
    /// A URI of the certificate, such as a SPIFFE ID.
    uri: Option<String>,
    /// An e-mail address of the certificate.
    email: Option<String>,
    /// An IP address of the certificate.
    ip: Option<String>,
    /// The only common name of its subject.
    common_name: Option<String>,
    /// Its subject (RFC 4514): "CN=ann,OU=Tools,O=Acme".
    subject: Option<String>,
    /// SHA-256 of the certificate in hexadecimal.
    sha256: Option<String>,
    /// Who the caller is then; by default the name that the first of the patterns fits, in the order above.
    name: Option<String>,
    /// The group that the caller belongs to.
    tenant: Option<String>,
    /// Id of a virtual key: its models, operations, limits and budgets hold for the caller then.
    virtual_key: Option<String>,
    /// Further attributes, for limits and routing.
    #[config(default)]
    attributes: BTreeMap<String, String>,
}

/// The plugin.
#[derive(Debug)]
pub struct Mtls(Options);

impl Auth for Mtls {
    type Config = Options;

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        for (index, caller) in options.callers.iter().enumerate() {
            let patterns = caller.patterns();
            if patterns.iter().all(|(_, pattern)| pattern.is_none()) {
                let message = "give a pattern: dns, uri, email, ip, common_name, subject or sha256";
                issues.push(Issue::new(format!("callers[{index}]"), message));
            }
            if patterns.iter().any(|(_, pattern)| pattern.is_some_and(|pattern| pattern.trim_matches('*').is_empty())) {
                let message = "a pattern that fits everything lets everybody in whom the authority has ever signed";
                issues.push(Issue::new(format!("callers[{index}]"), message));
            }
        }
        if issues.is_empty() { Ok(Self(options)) } else { Err(issues) }
    }

    fn wants(&self) -> Wants {
        Wants::nothing().facts(["client-certificate", "time-ms"])
    }

    fn authenticate(&self, call: &Call, _: &Pairs) -> Result<Grant, Fault> {
        let certificate = Certificate(call);
        let Some(not_after_s) = certificate.only("not-after").and_then(|time| time.parse::<u64>().ok()) else {
            return Err(refusal("no certificate: connect over TLS with one"));
        };
        let now_ms = call.fact("time-ms").and_then(|time| time.parse::<u64>().ok());
        let now_ms = now_ms.ok_or_else(|| Fault::new(FaultClass::Overloaded, "what time it is cannot be found out"))?;
        // A connection may outlive the certificate that it began with.
        let left_ms = not_after_s.saturating_mul(1000).saturating_sub(now_ms);
        if left_ms == 0 {
            return Err(refusal("the certificate has expired: connect again with a new one"));
        }
        let known = self.0.callers.iter().find_map(|caller| Some((caller, caller.fits(&certificate)?)));
        let Some((caller, name)) = known else {
            return Err(refusal("the certificate is in order, and nobody has said that its owner may ask here"));
        };
        let mut attributes: Vec<_> = caller.attributes.clone().into_iter().collect();
        if let Some(id) = &caller.virtual_key {
            attributes.retain(|(name, _)| name != penstock_sdk::virtual_keys::ATTRIBUTE);
            attributes.push((penstock_sdk::virtual_keys::ATTRIBUTE.to_owned(), id.clone()));
        }
        Ok(Grant {
            subject: caller.name.as_deref().unwrap_or(name).to_owned(),
            tenant: caller.tenant.clone(),
            attributes,
            cache_ms: u32::try_from(left_ms).unwrap_or(u32::MAX).min(self.0.cache_ms),
        })
    }
}

impl Caller {
    fn patterns(&self) -> [(&'static str, Option<&str>); 7] {
        [
            ("dns", self.dns.as_deref()),
            ("uri", self.uri.as_deref()),
            ("email", self.email.as_deref()),
            ("ip", self.ip.as_deref()),
            ("common-name", self.common_name.as_deref()),
            ("subject", self.subject.as_deref()),
            ("sha256", self.sha256.as_deref()),
        ]
    }

    /// The name that the first pattern fits, if all of them fit.
    fn fits<'c>(&self, certificate: &Certificate<'c>) -> Option<&'c str> {
        let mut first = None;
        for (kind, pattern) in self.patterns() {
            let Some(pattern) = pattern else { continue };
            let found = match kind {
                "sha256" => certificate.only(kind).filter(|name| name.eq_ignore_ascii_case(pattern)),
                // Of several common names nobody can say which one counts.
                "common-name" => certificate.only(kind).filter(|name| fits(pattern, name)),
                // A name with a star is one for many.
                _ => certificate.all(kind).find(|name| fits(pattern, name) && !name.contains('*')),
            };
            let name = found.filter(|name| !name.is_empty())?;
            first.get_or_insert(name);
        }
        first
    }
}

/// The facts of a certificate.
struct Certificate<'c>(&'c Call);

impl<'c> Certificate<'c> {
    fn all(&self, kind: &str) -> impl Iterator<Item = &'c str> + use<'c> {
        let kind = kind.to_owned();
        let named = move |(name, value): &'c (String, String)| {
            name.strip_prefix(FACT).filter(|name| *name == kind).map(|_| value.as_str())
        };
        self.0.facts.iter().filter_map(named)
    }

    /// The value of a fact that is there once.
    fn only(&self, kind: &str) -> Option<&'c str> {
        let mut all = self.all(kind);
        all.next().filter(|_| all.next().is_none())
    }
}

fn refusal(message: &str) -> Fault {
    Fault::new(FaultClass::Authentication, message)
}

penstock_sdk::auth!(Mtls);

#[cfg(test)]
mod tests {
    use penstock_sdk::testkit;

    use super::Mtls;

    #[test]
    fn golden_cases_pass() {
        testkit::run_cases::<Mtls>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
