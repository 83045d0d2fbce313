// SPDX-License-Identifier: Apache-2.0
//! A caller that says what it got, and whether it was cut.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, as far as it came.
    pub body: Vec<u8>,
    /// Whether the connection was cut before the body's end.
    pub cut: bool,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text, "" if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends one request on a connection of its own and reads the answer to its end.
pub async fn ask(address: SocketAddr, request: Request<Bytes>) -> Reply {
    let (status, headers, mut body) = begin(address, request).await;
    let mut bytes = Vec::new();
    let mut cut = false;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Err(_) => {
                cut = true;
                break;
            }
        }
    }
    Reply { status, headers, body: bytes, cut }
}

/// Sends one request on a connection of its own and waits for the head of the answer.
pub async fn begin(address: SocketAddr, request: Request<Bytes>) -> (StatusCode, HeaderMap, Incoming) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = request.map(Full::new);
    if !request.headers().contains_key("host") {
        let host = address.to_string().parse().unwrap();
        request.headers_mut().insert("host", host);
    }
    let answer = sender.send_request(request).await.unwrap();
    let (head, body) = answer.into_parts();
    (head.status, head.headers, body)
}

/// A POST with a JSON body.
pub fn post(path: &str, body: &serde_json::Value) -> Request<Bytes> {
    let bytes = Bytes::from(serde_json::to_vec(body).unwrap());
    Request::post(path).header("content-type", "application/json").body(bytes).unwrap()
}

/// A GET.
pub fn get(path: &str) -> Request<Bytes> {
    Request::get(path).body(Bytes::new()).unwrap()
}
