// SPDX-License-Identifier: Apache-2.0
//! A gateway of the release build, in front of the replaying vendor, with policies of its own.

use std::fs;
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::wire::{self, Message};
use crate::up;
use crate::workspace::Workspace;

const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// What the gateway says of its listener.
const SERVING: &str = "serving http://";
/// What it says of its admin API.
const ADMIN: &str = "the admin API is at http://";

/// A running gateway; it is stopped when the value is dropped.
pub(super) struct Gateway {
    process: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Gateway {
    /// Builds plugins and host, and starts the gateway with a vendor for each dialect at `upstream`.
    ///
    /// # Errors
    /// When something does not build or the gateway does not get ready.
    pub(super) fn start(workspace: &Workspace, upstream: SocketAddr) -> anyhow::Result<Self> {
        let binary = up::gateway(workspace)?;
        let folder = std::env::temp_dir().join(format!("penstock-conformance-{}", std::process::id()));
        let policies = folder.join("policies");
        fs::create_dir_all(&policies).with_context(|| format!("cannot make {}", policies.display()))?;
        fs::write(policies.join("gateway.toml"), policy(upstream))?;
        let log = fs::File::create(folder.join("log"))?;
        let process = Command::new(&binary)
            .args(["run", "--policies"])
            .arg(&policies)
            .arg("--plugins")
            .arg(workspace.shipped_dir())
            .arg("--state")
            .arg(folder.join("state"))
            .env("REPLAY_KEY", "replay")
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut gateway = Self { process, address: upstream, folder };
        gateway.wait()?;
        Ok(gateway)
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// When the connection breaks, the answer is malformed, or none comes in time.
    pub(super) fn ask(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> io::Result<Message> {
        request(self.address, &format!("{method} {path}"), media_type, body)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the gateway serves. It takes free ports and says in its log which.
    fn wait(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        while begin.elapsed() < READY_WITHIN && self.process.try_wait()?.is_none() {
            let text = log();
            if let (Some(address), Some(admin)) = (announced(&text, SERVING), announced(&text, ADMIN))
                && request(admin, "GET /readyz", "", b"").is_ok_and(|answer| answer.status() == 200)
            {
                self.address = address;
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("the gateway did not get ready:\n{}", log())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // The process may have ended by itself, and the folder is a temporary one.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn request(address: SocketAddr, line: &str, media_type: &str, body: &[u8]) -> io::Result<Message> {
    let mut connection = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    connection.set_read_timeout(Some(ANSWER_WITHIN))?;
    let kind = if media_type.is_empty() { String::new() } else { format!("content-type: {media_type}\r\n") };
    let head = format!(
        "{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{kind}\
         anthropic-version: 2023-06-01\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes())?;
    connection.write_all(body)?;
    let answer = wire::read(&mut BufReader::new(connection))?;
    answer.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "no answer"))
}

/// The vendors of the run: name, adapter, what stands behind its name in the base URL, and its configuration.
const VENDORS: &[(&str, &str, &str, &str)] = &[
    (
        "openai",
        "openai-compatible",
        "/v1",
        "paths = { responses = \"/responses\", completions = \"/completions\", realtime = \"/realtime\" }",
    ),
    ("anthropic", "anthropic", "/v1", ""),
    ("gemini", "gemini", "/v1beta", ""),
    ("cohere", "cohere", "", ""),
    ("bedrock", "bedrock", "", "region = \"us-east-1\""),
];

/// The routes of the run: path, and the dialect that is spoken there, if it is only one.
const ROUTES: &[(&str, &str)] =
    &[("/v1", ""), ("/v1beta", "gemini"), ("/v2", "cohere-v2"), ("/model", "bedrock-converse")];

fn policy(upstream: SocketAddr) -> String {
    let mut text = "[[listeners]]\naddress = \"127.0.0.1:0\"\n\n[admin]\naddress = \"127.0.0.1:0\"\n".to_owned();
    for (number, (path, dialect)) in ROUTES.iter().enumerate() {
        let dialects = if dialect.is_empty() { String::new() } else { format!("dialects = [\"{dialect}\"]\n") };
        text.push_str(&format!("\n[[routes]]\nname = \"ai-{number}\"\npath = \"{path}\"\n{dialects}"));
    }
    for (vendor, adapter, base, config) in VENDORS {
        text.push_str(&format!(
            "\n[vendors.{vendor}]\nadapter = \"{adapter}\"\nbase_url = \"http://{upstream}/{vendor}{base}\"\n\
             key = \"env:REPLAY_KEY\"\nconfig = {{ {config} }}\n"
        ));
    }
    text
}

/// The address that the log states after these words.
fn announced(log: &str, words: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(words)?;
    rest.split(['"', '\n', ' ', '\u{1b}']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_the_log() {
        let log = "{\"message\":\"serving http://127.0.0.1:4711\"}\nthe admin API is at http://127.0.0.1:9 x\n";
        assert_eq!(announced(log, SERVING), "127.0.0.1:4711".parse().ok());
        assert_eq!(announced(log, ADMIN), "127.0.0.1:9".parse().ok());
        assert_eq!(announced("", ADMIN), None);
    }
}
