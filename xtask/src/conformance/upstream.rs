// SPDX-License-Identifier: Apache-2.0
//! Vendors on loopback that answer with recorded exchanges, byte for byte: the model that a request names in its body, or a
//! segment of its path (`case-17`), says which one. Streams go out in pieces of uneven size that respect neither events nor
//! characters. A request for a WebSocket is answered with the vendor's part of a transcript.

use std::collections::HashMap;
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::Value;

use super::case::{Case, Transcript};
use super::wire::Message;
use super::{sockets, wire};

/// What to answer a request with.
struct Answer {
    streamed: bool,
    media_type: String,
    body: Vec<u8>,
}

/// What the vendors know.
struct Known {
    answers: HashMap<String, Answer>,
    transcripts: HashMap<String, Vec<(bool, String)>>,
    asked: Mutex<HashMap<String, Message>>,
    /// What went wrong in a transcript, by its name.
    broken: Mutex<HashMap<String, String>>,
}

/// The server; it lives as long as the process.
pub(super) struct Upstream {
    /// Where it listens.
    pub(super) address: SocketAddr,
    known: Arc<Known>,
}

impl Upstream {
    /// Starts to answer for these exchanges and transcripts, named by their position.
    ///
    /// # Errors
    /// When there is no free port.
    pub(super) fn start(cases: &[&Case], transcripts: &[Transcript]) -> io::Result<Self> {
        let answer = |case: &Case| Answer {
            streamed: case.streamed,
            media_type: case.media_type.clone(),
            body: case.body.clone(),
        };
        let answers = cases.iter().enumerate().map(|(number, case)| (model(number), answer(case))).collect();
        let spoken = transcripts.iter().enumerate().map(|(number, it)| (session(number), it.messages.clone()));
        let known = Arc::new(Known {
            answers,
            transcripts: spoken.collect(),
            asked: Mutex::default(),
            broken: Mutex::default(),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let served = Arc::clone(&known);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let known = Arc::clone(&served);
                thread::spawn(move || serve(connection, &known));
            }
        });
        Ok(Self { address, known })
    }

    /// The request that named this exchange, if there was one.
    pub(super) fn asked(&self, name: &str) -> Option<Message> {
        self.known.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(name)
    }

    /// What the vendor did not like about a conversation.
    pub(super) fn broken(&self, name: &str) -> Option<String> {
        self.known.broken.lock().unwrap_or_else(PoisonError::into_inner).remove(name)
    }
}

/// The name under which an exchange is asked for.
pub(super) fn model(number: usize) -> String {
    format!("case-{number}")
}

/// The name under which a conversation is asked for.
pub(super) fn session(number: usize) -> String {
    format!("session-{number}")
}

/// Answers the requests of one connection until it ends.
fn serve(connection: TcpStream, known: &Known) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::new(connection);
    while let Some(request) = wire::read(&mut reader)? {
        let name = name_of(&request);
        if let Some(key) = request.header("sec-websocket-key") {
            let transcript = known.transcripts.get(&name).cloned().unwrap_or_default();
            let spoken = sockets::accept(writer, key, &transcript);
            if let Err(error) = spoken {
                known.broken.lock().unwrap_or_else(PoisonError::into_inner).insert(name, error.to_string());
            }
            return Ok(());
        }
        known.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), request);
        match known.answers.get(&name) {
            Some(answer) if answer.streamed => stream(&mut writer, answer)?,
            Some(answer) => whole(&mut writer, 200, &answer.media_type, &answer.body)?,
            None => whole(&mut writer, 404, "application/json", b"{\"error\":{\"message\":\"no such case\"}}")?,
        }
    }
    Ok(())
}

/// The name in the path, in the query or in the body of a request.
fn name_of(request: &Message) -> String {
    let target = request.request().1;
    let words = target.split(|byte: char| !(byte.is_ascii_alphanumeric() || byte == '-'));
    let mut named = words.filter(|word| word.starts_with("case-") || word.starts_with("session-"));
    match named.next() {
        Some(name) => name.to_owned(),
        None => {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            body["model"].as_str().unwrap_or_default().to_owned()
        }
    }
}

fn whole(writer: &mut TcpStream, status: u16, media_type: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} Recorded\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n");
    writer.write_all(head.as_bytes())?;
    writer.write_all(body)
}

fn stream(writer: &mut TcpStream, answer: &Answer) -> io::Result<()> {
    const SIZES: &[usize] = &[1, 600, 13, 1400, 3, 257];
    let media_type = &answer.media_type;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\ntransfer-encoding: chunked\r\n\r\n");
    writer.write_all(head.as_bytes())?;
    let mut rest = &answer.body[..];
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
