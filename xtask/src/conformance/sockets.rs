// SPDX-License-Identifier: Apache-2.0
//! Both ends of a recorded conversation over a WebSocket: each says its part when it has heard what came before, and
//! compares what it hears.

use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

use super::wire;

const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Any sixteen bytes in base64 will do.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The vendor's end: agrees to the handshake and speaks.
///
/// # Errors
/// When the conversation is not the recorded one.
pub(super) fn accept(mut connection: TcpStream, key: &str, messages: &[(bool, String)]) -> io::Result<()> {
    let accept = derive_accept_key(key.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    connection.write_all(head.as_bytes())?;
    speak(connection, Role::Server, messages)
}

/// The caller's end: asks at this path of the gateway and speaks.
///
/// # Errors
/// When there is no WebSocket, or the conversation is not the recorded one.
pub(super) fn connect(gateway: SocketAddr, path: &str, messages: &[(bool, String)]) -> io::Result<()> {
    let mut connection = TcpStream::connect_timeout(&gateway, ANSWER_WITHIN)?;
    connection.set_read_timeout(Some(ANSWER_WITHIN))?;
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: {gateway}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\
         sec-websocket-extensions: permessage-deflate\r\n\r\n"
    );
    connection.write_all(head.as_bytes())?;
    // The head is read byte by byte, so that nothing behind it is lost.
    let mut reader = BufReader::with_capacity(1, connection.try_clone()?);
    let answer = wire::read(&mut reader)?.ok_or_else(|| wrong("no answer to the handshake"))?;
    if answer.status() != 101 {
        return Err(wrong(&format!("{}: {}", answer.start, String::from_utf8_lossy(&answer.body))));
    }
    if answer.header("sec-websocket-accept") != Some(&derive_accept_key(KEY.as_bytes())) {
        return Err(wrong("the handshake is not for this key"));
    }
    speak(connection, Role::Client, messages)
}

fn speak(connection: TcpStream, role: Role, messages: &[(bool, String)]) -> io::Result<()> {
    connection.set_read_timeout(Some(ANSWER_WITHIN))?;
    let mut socket = WebSocket::from_raw_socket(connection, role, None);
    for (number, (by_vendor, text)) in messages.iter().enumerate() {
        if *by_vendor == (role == Role::Server) {
            socket.send(Message::text(text.as_str())).map_err(|error| wrong(&error.to_string()))?;
            continue;
        }
        match socket.read() {
            Ok(Message::Text(heard)) if heard.as_str() == text => {}
            Ok(other) => return Err(wrong(&format!("message {number} came as {other:.200}"))),
            Err(error) => return Err(wrong(&format!("message {number}: {error}"))),
        }
    }
    if role == Role::Client {
        socket.close(None).map_err(|error| wrong(&error.to_string()))?;
    }
    // Until the other end has said good-bye, too.
    loop {
        match socket.read() {
            Ok(_) => {}
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Ok(()),
            Err(error) => return Err(wrong(&format!("at the end: {error}"))),
        }
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
