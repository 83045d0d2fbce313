// SPDX-License-Identifier: Apache-2.0
//! The upstream of the benchmark: answers every chat with the same 1.5 KB, or with a stream of as many events as `max_tokens` says, each
//! written by itself.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior};

use crate::process::Ready;

/// Between the events of a stream: long enough that a proxy has passed one on before the next one comes.
const PACE: Duration = Duration::from_millis(2);

/// Serves for ever.
pub async fn serve(listening: oneshot::Sender<Ready>) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let _ = listening.send(Ready { address: listener.local_addr()?, credentials: Vec::new() });
    let whole = Bytes::from(whole());
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let whole = whole.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, whole.clone()));
            // A caller that hangs up is the end of a round.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

type Answer = Response<Either<Full<Bytes>, Events>>;

async fn answer(request: Request<Incoming>, whole: Bytes) -> Result<Answer, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let asked: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let streaming = asked["stream"].as_bool().unwrap_or_default();
    let (kind, body) = if streaming {
        let wanted = asked["max_tokens"].as_u64().or_else(|| asked["max_completion_tokens"].as_u64());
        ("text/event-stream", Either::Right(Events::new(wanted.unwrap_or(1))))
    } else {
        ("application/json", Either::Left(Full::new(whole)))
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert("x-request-id", HeaderValue::from_static("req_0123456789abcdef"));
    response.headers_mut().insert("x-ratelimit-remaining-requests", HeaderValue::from_static("9999"));
    Ok(response)
}

/// A stream of events, one by one.
struct Events {
    next: u64,
    count: u64,
    clock: Interval,
}

impl Events {
    fn new(count: u64) -> Self {
        let mut clock = tokio::time::interval(PACE);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { next: 0, count, clock }
    }

    fn event(&self) -> Bytes {
        let (delta, finish) = match self.next {
            0 => (r#"{"role":"assistant","content":"Once"}"#, "null"),
            at if at + 1 == self.count => ("{}", r#""stop""#),
            _ => (r#"{"content":" more"}"#, "null"),
        };
        let head = r#"data: {"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1790000000,"model":"bench-model","system_fingerprint":"fp_0123456789","choices":[{"index":0,"delta":"#;
        let mut event = format!("{head}{delta},\"logprobs\":null,\"finish_reason\":{finish}}}]}}\n\n");
        if self.next + 1 == self.count {
            event.push_str("data: [DONE]\n\n");
        }
        event.into()
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.next >= self.count {
            return Poll::Ready(None);
        }
        ready!(self.clock.poll_tick(cx));
        let event = self.event();
        self.next += 1;
        Poll::Ready(Some(Ok(Frame::data(event))))
    }
}

/// A chat completion of about 1.5 KB.
fn whole() -> String {
    let text = "The quick brown fox jumps over the lazy dog while nobody counts the tokens. ".repeat(13);
    let message = serde_json::json!({"role": "assistant", "content": text, "refusal": null, "annotations": []});
    let details = serde_json::json!({"cached_tokens": 0, "audio_tokens": 0});
    let usage = serde_json::json!({
        "prompt_tokens": 210, "completion_tokens": 230, "total_tokens": 440, "prompt_tokens_details": details,
    });
    serde_json::json!({
        "id": "chatcmpl-0123456789", "object": "chat.completion", "created": 1_790_000_000, "model": "bench-model",
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"}],
        "usage": usage, "service_tier": "default", "system_fingerprint": "fp_0123456789",
    })
    .to_string()
}
