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
    let moves = Moves::new();
    let carry = async {
        let (caller, upstream) = tokio::try_join!(caller, upstream).map_err(|_| ())?;
        both_ways(caller, upstream, &moves, meter).await.map_err(|_| ())
    };
    let end = tokio::select! {
        done = carry => if done.is_ok() { End::Closed } else { End::Broken },
        () = moves.quiet(idle) => End::Idle,
        () = stop => End::Stopped,
    };
    (Carried { up: moves.up.into_inner(), down: moves.down.into_inner() }, end)
}

/// What has moved, and when it last did.
struct Moves {
    up: AtomicU64,
    down: AtomicU64,
    begun: Instant,
    last_us: AtomicU64,
}

impl Moves {
    fn new() -> Self {
        let (up, down, last_us) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self { up, down, begun: Instant::now(), last_us }
    }

    fn note(&self, direction: &AtomicU64, bytes: usize) {
        direction.fetch_add(bytes as u64, Ordering::Relaxed);
        let since = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last_us.store(since, Ordering::Relaxed);
    }

    /// Resolves when nothing has moved for `limit`.
    async fn quiet(&self, limit: Duration) {
        loop {
            let deadline = self.begun + Duration::from_micros(self.last_us.load(Ordering::Relaxed)) + limit;
            if deadline <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

async fn both_ways(
    caller: Upgraded,
    upstream: Upgraded,
    moves: &Moves,
    meter: Option<&mut Meter>,
) -> std::io::Result<()> {
    let (mut caller_read, mut caller_write) = tokio::io::split(TokioIo::new(caller));
    let (mut upstream_read, mut upstream_write) = tokio::io::split(TokioIo::new(upstream));
    tokio::try_join!(
        one_way(&mut caller_read, &mut upstream_write, (moves, &moves.up), None),
        one_way(&mut upstream_read, &mut caller_write, (moves, &moves.down), meter),
    )?;
    Ok(())
}

async fn one_way<R, W>(
    from: &mut R,
    to: &mut W,
    (moves, direction): (&Moves, &AtomicU64),
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
        moves.note(direction, count);
    }
}
