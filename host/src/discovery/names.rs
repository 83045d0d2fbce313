// SPDX-License-Identifier: Apache-2.0
//! Endpoints by DNS: all addresses of a name, or what its SRV records offer. It is looked again when the TTL is over.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Seeker, jittered};
use crate::config::Discover;
use crate::upstream::dns::Names;
use crate::upstream::fleet::Found;

/// Looks for as long as somebody wants to know.
pub(super) async fn follow(seeker: &mut Seeker, written: &Discover) {
    loop {
        match look(written).await {
            Ok((found, ttl_s)) => {
                let is_empty = found.is_empty();
                seeker.put(found);
                if is_empty {
                    seeker.pause().await;
                } else {
                    let ttl_ms = u64::from(ttl_s) * 1000;
                    let wait_ms = ttl_ms.clamp(written.refresh_ms_min, written.refresh_ms_max);
                    jittered(Duration::from_millis(wait_ms)).await;
                }
            }
            Err(why) => seeker.failed(&why).await,
        }
    }
}

async fn look(written: &Discover) -> Result<(Vec<Found>, u32), String> {
    let names = if written.servers.is_empty() {
        tokio::task::spawn_blocking(Names::system).await.map_err(|error| error.to_string())??
    } else {
        Names::at(&written.servers)
    };
    let (scheme, path) = (written.scheme.name(), &written.path);
    if let Some(name) = &written.srv {
        let known = names.offers(name).await?;
        let found = known.found.into_iter().map(|offer| {
            let host = written.host.as_ref().unwrap_or(&offer.host);
            let (weight, priority) = (u32::from(offer.weight.max(1)), u32::from(offer.priority));
            let url = format!("{scheme}://{host}:{}{path}", offer.address.port());
            Found { url, at: Some(offer.address), weight, priority }
        });
        return Ok((found.collect(), known.ttl_s));
    }
    let place = written.dns.as_deref().unwrap_or_default();
    let (name, port) = place.rsplit_once(':').ok_or_else(|| format!("{place:?} has no port"))?;
    let port: u16 = port.parse().map_err(|_| format!("{place:?} has no port"))?;
    let mut known = names.addresses(name).await?;
    known.found.sort_unstable();
    let url = match &written.host {
        Some(host) => format!("{scheme}://{host}:{port}{path}"),
        None => format!("{scheme}://{}:{port}{path}", name.trim_end_matches('.')),
    };
    let found = known.found.into_iter().map(|address| {
        let at = Some(SocketAddr::new(address, port));
        Found { url: url.clone(), at, weight: 1, priority: 0 }
    });
    Ok((found.collect(), known.ttl_s))
}
