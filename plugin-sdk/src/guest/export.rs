// SPDX-License-Identifier: Apache-2.0
//! Exports a type of the author's: wit-bindgen's traits, implemented once for every type that implements ours.

use std::cell::RefCell;
use std::marker::PhantomData;

use penstock_dialects::framing::Frame;

use super::bindings::adapter::exports::penstock::plugin::adapter as wit_adapter;
use super::bindings::auth::exports::penstock::plugin::auth as wit_auth;
use super::bindings::credentials::exports::penstock::plugin::credentials as wit_credentials;
use super::bindings::head_filter::exports::penstock::plugin::head_filter as wit_head_filter;
use super::bindings::lifecycle::exports::penstock::plugin::lifecycle as wit_lifecycle;
use super::bindings::limits::exports::penstock::plugin::limits as wit_limits;
use super::bindings::response_filter::exports::penstock::plugin::response_filter as wit_response_filter;
use super::bindings::routing::exports::penstock::plugin::routing::{self as wit_routing, Share};
use super::bindings::signing::exports::penstock::plugin::signing as wit_signing;
use super::bindings::{filter_types, requests, types};
use super::convert::{events, fault};
use super::{Installed, configure, installed};
use crate::adapter::{Adapter, Answer, Credentials, Exchange, Signer, Unsigned};
use crate::call::{Call, Pairs, Wants};
use crate::config::Issue;
use crate::order;
use crate::policy::{Auth, Filter, Head, Limits, ResponseFilter, Routing, Target};

type WitPairs = Vec<(String, String)>;
type Refused = types::Fault;

macro_rules! lifecycle {
    ($($export:ident, $kind:ident, $wants:expr;)*) => {$(
        #[doc = concat!("The exports of a type that implements `", stringify!($kind), "`.")]
        #[derive(Debug)]
        pub struct $export<T>(PhantomData<T>);

        impl<T: $kind + Installed> wit_lifecycle::Guest for $export<T> {
            fn configure(config: String) -> Result<Vec<wit_lifecycle::Want>, Vec<wit_lifecycle::Issue>> {
                configure(&config, T::new, $wants).map(named).map_err(listed)
            }
        }
    )*};
}

lifecycle! {
    AdapterExport, Adapter, T::wants;
    AuthExport, Auth, T::wants;
    LimitsExport, Limits, T::wants;
    RoutingExport, Routing, T::wants;
    FilterExport, Filter, T::wants;
}

fn named(wants: Wants) -> Vec<wit_lifecycle::Want> {
    let of_kind = |kind: &'static str, names: Vec<String>| {
        names.into_iter().map(move |name| wit_lifecycle::Want { kind: kind.to_owned(), name })
    };
    of_kind("header", wants.headers)
        .chain(of_kind("response-header", wants.response_headers))
        .chain(of_kind("member", wants.members))
        .chain(of_kind("fact", wants.facts))
        .chain(of_kind("without", wants.without))
        .chain(of_kind("alike", wants.alike))
        .collect()
}

fn listed(issues: Vec<Issue>) -> Vec<wit_lifecycle::Issue> {
    issues.into_iter().map(|issue| wit_lifecycle::Issue { path: issue.path, message: issue.message }).collect()
}

/// An exchange of the author's, as the resource that the host holds.
#[derive(Debug)]
pub struct ExchangeExport<T: Adapter>(RefCell<T::Exchange>);

impl<T: Adapter + Installed> wit_adapter::Guest for AdapterExport<T> {
    type Exchange = ExchangeExport<T>;

    fn relay(call: types::Call, headers: WitPairs, members: WitPairs) -> Result<requests::Upstream, Refused> {
        let (call, headers, members) = (Call::from(call), Pairs::from(headers), Pairs::from(members));
        installed::<T>().and_then(|plugin| plugin.relay(&call, &headers, &members)).map(Into::into).map_err(fault)
    }

    fn reject(status: u16, headers: WitPairs, body: Vec<u8>) -> Refused {
        let found = installed::<T>().map(|plugin| plugin.reject(status, &headers.into(), &body));
        fault(found.unwrap_or_else(|unconfigured| unconfigured))
    }
}

impl<T: Adapter + Installed> wit_adapter::GuestExchange for ExchangeExport<T> {
    fn open(
        call: types::Call,
        headers: WitPairs,
        body: Vec<u8>,
        blobs: Vec<wit_adapter::Blob>,
    ) -> Result<(wit_adapter::Exchange, wit_adapter::Plan), Refused> {
        let blobs: Vec<_> = blobs.into_iter().map(Into::into).collect();
        let plugin = installed::<T>().map_err(fault)?;
        let (exchange, plan) = plugin.open(&call.into(), &headers.into(), &body, &blobs).map_err(fault)?;
        Ok((wit_adapter::Exchange::new(Self(RefCell::new(exchange))), plan.into()))
    }

    fn frames(&self, batch: Vec<wit_adapter::Frame>) -> Result<wit_adapter::Step, Refused> {
        let mut exchange = self.0.borrow_mut();
        let mut happened = Vec::with_capacity(batch.len());
        for frame in &batch {
            let frame = Frame { name: &frame.name, data: &frame.data };
            exchange.frame(&frame, &mut happened).map_err(fault)?;
        }
        Ok(wit_adapter::Step { events: events(happened), next: None, cancel: None })
    }

    fn finish(&self, status: u16, headers: WitPairs, body: Vec<u8>) -> Result<wit_adapter::Step, Refused> {
        let headers = Pairs::from(headers);
        let mut happened = Vec::new();
        let answer = Answer { status, headers: &headers, body: &body };
        let mut exchange = self.0.borrow_mut();
        let next = exchange.finish(&answer, &mut happened).map_err(fault)?;
        let cancel = next.as_ref().and_then(|_| exchange.cancel());
        Ok(wit_adapter::Step { events: events(happened), next: next.map(Into::into), cancel: cancel.map(Into::into) })
    }
}

impl<T: Signer + Installed> wit_signing::Guest for AdapterExport<T> {
    fn sign(request: wit_signing::Unsigned) -> Result<WitPairs, Refused> {
        let request = Unsigned {
            method: request.method,
            host: request.host,
            path: request.path,
            query: request.query,
            headers: request.headers.into(),
            body_sha256: request.body_sha256,
            time: request.time,
        };
        installed::<T>().and_then(|plugin| plugin.sign(&request)).map_err(fault)
    }
}

impl<T: Credentials + Installed> wit_credentials::Guest for AdapterExport<T> {
    fn fetch(time: u64) -> Result<Option<wit_credentials::Fetching>, Refused> {
        let fetching = installed::<T>().and_then(|plugin| plugin.fetch(time)).map_err(fault)?;
        Ok(fetching.map(|fetching| wit_credentials::Fetching {
            request: fetching.request.into(),
            token: fetching.token,
            expires_in: fetching.expires_in,
            expires_at: fetching.expires_at,
            lasts: fetching.lasts,
        }))
    }
}

impl<T: Auth + Installed> wit_auth::Guest for AuthExport<T> {
    fn authenticate(call: types::Call, headers: WitPairs) -> Result<wit_auth::Grant, Refused> {
        installed::<T>()
            .and_then(|plugin| plugin.authenticate(&call.into(), &headers.into()))
            .map(Into::into)
            .map_err(fault)
    }
}

impl<T: Limits + Installed> wit_limits::Guest for LimitsExport<T> {
    fn plan(call: types::Call) -> Result<Vec<wit_limits::Check>, Refused> {
        let checks = installed::<T>().and_then(|plugin| plugin.plan(&call.into())).map_err(fault)?;
        Ok(checks.into_iter().map(Into::into).collect())
    }
}

impl<T: Routing + Installed> wit_routing::Guest for RoutingExport<T> {
    fn rank(call: types::Call, targets: Vec<wit_routing::Target>, seed: u64) -> Result<Vec<Vec<Share>>, Refused> {
        let targets: Vec<Target> = targets.into_iter().map(Into::into).collect();
        let order = installed::<T>().and_then(|plugin| plugin.rank(&call.into(), &targets, seed)).map_err(fault)?;
        // An index that does not fit is none of a target: the host refuses it.
        let share = |share: &order::Share| Share {
            target: u32::try_from(share.target).unwrap_or(u32::MAX),
            weight: share.weight,
        };
        Ok(order.groups().iter().map(|group| group.iter().map(share).collect()).collect())
    }
}

impl<T: Filter + Installed> wit_head_filter::Guest for FilterExport<T> {
    fn request_head(
        call: types::Call,
        method: String,
        path: String,
        headers: WitPairs,
    ) -> Result<filter_types::Verdict, Refused> {
        let headers = Pairs::from(headers);
        let head = Head { method: &method, path: &path, headers: &headers };
        installed::<T>().and_then(|plugin| plugin.request_head(&call.into(), &head)).map(Into::into).map_err(fault)
    }
}

impl<T: ResponseFilter + Installed> wit_response_filter::Guest for FilterExport<T> {
    fn response_head(call: types::Call, status: u16, headers: WitPairs) -> Result<Vec<filter_types::Edit>, Refused> {
        let plugin = installed::<T>().map_err(fault)?;
        let edits = plugin.response_head(&call.into(), status, &headers.into()).map_err(fault)?;
        Ok(edits.into_iter().map(Into::into).collect())
    }
}
