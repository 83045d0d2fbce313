// SPDX-License-Identifier: Apache-2.0
//! Tells traces to a collector: OTLP over HTTP, protobuf (opentelemetry.io/docs/specs/otlp). A task of its own gathers what
//! has finished and sends it in batches; a collector that is away or slow costs traces, never a request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Finished, otlp};
use crate::metrics::Metrics;
use crate::upstream::{Client, Endpoint, OutBody};

/// Tries to tell one batch.
const TRIES_MAX: u32 = 4;
/// Pause before the second try; it doubles.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest pause, whatever the collector asks for.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Largest answer of a collector that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// A loss is told in the log no more often than this.
const COMPLAINT: Duration = Duration::from_secs(60);

/// Where traces go, and how.
pub struct Options {
    /// The collector.
    pub endpoint: Endpoint,
    /// Headers that it wants; values may be secret.
    pub headers: HeaderMap,
    /// Attributes of the gateway: `service.name` and so on.
    pub who: Vec<(&'static str, String)>,
    /// Spans of one batch.
    pub batch_spans_max: usize,
    /// How long a trace waits for others.
    pub interval: Duration,
    /// How long the collector may take to answer.
    pub timeout: Duration,
}

/// The task that tells traces.
pub struct Exporter {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

struct Sending {
    options: Options,
    client: Client,
    metrics: Arc<Metrics>,
    complained: Option<Instant>,
}

/// Why a batch was not taken.
enum Refused {
    /// Another try may help, after a pause that the collector may have named.
    Later(String, Option<Duration>),
    /// It never will be.
    ForGood(String),
}

impl Exporter {
    /// Begins to tell what comes out of the queue.
    #[must_use]
    pub fn start(options: Options, client: Client, metrics: Arc<Metrics>, finished: mpsc::Receiver<Finished>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let sending = Sending { options, client, metrics, complained: None };
        Self { stop, task: tokio::spawn(sending.run(finished, stopped)) }
    }

    /// Tells what is in the queue, and ends; what is not told within this time is lost.
    pub async fn flush(self, within: Duration) {
        let _ = self.stop.send(()); // it has ended already if nobody hears it
        if tokio::time::timeout(within, self.task).await.is_err() {
            tracing::warn!("the collector of traces did not take the last ones in time");
        }
    }
}

impl Sending {
    async fn run(mut self, mut finished: mpsc::Receiver<Finished>, mut stopped: oneshot::Receiver<()>) {
        let (mut closing, mut done) = (false, false);
        while !done {
            let mut batch = Vec::new();
            let mut due: Option<Instant> = None;
            while count(&batch) < self.options.batch_spans_max {
                let wait = async {
                    match due {
                        Some(due) => tokio::time::sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    trace = finished.recv() => match trace {
                        Some(trace) => {
                            batch.push(trace);
                            due.get_or_insert_with(|| Instant::now() + self.options.interval);
                        }
                        None => {
                            done = true;
                            break;
                        }
                    },
                    _ = &mut stopped, if !closing => {
                        closing = true;
                        finished.close(); // what is in it still comes out
                    }
                    () = wait => break,
                }
            }
            self.tell(&batch).await;
        }
    }

    async fn tell(&mut self, batch: &[Finished]) {
        let spans = count(batch) as u64;
        if spans == 0 {
            return;
        }
        let body = Bytes::from(otlp::request(batch, &self.options.who).encode_to_vec());
        let mut pause = PAUSE;
        for tried in 1..=TRIES_MAX {
            match self.send(body.clone()).await {
                Ok(rejected) => {
                    self.metrics.spans("exported", spans.saturating_sub(rejected));
                    self.metrics.spans("dropped-export", rejected.min(spans));
                    return;
                }
                Err(Refused::Later(why, wait)) if tried < TRIES_MAX => {
                    tracing::debug!(why, "the collector of traces does not take them; they are sent again");
                    tokio::time::sleep(wait.unwrap_or(pause).min(PAUSE_MAX)).await;
                    pause *= 2;
                }
                Err(Refused::Later(why, _) | Refused::ForGood(why)) => {
                    self.metrics.spans("dropped-export", spans);
                    self.complain(&why, spans);
                    return;
                }
            }
        }
    }

    /// Sends one batch; answers how many spans the collector did not take.
    async fn send(&self, body: Bytes) -> Result<u64, Refused> {
        let uri = self.options.endpoint.uri("/v1/traces").map_err(Refused::ForGood)?;
        let mut request = Request::post(uri).body(OutBody::Full(body)).map_err(|error| {
            Refused::ForGood(error.to_string()) // nothing of it comes from outside
        })?;
        request.headers_mut().extend(self.options.headers.clone());
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let asking = async {
            let answer = self.client.send(&self.options.endpoint, request).await;
            let (head, body) = answer.map_err(|error| Refused::Later(error.to_string(), None))?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            Ok((head, body.map(http_body_util::Collected::to_bytes).unwrap_or_default()))
        };
        let answered = tokio::time::timeout(self.options.timeout, asking).await;
        let (head, body) = answered.map_err(|_| Refused::Later("it did not answer in time".to_owned(), None))??;
        if head.status.is_success() {
            let partial = otlp::Response::decode(body).unwrap_or_default().partial_success;
            return Ok(partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0)));
        }
        let why = format!("it answered {}", head.status);
        // The specification's list of what may be sent again.
        match head.status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                let after = head.headers.get(header::RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
                Err(Refused::Later(why, after.map(Duration::from_secs)))
            }
            _ => Err(Refused::ForGood(why)),
        }
    }

    fn complain(&mut self, why: &str, spans: u64) {
        let now = Instant::now();
        if self.complained.is_none_or(|last| now.duration_since(last) >= COMPLAINT) {
            self.complained = Some(now);
            tracing::warn!(why, spans, "traces are lost: the collector does not take them (traces.endpoint)");
        }
    }
}

fn count(batch: &[Finished]) -> usize {
    batch.iter().map(|trace| trace.spans.len()).sum()
}
