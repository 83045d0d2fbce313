// SPDX-License-Identifier: Apache-2.0
//! Lets browsers call the gateway from other origins (Fetch standard, "CORS protocol"): answers preflight requests, and marks
//! the answers that a page of a listed origin may read.

use penstock_sdk::prelude::{Call, Config, Edit, Fault, Filter, Head, Issue, Pairs, Reply, Verdict, Wants};

const ALLOW_ORIGIN: &str = "access-control-allow-origin";

/// Who may do what.
#[derive(Debug, Config)]
pub struct Options {
    /// Origins that may call: `https://app.example.com`, `https://*.example.com` for every subdomain, `*` for all.
    #[config(min = 1)]
    origins: Vec<String>,
    /// Methods that they may use; GET, HEAD and POST if left out.
    methods: Option<Vec<String>>,
    /// Request headers that they may send; "*" for whatever they ask for, which is the default.
    headers: Option<Vec<String>>,
    /// Response headers that their scripts may read.
    #[config(default)]
    expose: Vec<String>,
    /// Whether browsers may send cookies and client certificates.
    #[config(default = false)]
    credentials: bool,
    /// How long a browser may remember the answer to a preflight request, in seconds.
    #[config(default = 600)]
    max_age_s: u32,
}

/// The plugin.
#[derive(Debug)]
pub struct Cors {
    origins: Origins,
    methods: String,
    /// None for whatever is asked for.
    headers: Option<String>,
    expose: String,
    credentials: bool,
    max_age_s: u32,
}

impl Filter for Cors {
    type Config = Options;

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        let methods = options.methods.unwrap_or_else(|| ["GET", "HEAD", "POST"].map(str::to_owned).to_vec());
        let headers = options.headers.unwrap_or_else(|| vec!["*".to_owned()]);
        let any_header = headers.iter().any(|name| name == "*");
        Ok(Self {
            origins: Origins::parse(&options.origins, options.credentials)?,
            methods: methods.join(", "),
            headers: (!any_header).then(|| headers.join(", ")),
            expose: options.expose.join(", "),
            credentials: options.credentials,
            max_age_s: options.max_age_s,
        })
    }

    fn wants(&self) -> Wants {
        let headers = ["origin", "access-control-request-method", "access-control-request-headers"];
        Wants::nothing().headers(headers).alike(["method"])
    }

    fn request_head(&self, _: &Call, head: &Head<'_>) -> Result<Verdict, Fault> {
        let Some(origin) = head.headers.get("origin") else {
            // Not from a page. A cache between must still not keep this answer for one.
            return Ok(Verdict { response: self.vary(), ..Verdict::default() });
        };
        let allowed = self.origins.allow(origin);
        if head.method == "OPTIONS" && head.headers.get("access-control-request-method").is_some() {
            return Ok(Verdict { answer: Some(self.preflight(allowed, head.headers)), ..Verdict::default() });
        }
        let mut response = self.vary();
        match allowed {
            Some(allowed) => {
                let grant = self.grant(allowed);
                response.extend(grant.into_iter().map(|(name, value)| Edit::Set(name, value)));
                if !self.expose.is_empty() {
                    response.push(Edit::Set("access-control-expose-headers".to_owned(), self.expose.clone()));
                }
            }
            // The upstream has no say in who may read the gateway's answers.
            None => response.push(Edit::Remove(ALLOW_ORIGIN.to_owned())),
        }
        Ok(Verdict { response, ..Verdict::default() })
    }
}

impl Cors {
    /// The answer to a preflight request. One of a strange origin is answered, too, but allows nothing: the browser then
    /// reports the origin as not allowed, which is the truth.
    fn preflight(&self, allowed: Option<String>, asked: &Pairs) -> Reply {
        let mut headers = Vec::new();
        if let Some(allowed) = allowed {
            headers.extend(self.grant(allowed));
            headers.push(("access-control-allow-methods".to_owned(), self.methods.clone()));
            let wanted = asked.get("access-control-request-headers");
            if let Some(names) = self.headers.as_deref().or(wanted).filter(|names| !names.is_empty()) {
                headers.push(("access-control-allow-headers".to_owned(), names.to_owned()));
            }
            headers.push(("access-control-max-age".to_owned(), self.max_age_s.to_string()));
        }
        let vary = "origin, access-control-request-method, access-control-request-headers";
        headers.push(("vary".to_owned(), vary.to_owned()));
        Reply { status: 204, headers, body: Vec::new() }
    }

    fn grant(&self, origin: String) -> Vec<(String, String)> {
        let mut headers = vec![(ALLOW_ORIGIN.to_owned(), origin)];
        if self.credentials {
            headers.push(("access-control-allow-credentials".to_owned(), "true".to_owned()));
        }
        headers
    }

    /// An answer that is the same for every origin does not vary.
    fn vary(&self) -> Vec<Edit> {
        match self.origins {
            Origins::Any => Vec::new(),
            Origins::Listed(_) => vec![Edit::Add("vary".to_owned(), "origin".to_owned())],
        }
    }
}

/// Which origins may call.
#[derive(Debug)]
enum Origins {
    Any,
    /// Origins in lower case.
    Listed(Vec<Pattern>),
}

#[derive(Debug)]
enum Pattern {
    Exact(String),
    /// `https://*.example.com:8443` as scheme `https://` and domain `.example.com:8443`.
    Subdomains {
        scheme: String,
        domain: String,
    },
}

impl Origins {
    fn parse(origins: &[String], credentials: bool) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        let mut patterns = Vec::new();
        for (index, origin) in origins.iter().enumerate().filter(|(_, origin)| *origin != "*") {
            match Pattern::parse(origin) {
                Ok(pattern) => patterns.push(pattern),
                Err(why) => issues.push(Issue::new(format!("origins[{index}]"), why)),
            }
        }
        let any = origins.iter().any(|origin| origin == "*");
        if any && credentials {
            let why = "every page of the web could act with its visitor's credentials: list the origins, or set \
                       `credentials = false`";
            issues.push(Issue::new("credentials", why));
        }
        match (issues.is_empty(), any) {
            (false, _) => Err(issues),
            (true, true) => Ok(Self::Any),
            (true, false) => Ok(Self::Listed(patterns)),
        }
    }

    /// The value of `access-control-allow-origin`.
    fn allow(&self, origin: &str) -> Option<String> {
        match self {
            Self::Any => Some("*".to_owned()),
            Self::Listed(patterns) => {
                let lower = origin.to_ascii_lowercase();
                patterns.iter().any(|pattern| pattern.matches(&lower)).then(|| origin.to_owned())
            }
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.to_ascii_lowercase();
        if text == "null" {
            return Ok(Self::Exact(text));
        }
        let Some((scheme, host)) = text.split_once("://") else {
            return Err("an origin begins with its scheme: \"https://app.example.com\"".to_owned());
        };
        if host.is_empty() || host.contains(['/', '?', '#', '@']) {
            return Err("an origin is a scheme, a host and perhaps a port, and has no path".to_owned());
        }
        match host.strip_prefix("*.") {
            Some(domain) if !domain.contains('*') => {
                Ok(Self::Subdomains { scheme: format!("{scheme}://"), domain: format!(".{domain}") })
            }
            None if !host.contains('*') => Ok(Self::Exact(text)),
            _ => Err("`*` stands for subdomains only: \"https://*.example.com\"".to_owned()),
        }
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Exact(text) => text == origin,
            Self::Subdomains { scheme, domain } => origin
                .strip_prefix(scheme.as_str())
                .and_then(|host| host.strip_suffix(domain.as_str()))
                .is_some_and(|labels| !labels.is_empty() && !labels.contains(['/', ':', '@'])),
        }
    }
}

penstock_sdk::filter!(Cors);

#[cfg(test)]
mod tests {
    use super::Cors;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<Cors>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
