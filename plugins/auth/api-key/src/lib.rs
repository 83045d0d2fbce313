// SPDX-License-Identifier: Apache-2.0
//! Knows callers by the API key that they send, in the header that their SDK uses. Keys are virtual keys, which operators
//! make by the admin API, or configured as SHA-256 digests or granted secrets, so that no key stands in a policy file.

use std::collections::BTreeMap;

use penstock_sdk::credential;
use penstock_sdk::prelude::{Auth, Call, Config, Fault, FaultClass, Grant, Issue, Pairs, Secret, Wants};
use penstock_sdk::virtual_keys::{self, VirtualKey};
use sha2::{Digest, Sha256};

/// The keys.
#[derive(Debug, Config)]
pub struct Options {
    /// Keys that are let in.
    #[config(default)]
    keys: Vec<Key>,
    /// Whether virtual keys are let in, too.
    #[config(default = true)]
    virtual_keys: bool,
    /// How long the host may go on letting a key in without asking, in milliseconds.
    #[config(default = 10000)]
    cache_ms: u32,
}

/// One key: give either `sha256` or `secret`.
#[derive(Debug, Config)]
pub struct Key {
    /// Who the caller is then.
    #[config(min = 1)]
    subject: String,
    /// The group that the caller belongs to.
    tenant: Option<String>,
    /// SHA-256 of the key in hexadecimal, as `printf %s "$KEY" | sha256sum` prints it.
    sha256: Option<String>,
    /// Name of a granted secret that holds the key.
    secret: Option<String>,
    /// Further attributes, for limits and routing.
    #[config(default)]
    attributes: BTreeMap<String, String>,
}

/// The plugin. Keys are looked up by their digest: which of the digests is nearest to that of a guessed key tells nothing
/// about a key, so the look-up may take its time as it likes.
#[derive(Debug)]
pub struct ApiKey {
    digests: BTreeMap<[u8; 32], Grant>,
    secrets: Vec<(Secret, Grant)>,
    virtual_keys: bool,
    cache_ms: u32,
}

impl Auth for ApiKey {
    type Config = Options;

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        let Options { keys, virtual_keys, cache_ms } = options;
        let mut plugin = Self { digests: BTreeMap::new(), secrets: Vec::new(), virtual_keys, cache_ms };
        let mut issues = Vec::new();
        for (index, key) in keys.into_iter().enumerate() {
            if let Err(issue) = plugin.add(index, key) {
                issues.push(issue);
            }
        }
        if issues.is_empty() { Ok(plugin) } else { Err(issues) }
    }

    fn wants(&self) -> Wants {
        Wants::nothing().headers(credential::HEADERS)
    }

    fn authenticate(&self, _: &Call, headers: &Pairs) -> Result<Grant, Fault> {
        let Some(credential) = credential::presented(headers) else {
            return Err(refusal("no API key: send one as `authorization: Bearer <key>` or as `x-api-key: <key>`"));
        };
        let digest: [u8; 32] = Sha256::digest(credential).into();
        let by_secret = || self.secrets.iter().find(|(secret, _)| secret.equals(credential.as_bytes()));
        let grant = self.digests.get(&digest).or_else(|| by_secret().map(|(_, grant)| grant));
        if let Some(grant) = grant {
            return Ok(grant.clone());
        }
        match virtual_keys::find(credential).filter(|_| self.virtual_keys) {
            Some(key) => granted(key, self.cache_ms),
            None => Err(refusal("unknown API key: check that it is whole, and meant for this gateway")),
        }
    }
}

impl ApiKey {
    fn add(&mut self, index: usize, key: Key) -> Result<(), Issue> {
        let at = |field: &str| format!("keys[{index}]{field}");
        let Key { subject, tenant, sha256, secret, attributes } = key;
        let grant = Grant { subject, tenant, attributes: attributes.into_iter().collect(), cache_ms: self.cache_ms };
        match (sha256, secret) {
            (Some(hex), None) => {
                let digest = digest(&hex)
                    .ok_or_else(|| Issue::new(at(".sha256"), "expected the 64 hexadecimal digits of a SHA-256"))?;
                match self.digests.insert(digest, grant) {
                    Some(other) => {
                        Err(Issue::new(at(".sha256"), format!("this key belongs to `{}` already", other.subject)))
                    }
                    None => Ok(()),
                }
            }
            (None, Some(name)) => {
                let secret = Secret::open(&name).ok_or_else(|| {
                    let message = format!("no secret `{name}` is granted: add it to the plugin's `secrets`");
                    Issue::new(at(".secret"), message)
                })?;
                self.secrets.push((secret, grant));
                Ok(())
            }
            _ => Err(Issue::new(at(""), "give one of `sha256` and `secret`")),
        }
    }
}

/// What a virtual key is granted; the host binds its models, operations and limits to it by the attribute.
fn granted(key: VirtualKey, cache_ms: u32) -> Result<Grant, Fault> {
    let VirtualKey { id, subject, team, mut attributes, refusal: reason } = key;
    match reason.as_deref() {
        None => {}
        Some("expired") => return Err(refusal("this API key has expired: ask the operator for another one")),
        Some("disabled") => return Err(refusal("this API key is disabled: ask the operator")),
        Some("team-disabled") => return Err(refusal("the team of this API key is disabled: ask the operator")),
        Some(_) => return Err(refusal("this API key is not accepted: ask the operator")),
    }
    attributes.push((virtual_keys::ATTRIBUTE.to_owned(), id));
    // The host looks at the key itself each time, so that one that is taken back is refused at once.
    Ok(Grant { subject, tenant: team, attributes, cache_ms })
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(digest)
}

fn refusal(message: &str) -> Fault {
    Fault::new(FaultClass::Authentication, message)
}

penstock_sdk::auth!(ApiKey);

#[cfg(test)]
mod tests {
    use penstock_sdk::prelude::{Auth, Call, Pairs};
    use penstock_sdk::testkit;
    use penstock_sdk::virtual_keys::VirtualKey;

    use super::{ApiKey, Options};

    #[test]
    fn golden_cases_pass() {
        testkit::run_cases::<ApiKey>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    #[test]
    fn a_virtual_key_is_let_in_by_its_id_and_refused_for_its_reason() {
        let key = |refusal: Option<&str>| VirtualKey {
            id: "vk_1".to_owned(),
            subject: "ann".to_owned(),
            team: Some("blue".to_owned()),
            attributes: vec![("plan".to_owned(), "pro".to_owned())],
            refusal: refusal.map(str::to_owned),
        };
        testkit::virtual_keys([
            ("good".to_owned(), key(None)),
            ("old".to_owned(), key(Some("expired"))),
            ("off".to_owned(), key(Some("disabled"))),
            ("new".to_owned(), key(Some("a word of a later host"))),
        ]);
        let ask = |virtual_keys: bool, presented: &str| {
            let plugin = ApiKey::new(Options { keys: Vec::new(), virtual_keys, cache_ms: 1 }).unwrap();
            let headers = Pairs::from(vec![("x-api-key".to_owned(), presented.to_owned())]);
            plugin.authenticate(&Call::default(), &headers)
        };
        let grant = ask(true, "good").unwrap();
        assert_eq!((&*grant.subject, grant.tenant.as_deref(), grant.cache_ms), ("ann", Some("blue"), 1));
        assert!(grant.attributes.contains(&("virtual-key".to_owned(), "vk_1".to_owned())));
        for (presented, words) in [("old", "expired"), ("off", "disabled"), ("new", "not accepted"), ("no", "unknown")]
        {
            assert!(ask(true, presented).unwrap_err().message.contains(words), "{presented}");
        }
        assert!(ask(false, "good").is_err(), "virtual keys can be switched off");
    }
}
