// SPDX-License-Identifier: Apache-2.0
//! Knows callers by JSON web tokens (RFC 7519) of issuers that the operator trusts. The keys of an issuer are fetched by the
//! host, kept, and fetched again before they are old and when a token names one that is new: an issuer changes its keys
//! without a failed request.

pub mod jws;
mod options;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

use penstock_sdk::adapter::Upstream;
use penstock_sdk::claims::Claims;
use penstock_sdk::credential;
use penstock_sdk::documents::{self, Document};
use penstock_sdk::log;
use penstock_sdk::prelude::{Auth, Call, Fault, FaultClass, Grant, Issue, Pairs, Wants};

use jws::{Key, Token, Verdict, key_set};
pub use options::{Issuer, Options, Shared};

/// Where an issuer says where its keys are (`OpenID` Connect Discovery 1.0 section 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// The plugin.
#[derive(Debug)]
pub struct Jwt {
    issuers: Vec<Trusted>,
    leeway_ms: u64,
    cache_ms: u32,
}

/// An issuer with its keys.
#[derive(Debug)]
struct Trusted {
    issuer: Issuer,
    /// Keys of the configuration.
    fixed: Option<Rc<[Key]>>,
    /// What was made of a set of keys, by the version of that.
    read: RefCell<Option<(u64, Rc<[Key]>)>>,
}

/// How old the keys of an issuer may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    /// As the operator says.
    Usual,
    /// As they are now.
    Now,
}

impl Auth for Jwt {
    type Config = Options;

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        let Options { issuers, leeway_s, cache_ms } = options;
        let mut issues = Vec::new();
        for (index, issuer) in issuers.iter().enumerate() {
            let before = issuers.get(..index).unwrap_or_default();
            if before.iter().any(|other| other.issuer == issuer.issuer) {
                issues.push(Issue::new(format!("issuers[{index}].issuer"), "this issuer is there already"));
            }
            let prefix = issuer.claims.subject_prefix();
            if before.iter().any(|other| other.claims.subject_prefix() == prefix) {
                let message = "another issuer has the same: their callers could have the same names";
                issues.push(Issue::new(format!("issuers[{index}].claims.subject_prefix"), message));
            }
        }
        let mut trusted = Vec::new();
        for (index, issuer) in issuers.into_iter().enumerate() {
            let fixed = issuer.fixed_keys(index, &mut issues).map(Rc::from);
            trusted.push(Trusted { issuer, fixed, read: RefCell::new(None) });
        }
        if issues.is_empty() {
            Ok(Self { issuers: trusted, leeway_ms: leeway_s * 1000, cache_ms })
        } else {
            Err(issues)
        }
    }

    fn wants(&self) -> Wants {
        Wants::nothing().headers(credential::HEADERS).facts(["time-ms"])
    }

    fn authenticate(&self, call: &Call, headers: &Pairs) -> Result<Grant, Fault> {
        let Some(text) = credential::presented(headers) else {
            return Err(refusal("no token: send one as `authorization: Bearer <token>`"));
        };
        let token = Token::parse(text).map_err(malformed)?;
        let claims = Claims::parse(&token.payload).map_err(malformed)?;
        let issuer = claims.text("iss").ok_or_else(|| refusal("the token does not say who has made it (iss)"))?;
        let trusted = self.issuers.iter().find(|trusted| trusted.issuer.issuer == issuer);
        let trusted = trusted.ok_or_else(|| refusal("the token is of an issuer (iss) that is not trusted here"))?;
        trusted.check_signature(&token)?;
        let left_ms = self.check_claims(&trusted.issuer, &claims, now_ms(call)?)?;
        let cache_ms = u32::try_from(left_ms).unwrap_or(u32::MAX).min(self.cache_ms);
        trusted.issuer.claims.grant(&claims, cache_ms)
    }
}

impl Jwt {
    /// Looks at what every token says of itself: for how many milliseconds it is good.
    fn check_claims(&self, issuer: &Issuer, claims: &Claims, now_ms: u64) -> Result<u64, Fault> {
        if !issuer.takes_all_audiences() && !issuer.audiences.iter().any(|ours| claims.names("aud", ours)) {
            return Err(refusal("the token is for somebody else (aud)"));
        }
        let [ends, begins, made] = ["exp", "nbf", "iat"].map(|claim| claims.time_ms(claim).map_err(malformed));
        let (ends, begins, made) = (ends?, begins?, made?);
        let latest_ms = now_ms.saturating_add(self.leeway_ms);
        if begins.is_some_and(|begins| latest_ms < begins) || made.is_some_and(|made| latest_ms < made) {
            return Err(refusal("the token is not valid yet"));
        }
        if let Some(age_s_max) = issuer.age_s_max {
            let made = made.ok_or_else(|| refusal("the token does not say when it was made (iat)"))?;
            if now_ms > made.saturating_add(age_s_max.saturating_mul(1000)).saturating_add(self.leeway_ms) {
                return Err(refusal("the token is too old: get a new one"));
            }
        }
        let Some(ends) = ends else {
            let without = || refusal("the token does not say when it ends (exp)");
            return if issuer.expiry_required { Err(without()) } else { Ok(u64::MAX) };
        };
        match ends.saturating_add(self.leeway_ms).checked_sub(now_ms) {
            Some(left_ms) if left_ms > 0 => Ok(left_ms),
            _ => Err(refusal("the token has expired: get a new one")),
        }
    }
}

impl Trusted {
    fn check_signature(&self, token: &Token<'_>) -> Result<(), Fault> {
        if !self.issuer.takes(&token.algorithm) {
            return Err(refusal("the token is signed with an algorithm that is not taken here"));
        }
        let types = &self.issuer.types;
        let kind = token.kind.as_deref().unwrap_or_default();
        if !types.is_empty() && !types.iter().any(|known| known.eq_ignore_ascii_case(kind)) {
            return Err(refusal("the token is of another kind (typ)"));
        }
        let verdict = match &self.fixed {
            Some(keys) => token.is_signed_by(keys),
            None => match token.is_signed_by(&self.keys(Age::Usual)?) {
                // The issuer may have a new key: one that a token names, or one without a name.
                Verdict::NoKey => token.is_signed_by(&self.keys(Age::Now)?),
                Verdict::Forged if token.kid.is_none() => token.is_signed_by(&self.keys(Age::Now)?),
                known => known,
            },
        };
        match verdict {
            Verdict::Signed => Ok(()),
            Verdict::Forged => Err(refusal("the signature of the token is not that of its issuer")),
            Verdict::NoKey => Err(refusal("the token is signed with a key that its issuer does not have")),
        }
    }

    /// The keys of the issuer.
    fn keys(&self, age: Age) -> Result<Rc<[Key]>, Fault> {
        let Issuer { endpoint, discovery, keys_age_s_max, keys_stale_s, .. } = &self.issuer;
        let usual_ms = (keys_age_s_max.saturating_mul(1000), keys_stale_s.saturating_mul(1000));
        let path = if *discovery { self.discovered(usual_ms)? } else { String::new() };
        let ages_ms = if age == Age::Now { (0, 0) } else { usual_ms };
        let set = asked(endpoint, path, ages_ms)?;
        if let Some((version, keys)) = &*self.read.borrow()
            && *version == set.version
        {
            return Ok(Rc::clone(keys));
        }
        let keys: Rc<[Key]> = key_set(&set.body).map_err(|why| unusable("the set of keys of the issuer", why))?.into();
        self.read.replace(Some((set.version, Rc::clone(&keys))));
        Ok(keys)
    }

    /// Where below the issuer its keys are, by its own account. Elsewhere nobody is asked: a document does not choose a host.
    fn discovered(&self, ages_ms: (u64, u64)) -> Result<String, Fault> {
        let what = "what the issuer says of itself";
        let document = asked(&self.issuer.endpoint, DISCOVERY.to_owned(), ages_ms)?;
        let told = Claims::parse(&document.body).map_err(|why| unusable(what, why))?;
        if told.text("issuer") != Some(&self.issuer.issuer) {
            return Err(unusable(what, "it is another issuer"));
        }
        let base = self.issuer.issuer.trim_end_matches('/');
        let path = told.text("jwks_uri").and_then(|uri| uri.strip_prefix(base)).filter(|path| path.starts_with('/'));
        let is_plain = |path: &&str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
            path.bytes().all(known) && !path.split('/').any(|segment| segment == "." || segment == "..")
        };
        let elsewhere =
            || unusable(what, "its jwks_uri is not below it: name the place as an endpoint, without `discovery`");
        path.filter(is_plain).map(str::to_owned).ok_or_else(elsewhere)
    }
}

fn asked(endpoint: &str, path: String, (age_ms_max, stale_ms): (u64, u64)) -> Result<Document, Fault> {
    let request = Upstream::get(path).endpoint(endpoint).header("accept", "application/json");
    let document = documents::read(&request, age_ms_max, stale_ms)?;
    if document.status == 200 {
        Ok(document)
    } else {
        Err(unusable("an answer of the issuer", "its status is not 200"))
    }
}

fn now_ms(call: &Call) -> Result<u64, Fault> {
    let time = call.fact("time-ms").and_then(|time| time.parse().ok());
    time.ok_or_else(|| Fault::new(FaultClass::Overloaded, "what time it is cannot be found out"))
}

fn refusal(message: &str) -> Fault {
    Fault::new(FaultClass::Authentication, message)
}

fn malformed(why: &str) -> Fault {
    refusal(&format!("the token cannot be read: {why}"))
}

/// The issuer has answered, and not as it should: the operator's matter, and no reason to say that a token is bad.
fn unusable(what: &str, why: &str) -> Fault {
    log::warn(&format!("{what} is of no use: {why}"), &[]);
    Fault::new(FaultClass::Overloaded, "who asks cannot be found out now; try again")
}

penstock_sdk::auth!(Jwt);
