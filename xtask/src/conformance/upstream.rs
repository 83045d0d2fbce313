// SPDX-License-Identifier: Apache-2.0
//! A vendor on loopback that answers with recorded exchanges, byte for byte: the model that a request names (`case-17`) says
//! which one. Streams go out in pieces of uneven size that respect neither events nor characters.

use std::collections::HashMap;
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::Value;

use super::case::Case;
use super::wire;

/// What to answer a request with.
#[derive(Clone)]
struct Answer {
    streamed: bool,
    body: Vec<u8>,
}

/// The server; it lives as long as the process.
pub(super) struct Upstream {
    /// Where it listens.
    pub(super) address: SocketAddr,
    asked: Asked,
}

/// The bodies of the requests by the name of the model, as they came in.
type Asked = Arc<Mutex<HashMap<String, Vec<u8>>>>;

impl Upstream {
    /// Starts to answer for these exchanges, named by their position.
    ///
    /// # Errors
    /// When there is no free port.
    pub(super) fn start(cases: &[&Case]) -> io::Result<Self> {
        let answers = cases
            .iter()
            .enumerate()
            .map(|(number, case)| (model(number), Answer { streamed: case.streamed, body: case.body.clone() }));
        let answers: Arc<HashMap<_, _>> = Arc::new(answers.collect());
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let asked = Asked::default();
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (answers, log) = (Arc::clone(&answers), Arc::clone(&log));
                thread::spawn(move || serve(connection, &answers, &log));
            }
        });
        Ok(Self { address, asked })
    }

    /// The body of the request that named this model, if there was one.
    pub(super) fn asked(&self, model: &str) -> Option<Vec<u8>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).get(model).cloned()
    }
}

/// The name under which an exchange is asked for.
pub(super) fn model(number: usize) -> String {
    format!("case-{number}")
}

/// Answers the requests of one connection until it ends.
fn serve(connection: TcpStream, answers: &HashMap<String, Answer>, log: &Asked) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::new(connection);
    while let Some(request) = wire::read(&mut reader)? {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let model = body["model"].as_str().unwrap_or_default().to_owned();
        let answer = answers.get(&model).cloned();
        log.lock().unwrap_or_else(PoisonError::into_inner).insert(model, request.body);
        match answer {
            Some(Answer { streamed: true, body }) => stream(&mut writer, &body)?,
            Some(Answer { body, .. }) => whole(&mut writer, 200, &body)?,
            None => whole(&mut writer, 404, b"{\"error\":{\"message\":\"no such case\"}}")?,
        }
    }
    Ok(())
}

fn whole(writer: &mut TcpStream, status: u16, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} Recorded\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    writer.write_all(head.as_bytes())?;
    writer.write_all(body)
}

fn stream(writer: &mut TcpStream, body: &[u8]) -> io::Result<()> {
    const SIZES: &[usize] = &[1, 600, 13, 1400, 3, 257];
    writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
    let mut rest = body;
    for size in SIZES.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        writer.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
        writer.write_all(piece)?;
        writer.write_all(b"\r\n")?;
        rest = after;
    }
    writer.write_all(b"0\r\n\r\n")
}
