// SPDX-License-Identifier: Apache-2.0
//! Asks the admin API of a running gateway. It speaks clear text, as the API does; one request, one connection.

use std::io::{self, IsTerminal, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde_json::Value;

use super::Flags;
use crate::directory::token;

/// Connecting, and each read and write, may take so long. A plugin is compiled before its upload is answered.
const WAIT: Duration = Duration::from_secs(120);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Bytes of an upload between two words on its progress.
const STEP_BYTES: usize = 256 << 10;

/// Where the gateway is, and how to print.
#[derive(Debug, Clone, Args)]
pub struct Remote {
    /// The admin API.
    #[arg(long, value_name = "URL", env = "PENSTOCK_ADMIN", default_value = "http://127.0.0.1:9080", global = true)]
    pub admin: String,
    /// File with the admin token. Without it: the variable `PENSTOCK_ADMIN_TOKEN`, or admin-token in the state directory.
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
    /// State directory of a gateway on this machine, for its admin token.
    #[arg(long, value_name = "DIR", env = "PENSTOCK_STATE", global = true)]
    pub state: Option<PathBuf>,
    /// Print the answer as JSON, for scripts.
    #[arg(long, global = true)]
    pub json: bool,
}

impl Remote {
    /// Asks, and gives the answer if it is a good one.
    ///
    /// # Errors
    /// Nobody answers, or the words of the refusal.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        self.exchange(method, path, "application/json", &bytes, false)
    }

    /// Sends a file, and tells how far it is.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn upload(&self, path: &str, kind: &str, bytes: &[u8]) -> anyhow::Result<Value> {
        self.exchange("POST", path, kind, bytes, io::stderr().is_terminal() && !self.json)
    }

    fn exchange(&self, method: &str, path: &str, kind: &str, body: &[u8], progress: bool) -> anyhow::Result<Value> {
        let authority = self.authority()?;
        let token = self.token()?;
        let mut connection = connect(authority).with_context(|| format!("nobody answers at {}", self.admin))?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
             accept: application/json\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        );
        connection.write_all(head.as_bytes())?;
        let mut sent = 0;
        for chunk in body.chunks(STEP_BYTES) {
            if connection.write_all(chunk).is_err() {
                break; // a refusal may be there already, and says more than the error
            }
            sent += chunk.len();
            if progress {
                let _ = write!(io::stderr(), "\r{} of {} KiB", sent / 1024, length / 1024);
            }
        }
        if progress {
            let _ = writeln!(io::stderr(), ", checking");
        }
        let mut answer = Vec::new();
        connection.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        read(&answer)
    }

    fn authority(&self) -> anyhow::Result<&str> {
        let rest = self.admin.strip_prefix("http://");
        let rest = rest.ok_or_else(|| anyhow!("--admin: expected a URL such as http://127.0.0.1:9080"))?;
        Ok(rest.trim_end_matches('/'))
    }

    fn token(&self) -> anyhow::Result<String> {
        let given = std::env::var("PENSTOCK_ADMIN_TOKEN").ok().filter(|token| !token.is_empty());
        let text = match (&self.token_file, given) {
            (None, Some(token)) => token,
            (file, _) => {
                let flags = Flags { state: self.state.clone(), ..Flags::default() };
                let path = file.clone().unwrap_or_else(|| flags.state_dir().join(token::FILE));
                let help = "give --token-file, --state, or the variable PENSTOCK_ADMIN_TOKEN";
                std::fs::read_to_string(&path).with_context(|| format!("{}: {help}", path.display()))?
            }
        };
        let token = text.trim();
        if token.is_empty() || token.bytes().any(|byte| !byte.is_ascii_graphic()) {
            bail!("the admin token is empty or has characters that no token has");
        }
        Ok(token.to_owned())
    }
}

fn connect(authority: &str) -> io::Result<TcpStream> {
    let with_port = if authority.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()) {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in with_port.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, WAIT) {
            Ok(connection) => {
                connection.set_read_timeout(Some(WAIT))?;
                connection.set_write_timeout(Some(WAIT))?;
                return Ok(connection);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn read(answer: &[u8]) -> anyhow::Result<Value> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n").ok_or_else(|| anyhow!("the answer is no HTTP"))?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status: u16 = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("the answer is no HTTP")?;
    let value: Value = serde_json::from_slice(&answer[end + 4..]).context("the answer is not JSON")?;
    if (200..300).contains(&status) {
        return Ok(value);
    }
    let error = &value["error"];
    let mut text =
        format!("{} [{}]", error["message"].as_str().unwrap_or("refused"), error["code"].as_str().unwrap_or("?"));
    if let Some(help) = error["help"].as_str().filter(|help| !help.is_empty()) {
        text.push_str(": ");
        text.push_str(help);
    }
    for problem in error["problems"].as_array().into_iter().flatten() {
        let part = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        text.push_str(&format!("\n  {}: {}", part("place"), part("message")));
    }
    Err(anyhow!(text))
}
