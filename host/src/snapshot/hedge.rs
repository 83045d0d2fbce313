// SPDX-License-Identifier: Apache-2.0
//! When a second target is asked beside a slow one: for a model, or for all of a route.

use std::sync::Arc;

use toml::Spanned;

use super::builder::Builder;
use crate::config;
use crate::upstream::Hedge;

impl Builder<'_> {
    /// What a policy says of hedges; none if it is wrong.
    pub(super) fn hedge(&mut self, wanted: &Spanned<config::Hedge>) -> Option<Arc<Hedge>> {
        let percent = wanted.get_ref().percent_max;
        if !(1..=100).contains(&percent) {
            let message = format!("percent_max = {percent} is no share of the requests");
            self.problem(wanted.span(), message, "write 1 to 100, or leave `hedge` out to have none");
            return None;
        }
        Some(Arc::new(Hedge::new(*wanted.get_ref())))
    }

    /// What a route says of them.
    pub(super) fn hedge_of(&mut self, route: &config::Route) -> Option<Arc<Hedge>> {
        let wanted = route.hedge.as_ref()?;
        if route.service.is_some() {
            let message = "requests for a plain HTTP service are sent once";
            self.problem(wanted.span(), message, "leave `hedge` out, or leave `service` out");
            return None;
        }
        self.hedge(wanted)
    }
}
