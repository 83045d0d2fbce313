// SPDX-License-Identifier: Apache-2.0
//! The feed of changes and of requests that have ended, as server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Response;
use http_body::Frame;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::body::{Failed, Query};
use crate::directory::feed::{Heard, Reader};
use crate::library::Refused;

/// A comment is sent after so long a silence, so that nothing on the way takes the feed for dead.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long the feed lasts for a client that has not said `Accept: text/event-stream`: tools that read whole answers come to
/// an end.
const UNASKED: Duration = Duration::from_secs(5);
/// Events that wait for the connection; what is behind them waits in the feed, which counts what a slow reader loses.
const WAITING_MAX: usize = 16;

pub(super) async fn follow(State(admin): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, Failed> {
    Query::of(&uri, &[])?;
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let end = (!accept.contains("text/event-stream")).then(|| Instant::now() + UNASKED);
    let Some(reader) = admin.directory.feed().read() else {
        return Err(Refused::new("too-many-readers", "there are too many readers", "close one of the others").into());
    };
    let (sender, events) = mpsc::channel(WAITING_MAX);
    tokio::spawn(write(reader, sender, end));
    let mut response = Response::new(Body::new(Events(events)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Writes events until the connection is gone, or the time is over.
async fn write(mut reader: Reader, sender: mpsc::Sender<Bytes>, end: Option<Instant>) {
    if sender.send(Bytes::from_static(b": penstock\n\n")).await.is_err() {
        return;
    }
    loop {
        let silence = Instant::now() + SILENCE_MAX;
        let until = end.map_or(silence, |end| end.min(silence));
        let event = tokio::select! {
            heard = reader.next() => match heard {
                Some(heard) => text(&heard),
                None => return,
            },
            () = sleep_until(until) => {
                if end.is_some_and(|end| end <= Instant::now()) {
                    let last = ": the feed ends here; send `Accept: text/event-stream` to follow it\n\n";
                    let _ = sender.send(Bytes::from_static(last.as_bytes())).await;
                    return;
                }
                ":\n\n".to_owned()
            }
            () = sender.closed() => return,
        };
        if sender.send(event.into()).await.is_err() {
            return;
        }
    }
}

fn text(heard: &Heard) -> String {
    match heard {
        // JSON has no line ends of its own
        Heard::News(news) => format!("id: {}\nevent: {}\ndata: {}\n\n", news.number, news.kind, news.what),
        Heard::Lost(lost) => format!("event: lost\ndata: {}\n\n", json!({ "lost": lost })),
    }
}

/// The events as a body.
struct Events(mpsc::Receiver<Bytes>);

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
