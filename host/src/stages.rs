// SPDX-License-Identifier: Apache-2.0
//! Filters, auth, limits ([`limits`]) and routing, as the gateway sees them. Each stage takes what an earlier one made, so that a wrong
//! order does not compile; each fails closed when its plugin breaks.

mod authenticate;
mod estimate;
mod limits;
mod routing;
mod rules;

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, Response};

use crate::clock;
use crate::directory::{Directory, VirtualKey};
use crate::failure::{Failure, Kind};
use crate::inbound::wanted;
use crate::plugin::Filter;
use crate::plugin::types::{Call, Edit, Pair, Reply, Verdict};
use crate::routes::Route;

pub use crate::plugin::types::Whose;
pub use authenticate::Reception;
pub use estimate::Estimate;
pub use limits::{Gate, Left, Permit, Refused, Rulebook, Served, Spent, Standing};
pub use routing::{Sight, rank};

/// Who asks. On a route without auth everybody is the same empty subject.
#[derive(Debug, Clone, Default)]
pub struct Principal {
    /// Name.
    pub subject: String,
    /// Group.
    pub tenant: Option<String>,
    /// Attributes, as facts for later plugins (`auth.<name>`).
    pub attributes: Vec<(String, String)>,
    /// The virtual key that was used.
    pub key: Option<Arc<VirtualKey>>,
}

/// Name of the attribute that binds a principal to a virtual key, as a fact.
const KEY: &str = "auth.virtual-key";

impl Principal {
    /// Somebody with these attributes, bound to the virtual key that they name.
    ///
    /// # Errors
    /// `unauthenticated` if that key is not there any more, or is not accepted.
    pub fn bound(
        subject: String,
        tenant: Option<String>,
        attributes: Vec<(String, String)>,
        directory: &Directory,
    ) -> Result<Self, Failure> {
        let id = attributes.iter().find(|(name, _)| name == KEY);
        let key = id.map(|(_, id)| directory.key(id).filter(|key| key.refusal(clock::unix_s()).is_none()));
        match key {
            Some(None) => {
                Err(Failure::new(Kind::Unauthenticated, "this API key is not accepted any more: ask the operator"))
            }
            key => Ok(Self { subject, tenant, attributes, key: key.flatten() }),
        }
    }

    /// Somebody who was let in before: what has been accepted since is done, whatever has become of the key.
    #[must_use]
    pub fn before(
        subject: String,
        tenant: Option<String>,
        attributes: Vec<(String, String)>,
        directory: &Directory,
    ) -> Self {
        let id = attributes.iter().find(|(name, _)| name == KEY);
        let key = id.and_then(|(_, id)| directory.key(id));
        Self { subject, tenant, attributes, key }
    }

    /// Looks whether the virtual key that was used allows an operation.
    ///
    /// # Errors
    /// `forbidden`
    pub fn may_ask_for(&self, operation: &str) -> Result<(), Failure> {
        if self.key.as_ref().is_none_or(|key| key.may_ask_for(operation)) {
            return Ok(());
        }
        let message = format!("this API key may not ask for {operation}: GET /v1/me says what it may");
        Err(Failure::new(Kind::Forbidden, message))
    }

    /// Looks whether the virtual key that was used allows a model, by the name that the caller uses.
    ///
    /// # Errors
    /// `forbidden`
    pub fn may_use(&self, model: &str) -> Result<(), Failure> {
        if self.key.as_ref().is_none_or(|key| key.may_use(model)) {
            return Ok(());
        }
        let what =
            if model.is_empty() { "anything without naming a model".to_owned() } else { format!("the model {model}") };
        let message = format!("this API key may not use {what}: GET /v1/me says what it may");
        Err(Failure::new(Kind::Forbidden, message))
    }

    /// The facts of a request, with what auth knows of the caller.
    #[must_use]
    pub fn facts<'f>(&'f self, known: &[Pair<'f>]) -> Vec<Pair<'f>> {
        let attributes = self.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        known.iter().copied().chain(attributes).collect()
    }
}

/// What the filters want to change in the answer.
#[derive(Default)]
pub struct ResponseEdits {
    verdicts: Vec<Arc<Verdict>>,
    watching: Vec<Arc<Filter>>,
}

/// Runs the filters of a route over the head of a request and applies their edits to it. Answers with the reply of the
/// filter that wants the request to go no further; what they want of the answer is gathered in `after`.
///
/// # Errors
/// What a filter says, or `plugin-broken`.
pub fn filter(
    route: &Route,
    call: &Call<'_>,
    head: &mut Parts,
    after: &mut ResponseEdits,
) -> Result<Option<Reply>, Failure> {
    for filter in &route.filters {
        let verdict = {
            let headers = wanted(&filter.wants().headers, &head.headers);
            filter
                .request_head(call, head.method.as_str(), head.uri.path(), &headers)
                .map_err(|error| Failure::of_policy(error, Kind::Forbidden))?
        };
        apply(&verdict.request, &mut head.headers);
        if filter.filters_responses() {
            after.watching.push(Arc::clone(filter));
        }
        let answer = verdict.answer.clone();
        if !verdict.response.is_empty() {
            after.verdicts.push(verdict);
        }
        if answer.is_some() {
            return Ok(answer);
        }
    }
    Ok(None)
}

impl ResponseEdits {
    /// Applies the edits to the head of an answer, and asks the filters that watch answers.
    pub fn apply<B>(&self, call: &Call<'_>, response: &mut Response<B>) {
        for filter in self.watching.iter().rev() {
            let headers = wanted(&filter.wants().response_headers, response.headers());
            let edits = filter.response_head(call, response.status().as_u16(), &headers);
            match edits {
                Ok(edits) => apply(&edits.unwrap_or_default(), response.headers_mut()),
                // The answer is already made; a filter that breaks here must not take it back.
                Err(error) => tracing::warn!(filter = filter.name(), %error, "filter failed on an answer"),
            }
        }
        for verdict in &self.verdicts {
            apply(&verdict.response, response.headers_mut());
        }
    }
}

fn apply(edits: &[Edit], headers: &mut HeaderMap) {
    for edit in edits {
        match edit {
            Edit::Set(name, value) => {
                headers.insert(name, value.clone());
            }
            Edit::Add(name, value) => {
                headers.append(name, value.clone());
            }
            Edit::Remove(name) => {
                headers.remove(name);
            }
        }
    }
}
