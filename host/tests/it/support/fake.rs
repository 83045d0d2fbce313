// SPDX-License-Identifier: Apache-2.0
//! A fake upstream that says exactly the bytes that a test wants, cuts included. It speaks HTTP/1.1 on a plain socket,
//! because no library would send what is wrong on purpose.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What a fake upstream has been asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Method and path.
    pub line: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Asked {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the gateway sends JSON")
    }
}

/// One thing that a fake upstream does.
#[derive(Debug, Clone)]
pub enum Do {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Waits until the test says so.
    Await(Arc<Notify>),
    /// Tells the test that it has come this far.
    Tell(Arc<Notify>),
    /// Closes the connection, whatever was promised.
    Close,
    /// Sends back whatever comes, until the other side closes.
    Echo,
    /// Waits until the other side closes, and tells.
    UntilClosed(Arc<Notify>),
}

/// Bytes of a whole JSON answer.
pub fn json(status: &str, body: &str) -> Vec<Do> {
    whole(status, "application/json", body.as_bytes())
}

/// Bytes of a whole answer.
pub fn whole(status: &str, kind: &str, body: &[u8]) -> Vec<Do> {
    let mut bytes =
        format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    vec![Do::Send(bytes)]
}

/// The head of a chunked stream of events.
pub fn stream_head() -> Do {
    Do::Send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec())
}

/// One chunk of a chunked answer.
pub fn chunk(bytes: &[u8]) -> Do {
    let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
    framed.extend_from_slice(bytes);
    framed.extend_from_slice(b"\r\n");
    Do::Send(framed)
}

/// The end of a chunked answer.
pub fn last_chunk() -> Do {
    Do::Send(b"0\r\n\r\n".to_vec())
}

/// A whole stream of events in one chunk.
pub fn stream(bytes: &[u8]) -> Vec<Do> {
    vec![stream_head(), chunk(bytes), last_chunk()]
}

type Script = dyn Fn(&Asked) -> Vec<Do> + Send + Sync;

/// A fake upstream.
pub struct Fake {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    /// Listens, and answers each request as the script says.
    pub async fn start(script: impl Fn(&Asked) -> Vec<Do> + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), script)
    }

    /// Answers each request on this socket as the script says.
    pub fn on(listener: TcpListener, script: impl Fn(&Asked) -> Vec<Do> + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (script, log): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                connection.set_nodelay(true).unwrap();
                tokio::spawn(converse(connection, Arc::clone(&script), Arc::clone(&log)));
            }
        });
        Self { address, asked }
    }

    /// Base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// What it was asked last.
    pub fn last(&self) -> Asked {
        self.asked().pop().expect("the upstream was asked")
    }
}

async fn converse(mut connection: TcpStream, script: Arc<Script>, log: Arc<Mutex<Vec<Asked>>>) {
    let mut buffer = Vec::new();
    while let Some(asked) = read(&mut connection, &mut buffer).await {
        log.lock().unwrap().push(asked.clone());
        for what in script(&asked) {
            match what {
                Do::Send(bytes) => {
                    if connection.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Do::Await(notify) => notify.notified().await,
                Do::Tell(notify) => notify.notify_one(),
                Do::Close => return,
                Do::Echo => {
                    let (mut from, mut to) = connection.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                    return;
                }
                Do::UntilClosed(notify) => {
                    let mut byte = [0; 1];
                    while matches!(connection.read(&mut byte).await, Ok(1..)) {}
                    notify.notify_one();
                    return;
                }
            }
        }
    }
}

/// The next request on a connection; none when it is closed.
pub async fn read(connection: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Asked> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if connection.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer[..head_end].to_vec()).expect("the head is text");
    let mut lines = head.split("\r\n");
    let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
    while buffer.len() < head_end + length {
        if connection.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[head_end..head_end + length].to_vec();
    buffer.drain(..head_end + length);
    Some(Asked { line, headers, body })
}
