// SPDX-License-Identifier: Apache-2.0
//! Conversations over a WebSocket: the handshake is tried at one target after another, then the connection becomes a tunnel,
//! in which the usage that the vendor tells is read as it passes.

use std::time::Duration;

use http::request::Parts;
use hyper::upgrade::OnUpgrade;

use crate::attempt::{Asking, Tries, Try};
use crate::failure::{Failure, Kind};
use crate::head;
use crate::ledger::Entry;
use crate::proxy::{Proxied, Tunnel};
use crate::routes::Target;
use crate::stages::Gate;
use crate::tunnel::Meter;

/// A caller's connection that can be turned into a WebSocket.
pub struct Caller(OnUpgrade);

/// Whether a request asks to be turned into a WebSocket.
#[must_use]
pub fn is_wanted(head: &Parts) -> bool {
    head::upgrade_of(&head.headers).is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"))
}

/// Takes the connection of a request that asks to be turned into a WebSocket.
///
/// # Errors
/// `bad-head` if it does not ask so.
pub fn caller(head: &Parts) -> Result<Caller, Failure> {
    let upgrade = is_wanted(head).then(|| head.extensions.get::<OnUpgrade>().cloned()).flatten();
    upgrade.map(Caller).ok_or_else(|| {
        let message = "this is served over a WebSocket: send `connection: upgrade` and `upgrade: websocket`";
        Failure::new(Kind::BadHead, message)
    })
}

/// Opens the conversation with the first of the targets that will.
///
/// # Errors
/// What the last of them said.
pub async fn open(
    gate: &Gate,
    asking: &Asking<'_>,
    targets: &[Target],
    caller: Caller,
    entry: &mut Entry,
) -> Result<Proxied, Failure> {
    let underway = asking.underway;
    let mut tries = Tries::of(targets);
    loop {
        let Try { target, attempt, .. } = tries.next(gate, asking, entry).await.map_err(|miss| miss.failure)?;
        let miss = match tokio::time::timeout_at(underway.deadline.into(), asking.upgraded(target, attempt)).await {
            Ok(Ok(mut answer)) => {
                entry.answered();
                let upstream = hyper::upgrade::on(&mut answer);
                let idle = Duration::from_millis(underway.snapshot.timeouts.idle_ms);
                let headers = std::mem::take(answer.headers_mut());
                let meter = Meter::new(asking.dialect());
                let tunnel = Tunnel::metered(caller.0, upstream, idle, underway.peer.clone(), meter);
                return Ok(Proxied::Upgraded(headers, Box::new(tunnel)));
            }
            Ok(Err(miss)) => miss,
            Err(_) => return Err(Failure::new(Kind::TotalTimeout, "no answer came within timeouts.total_ms")),
        };
        entry.missed(&miss.failure);
        target.records(miss.failure.verdict());
        tries.missed(miss, asking).map_err(|miss| miss.failure)?;
    }
}
