// SPDX-License-Identifier: Apache-2.0
//! One try at opening a conversation over a WebSocket with a target.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{Asking, Miss};
use crate::failure::{Failure, Kind};
use crate::outbound;
use crate::routes::Target;
use crate::upstream::Answer as UpstreamAnswer;

/// The caller's part of the handshake that goes on. Extensions do not: what cannot be read cannot be accounted.
const HANDSHAKE: [HeaderName; 3] =
    [header::SEC_WEBSOCKET_KEY, header::SEC_WEBSOCKET_VERSION, header::SEC_WEBSOCKET_PROTOCOL];

impl Asking<'_> {
    /// Asks one target to open a WebSocket; what comes back is its 101.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn upgraded(&self, target: &Target, attempt: u32) -> Result<Response<UpstreamAnswer>, Miss> {
        let adapter = &target.vendor.adapter;
        if !adapter.serves(self.inbound.asked.operation.name()) {
            return Err(self.unsupported(target, "the vendor has no such operation").into());
        }
        self.begins(attempt);
        let facts = self.facts(target);
        let request = self.relayable(target, &self.call(target, attempt, &facts))?;
        let handshake = handshake(&self.head.headers);
        let answer =
            outbound::upgrade(self.client, &target.vendor, &request, handshake, &self.turn, self.trace.as_ref())
                .await?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        if answer.status().is_success() {
            let message = format!("{} did not open a WebSocket", target.id);
            return Err(Failure::new(Kind::BadAnswer, message).into());
        }
        Err(self.rejected(answer, &target.vendor, true).await)
    }
}

fn handshake(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let mut handshake = vec![
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
    ];
    for name in HANDSHAKE {
        let value = headers.get(&name).and_then(|value| value.to_str().ok());
        // Browsers put the caller's key among the protocols: it is for us.
        let spoken = |value: &str| {
            let protocols = value.split(',').map(str::trim).filter(|protocol| !protocol.contains("api-key"));
            protocols.collect::<Vec<_>>().join(", ")
        };
        let value =
            value.map(|value| if name == header::SEC_WEBSOCKET_PROTOCOL { spoken(value) } else { value.to_owned() });
        if let Some(value) =
            value.filter(|value| !value.is_empty()).and_then(|value| HeaderValue::from_str(&value).ok())
        {
            handshake.push((name, value));
        }
    }
    handshake
}
