// SPDX-License-Identifier: Apache-2.0
//! Carries an upgraded connection (a WebSocket) between a caller and an upstream: bytes both ways, not looked into.
//!
//! It starts only when the upstream has answered 101: before that nothing of the caller's further bytes may go on, or they
//! would be taken for a second request (request smuggling by a premature upgrade).

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

pub mod frames;
mod meter;

pub use meter::Meter;

/// Bytes that are in flight in one direction.
const BUFFER_BYTES: usize = 16 << 10;

/// Bytes that a tunnel carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// From the caller to the upstream.
    pub up: u64,
    /// From the upstream to the caller.
    pub down: u64,
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides said that they are done.
    Closed,
    /// Nothing moved for the idle time-out.
    Idle,
    /// The gateway stops.
    Stopped,
    /// One side broke off, or the upgrade did not happen.
    Broken,
}

/// Waits until both sides are upgraded and copies both ways until both have ended, one breaks, nothing has moved for
/// `idle`, or `stop` resolves. The end of one direction is passed on as such; the other one goes on.
/// Dropping the future closes both connections. `meter` sees what goes to the caller.
pub async fn relay(
    caller: OnUpgrade,
    upstream: OnUpgrade,
    idle: Duration,
    stop: impl Future<Output = ()>,
    meter: Option<&mut Meter>,
) -> (Carried, End) {
    let (up, down) = (AtomicU64::new(0), AtomicU64::new(0));
    let carry = async {
        let (caller, upstream) = tokio::try_join!(caller, upstream).map_err(|_| ())?;
        both_ways(caller, upstream, &up, &down, meter).await.map_err(|_| ())
    };
    let moved = || up.load(Ordering::Relaxed).wrapping_add(down.load(Ordering::Relaxed));
    let end = tokio::select! {
        done = carry => if done.is_ok() { End::Closed } else { End::Broken },
        () = quiet(idle, moved) => End::Idle,
        () = stop => End::Stopped,
    };
    (Carried { up: up.into_inner(), down: down.into_inner() }, end)
}

async fn both_ways(
    caller: Upgraded,
    upstream: Upgraded,
    up: &AtomicU64,
    down: &AtomicU64,
    meter: Option<&mut Meter>,
) -> std::io::Result<()> {
    let (mut caller_read, mut caller_write) = tokio::io::split(TokioIo::new(caller));
    let (mut upstream_read, mut upstream_write) = tokio::io::split(TokioIo::new(upstream));
    tokio::try_join!(
        one_way(&mut caller_read, &mut upstream_write, up, None),
        one_way(&mut upstream_read, &mut caller_write, down, meter),
    )?;
    Ok(())
}

async fn one_way<R, W>(
    from: &mut R,
    to: &mut W,
    moved: &AtomicU64,
    mut meter: Option<&mut Meter>,
) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        if let Some(meter) = &mut meter {
            meter.see(&buffer[..count]);
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
        moved.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Resolves when `moved` has not changed for between one and one and a quarter times `limit`.
async fn quiet(limit: Duration, moved: impl Fn() -> u64) {
    let step = (limit / 4).max(Duration::from_millis(1));
    let (mut seen, mut since) = (moved(), Instant::now());
    while since.elapsed() < limit {
        tokio::time::sleep(step).await;
        let now = moved();
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
}
