// SPDX-License-Identifier: Apache-2.0
//! Knows callers by opaque tokens, of which it asks whoever has given them (OAuth 2.0 Token Introspection, RFC 7662). The host
//! asks; what it is told it keeps by a digest, so that no token is kept, and for as long as the operator allows.

use penstock_sdk::adapter::Upstream;
use penstock_sdk::claims::{Claims, Mapping};
use penstock_sdk::credential;
use penstock_sdk::documents;
use penstock_sdk::log;
use penstock_sdk::prelude::{Auth, Call, Config, Fault, FaultClass, Grant, Issue, Pairs, Placed, Secret, Wants};

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// The configuration.
#[derive(Debug, Config)]
pub struct Options {
    /// Name of the endpoint that knows tokens, in the policy's `endpoints`.
    #[config(default = "introspection", min = 1)]
    endpoint: String,
    /// How the gateway shows who it is.
    #[config(default = Shows::Post)]
    shows: Shows,
    /// Name of the gateway at that place; needed for `post`.
    client_id: Option<String>,
    /// Name of the granted secret with which it shows that.
    #[config(min = 1)]
    secret: String,
    /// Who must have given a token (`iss`); not looked at if it is left out.
    issuer: Option<String>,
    /// For whom a token must be (`aud`): one of these; not looked at if empty.
    #[config(default)]
    audiences: Vec<String>,
    /// How long an answer is believed, in milliseconds; a token that is taken back is let in for so long.
    #[config(default = 30000)]
    cache_ms: u32,
    /// How long an answer is believed while nobody can be asked, in milliseconds.
    #[config(default = 0)]
    stale_ms: u32,
    /// What becomes of the claims.
    #[config(default)]
    claims: Mapping,
}

/// How the gateway shows who it is (RFC 7662 section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Config)]
pub enum Shows {
    /// `client_id` and the secret as parameters of the form.
    Post,
    /// The secret in `authorization: Basic`: base64 of id, colon and password, as it goes out.
    Basic,
    /// The secret in `authorization: Bearer`.
    Bearer,
}

/// The plugin.
#[derive(Debug)]
pub struct Introspection(Options);

impl Auth for Introspection {
    type Config = Options;

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        if Secret::open(&options.secret).is_none() {
            let message = format!("no secret `{}` is granted: add it to the plugin's `secrets`", options.secret);
            issues.push(Issue::new("secret", message));
        }
        if options.shows == Shows::Post && options.client_id.is_none() {
            issues.push(Issue::new("client_id", "give the name of the gateway, or show the secret in another way"));
        }
        if issues.is_empty() { Ok(Self(options)) } else { Err(issues) }
    }

    fn wants(&self) -> Wants {
        Wants::nothing().headers(credential::HEADERS).facts(["time-ms"])
    }

    fn authenticate(&self, call: &Call, headers: &Pairs) -> Result<Grant, Fault> {
        let Some(token) = credential::presented(headers) else {
            return Err(refusal("no token: send one as `authorization: Bearer <token>`"));
        };
        if token.len() > TOKEN_BYTES_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refusal("what was sent is no token (RFC 6750 section 2.1)"));
        }
        let Options { cache_ms, stale_ms, .. } = self.0;
        let answer = documents::read(&self.question(token), cache_ms.into(), stale_ms.into())?;
        if answer.status != 200 {
            return Err(unusable("its status is not 200: see that the gateway's own credential is right"));
        }
        let claims = Claims::parse(&answer.body).map_err(unusable)?;
        match claims.find("active").and_then(penstock_sdk::config::Value::as_bool) {
            Some(true) => {}
            Some(false) => return Err(refusal("the token is not valid: get a new one")),
            None => return Err(unusable("it does not say whether the token is active")),
        }
        let left_ms = self.check(&claims, now_ms(call)?)?;
        let believed_ms = u64::from(cache_ms).saturating_sub(answer.age_ms);
        self.0.claims.grant(&claims, u32::try_from(left_ms.min(believed_ms)).unwrap_or(u32::MAX))
    }
}

impl Introspection {
    fn question(&self, token: &str) -> Upstream {
        let Options { endpoint, shows, client_id, secret, .. } = &self.0;
        let asked = Upstream::post("")
            .endpoint(endpoint)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json");
        let mut asked = match shows {
            Shows::Post => asked,
            Shows::Basic => asked.secret_header("authorization", "Basic ", secret),
            Shows::Bearer => asked.secret_header("authorization", "Bearer ", secret),
        };
        asked = asked.query("token", token).query("token_type_hint", "access_token");
        if let Some(id) = client_id {
            asked = asked.query("client_id", id);
        }
        if *shows == Shows::Post {
            asked.query.push(Placed::secret("client_secret", "", secret));
        }
        asked
    }

    /// Looks whether the token is one of ours, and for how many milliseconds it is good.
    fn check(&self, claims: &Claims, now_ms: u64) -> Result<u64, Fault> {
        let Options { issuer, audiences, .. } = &self.0;
        if issuer.is_some() && claims.text("iss") != issuer.as_deref() {
            return Err(refusal("the token is of an issuer (iss) that is not trusted here"));
        }
        if !audiences.is_empty() && !audiences.iter().any(|ours| claims.names("aud", ours)) {
            return Err(refusal("the token is for somebody else (aud)"));
        }
        if claims.time_ms("nbf").map_err(unusable)?.is_some_and(|begins| now_ms < begins) {
            return Err(refusal("the token is not valid yet"));
        }
        let Some(ends) = claims.time_ms("exp").map_err(unusable)? else { return Ok(u64::MAX) };
        let left_ms = ends.saturating_sub(now_ms);
        if left_ms == 0 { Err(refusal("the token has expired: get a new one")) } else { Ok(left_ms) }
    }
}

fn now_ms(call: &Call) -> Result<u64, Fault> {
    let time = call.fact("time-ms").and_then(|time| time.parse().ok());
    time.ok_or_else(|| Fault::new(FaultClass::Overloaded, "what time it is cannot be found out"))
}

fn refusal(message: &str) -> Fault {
    Fault::new(FaultClass::Authentication, message)
}

/// Whoever was asked has answered, and not as it should: the operator's matter, and no reason to say that a token is bad.
fn unusable(why: &str) -> Fault {
    log::warn(&format!("an answer about a token is of no use: {why}"), &[]);
    Fault::new(FaultClass::Overloaded, "who asks cannot be found out now; try again")
}

penstock_sdk::auth!(Introspection);

#[cfg(test)]
mod tests {
    use penstock_sdk::testkit;

    use super::Introspection;

    #[test]
    fn golden_cases_pass() {
        testkit::run_cases::<Introspection>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
