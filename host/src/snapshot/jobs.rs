// SPDX-License-Identifier: Apache-2.0
//! What a policy says of jobs, checked.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use crate::head;
use crate::keys::Secret;
use crate::upstream::Endpoint;

/// What holds for jobs.
pub struct JobRules {
    /// How long a job is kept after its end.
    pub kept: Duration,
    /// Jobs that are kept.
    pub max: usize,
    /// Sum of bodies and answers that are kept.
    pub bytes_max: u64,
    /// Jobs that are worked on at a time.
    pub concurrent: usize,
    /// How long a job may take.
    pub deadline: Duration,
    /// Where ends may be reported to.
    pub webhooks: Vec<Webhook>,
    /// What reports are signed with; there is one if there is a webhook.
    pub webhook_secret: Option<Arc<Secret>>,
}

impl JobRules {
    /// Where a report to this URL goes, if it may go there.
    #[must_use]
    pub fn webhook(&self, url: &str) -> Option<(Arc<Endpoint>, Uri)> {
        let uri: Uri = url.parse().ok()?;
        let allowed = self.webhooks.iter().find(|webhook| webhook.covers(&uri))?;
        Some((Arc::clone(&allowed.endpoint), uri))
    }
}

/// A place where ends of jobs may be reported to, with all that is below it.
pub struct Webhook {
    /// Scheme and authority.
    pub endpoint: Arc<Endpoint>,
    /// Path without a trailing slash; empty for the root.
    pub path: String,
}

impl Webhook {
    fn covers(&self, uri: &Uri) -> bool {
        let rest = uri.path().strip_prefix(&self.path);
        self.endpoint.owns(uri)
            && !head::has_dot_segment(uri.path())
            && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_covers_what_is_below_it_and_nothing_else() {
        let endpoint = Arc::new(Endpoint::parse("https://hooks.example:8443", None, false).unwrap());
        let webhook = |path: &str| Webhook { endpoint: Arc::clone(&endpoint), path: path.to_owned() };
        let below = webhook("/a");
        for fine in
            ["https://hooks.example:8443/a", "https://HOOKS.example:8443/a/b?c=d", "https://hooks.example:8443/a/"]
        {
            assert!(below.covers(&fine.parse().unwrap()), "{fine}");
        }
        for bad in [
            "https://hooks.example:8443/ab",
            "https://hooks.example:8443/",
            "https://hooks.example/a",
            "http://hooks.example:8443/a",
            "https://hooks.example:8443.evil.example/a",
            "https://hooks.example:8443@evil.example/a",
            "https://user@hooks.example:8443/a",
            "https://hooks.example:8443/a/../b",
            "https://hooks.example:8443/a/%2e%2e/b",
            "/a",
        ] {
            assert!(!below.covers(&bad.parse().unwrap()), "{bad}");
        }
        assert!(webhook("").covers(&"https://hooks.example:8443/x".parse().unwrap()));
    }
}
