// SPDX-License-Identifier: Apache-2.0
//! As much of HTTP/1.1 as the relay check needs on both of its ends, written apart from the stack that it checks.

use std::io::{self, BufRead, Read};

/// A request or an answer.
pub(super) struct Message {
    /// First line.
    pub(super) start: String,
    /// Headers, with lower-case names.
    pub(super) headers: Vec<(String, String)>,
    /// Body, without its chunks.
    pub(super) body: Vec<u8>,
}

impl Message {
    /// A header by its lower-case name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Method and target of a request.
    pub(super) fn request(&self) -> (&str, &str) {
        let mut words = self.start.split(' ');
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }

    /// The status of an answer; 0 if there is none.
    pub(super) fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default()
    }
}

/// Reads one message; none at the end of the connection.
///
/// # Errors
/// When the connection breaks or the message is malformed.
pub(super) fn read(reader: &mut impl BufRead) -> io::Result<Option<Message>> {
    let Some(start) = line(reader)? else { return Ok(None) };
    let (mut length, mut chunked) = (None, false);
    let mut headers = Vec::new();
    while let Some(header) = line(reader)?.filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once(':').ok_or_else(|| malformed("a header without a colon"))?;
        match name.to_lowercase().as_str() {
            "content-length" => length = Some(value.trim().parse().map_err(|_| malformed("content-length"))?),
            "transfer-encoding" => chunked = value.trim() == "chunked",
            _ => {}
        }
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let mut body = Vec::new();
    match length {
        _ if chunked => read_chunks(reader, &mut body)?,
        Some(length) => copy(reader, length, &mut body)?,
        None if start.starts_with("HTTP/1.1 101") => {}
        // An answer without a length goes on until the connection ends; a request without one has no body.
        None if start.starts_with("HTTP/") => drop(reader.read_to_end(&mut body)?),
        None => {}
    }
    Ok(Some(Message { start, headers, body }))
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let size = line(reader)?.ok_or_else(|| malformed("the end in a chunk"))?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| malformed("a chunk without a size"))?;
        copy(reader, size, body)?;
        let after = line(reader)?;
        if after.as_deref() != Some("") {
            return Err(malformed("a chunk that does not end"));
        }
        if size == 0 {
            return Ok(());
        }
    }
}

fn copy(reader: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
    match reader.take(length).read_to_end(body)? as u64 {
        read if read == length => Ok(()),
        _ => Err(malformed("the end in a body")),
    }
}

/// A line without its end; none at the end of the connection.
fn line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut text = String::new();
    match reader.read_line(&mut text)? {
        0 => Ok(None),
        _ => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed HTTP: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_however_they_are_framed() {
        let cases: &[(&str, &str)] = &[
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", "abc"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\n\r\n", "abc"),
            ("HTTP/1.1 200 OK\r\n\r\nabc", "abc"),
            ("GET / HTTP/1.1\r\n\r\n", ""),
        ];
        for (text, body) in cases {
            let message = read(&mut text.as_bytes()).unwrap().unwrap();
            assert_eq!(message.body, body.as_bytes(), "{text}");
        }
        assert!(read(&mut "".as_bytes()).unwrap().is_none());
    }

    #[test]
    fn a_cut_is_an_error() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n",
        ] {
            assert!(read(&mut text.as_bytes()).is_err(), "{text}");
        }
    }
}
