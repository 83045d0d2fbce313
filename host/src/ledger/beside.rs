// SPDX-License-Identifier: Apache-2.0
//! The account of a request that two targets are asked for at a time. The entry speaks of one try, as ever; the other one is
//! kept beside it, and they change places until one is left.

use std::cell::OnceCell;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use penstock_prices::price::Price;

use super::Entry;
use crate::config;
use crate::routes::Target;
use crate::stages::{Permit, Served, Spent};
use crate::upstream::Breaker;

/// A try that runs beside the one of the entry.
pub(super) struct Beside {
    vendor: Arc<str>,
    model: Arc<str>,
    target: Option<HeaderValue>,
    price: Option<Arc<Price>>,
    judged: Option<(Arc<Breaker>, config::Breaker)>,
    permit: Option<Permit>,
    trying: Option<Instant>,
}

impl Entry {
    /// Notes that a target is tried beside the one that is tried already. The entry speaks of the new one.
    pub fn hedges(&mut self, target: &Target, reserved: Option<Permit>) {
        self.hedge = Some("abandoned");
        self.beside = Some(Box::new(Beside {
            vendor: Arc::clone(&self.vendor),
            model: Arc::clone(&self.model),
            target: self.target.take(),
            price: self.price.take(),
            judged: self.judged.take(),
            permit: self.vendor_permit.take(),
            trying: self.trying.take(),
        }));
        if let Some(trace) = &mut self.trace {
            trace.stays();
        }
        self.tries(target, reserved);
    }

    /// The other one of two tries is meant from now on.
    pub fn swaps(&mut self) {
        let Some(other) = &mut self.beside else { return };
        mem::swap(&mut self.vendor, &mut other.vendor);
        mem::swap(&mut self.model, &mut other.model);
        mem::swap(&mut self.target, &mut other.target);
        mem::swap(&mut self.price, &mut other.price);
        mem::swap(&mut self.judged, &mut other.judged);
        mem::swap(&mut self.vendor_permit, &mut other.permit);
        mem::swap(&mut self.trying, &mut other.trying);
        self.priced = OnceCell::new();
        if let Some(trace) = &mut self.trace {
            trace.swap();
        }
    }

    /// The try of the entry is over, and the other one is left.
    pub fn goes_on_alone(&mut self) {
        self.swaps();
        self.beside = None;
    }

    /// The other one of two tries is given up, since that of the entry has spoken first. As with a caller who hangs up, its vendor
    /// may have made an answer: what was reserved there stays charged.
    pub fn outruns(&mut self) {
        self.drops_beside("outrun");
        if let Some(trace) = &mut self.trace {
            trace.outrun();
        }
    }

    pub(super) fn drops_beside(&mut self, outcome: &'static str) {
        let Some(other) = self.beside.take() else { return };
        if let Some(permit) = other.permit {
            permit.settle(&Spent { served: Served::Answered, usage: None, partial: true, cost: None });
        }
        if let Some(began) = other.trying {
            self.metrics.attempted(&other.vendor, outcome, began.elapsed());
        }
    }
}
