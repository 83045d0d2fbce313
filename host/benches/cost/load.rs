// SPDX-License-Identifier: Apache-2.0
//! The callers: connections that stay open, each with one request at a time, as fast as the answers come.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// What is asked, again and again.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Path.
    pub path: &'static str,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Ask {
    /// The same, by somebody who shows this instead.
    #[must_use]
    pub fn showing(mut self, credential: Option<&str>) -> Self {
        if let Some(bearer) = credential.and_then(|secret| HeaderValue::from_str(&format!("Bearer {secret}")).ok()) {
            self.headers.insert(header::AUTHORIZATION, bearer);
        }
        self
    }
}

/// How it went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Time of each request, from the first byte out to the last byte in.
    pub latencies: Vec<Duration>,
    /// Time of all of them.
    pub took: Duration,
    /// Pieces in which the bodies came.
    pub frames: u64,
}

/// Open connections to one server.
pub struct Callers {
    address: SocketAddr,
    senders: Vec<SendRequest<Full<Bytes>>>,
}

impl Callers {
    /// Connects.
    pub async fn connect(address: SocketAddr, count: usize) -> anyhow::Result<Self> {
        let mut senders = Vec::with_capacity(count);
        for _ in 0..count {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
            // It ends with its sender.
            tokio::spawn(connection);
            senders.push(sender);
        }
        Ok(Self { address, senders })
    }

    /// Asks this many times, over all connections together.
    pub async fn ask(&mut self, ask: &Ask, requests: usize) -> anyhow::Result<Outcome> {
        let left = Rc::new(Cell::new(requests));
        let (begun, tasks) = (Instant::now(), LocalSet::new());
        let mut running = Vec::new();
        for sender in self.senders.drain(..) {
            let (ask, left, host) = (ask.clone(), Rc::clone(&left), self.address.to_string());
            running.push(tasks.spawn_local(one_by_one(sender, ask, host, left)));
        }
        let mut all = Outcome::default();
        tasks
            .run_until(async {
                for task in running {
                    let (sender, part) = task.await??;
                    self.senders.push(sender);
                    all.latencies.extend(part.latencies);
                    all.frames += part.frames;
                }
                anyhow::Ok(())
            })
            .await?;
        all.took = begun.elapsed();
        Ok(all)
    }
}

async fn one_by_one(
    mut sender: SendRequest<Full<Bytes>>,
    ask: Ask,
    host: String,
    left: Rc<Cell<usize>>,
) -> anyhow::Result<(SendRequest<Full<Bytes>>, Outcome)> {
    let mut outcome = Outcome::default();
    while let Some(rest) = left.get().checked_sub(1) {
        left.set(rest);
        let mut request = Request::post(Uri::from_static(ask.path)).body(Full::new(ask.body.clone()))?;
        *request.headers_mut() = ask.headers.clone();
        request.headers_mut().insert(header::HOST, host.parse()?);
        sender.ready().await?;
        let begun = Instant::now();
        let response = sender.send_request(request).await.context("no answer")?;
        let status = response.status();
        let mut body = response.into_body();
        let mut refusal = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.context("the answer was cut")?;
            outcome.frames += 1;
            if let (true, Some(data)) = (status != StatusCode::OK, frame.data_ref()) {
                refusal.extend_from_slice(data);
            }
        }
        if status != StatusCode::OK {
            bail!("{} was answered with {status}: {}", ask.path, String::from_utf8_lossy(&refusal));
        }
        outcome.latencies.push(begun.elapsed());
    }
    Ok((sender, outcome))
}
