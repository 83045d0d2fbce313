// SPDX-License-Identifier: Apache-2.0
//! A gateway of the release build, in front of the replaying vendor, with policies of its own.

use std::fs;
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::wire::{self, Message};
use crate::workspace::{Workspace, run};
use crate::{plugins, up};

const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A running gateway; it is stopped when the value is dropped.
pub(super) struct Gateway {
    process: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Gateway {
    /// Builds plugins and host, and starts the gateway with the vendors `openai` and `anthropic` at `upstream`.
    ///
    /// # Errors
    /// When something does not build or the gateway does not get ready.
    pub(super) fn start(workspace: &Workspace, upstream: SocketAddr) -> anyhow::Result<Self> {
        plugins::build(workspace)?;
        run(&mut up::build_host(workspace))?;
        let folder = std::env::temp_dir().join(format!("penstock-conformance-{}", std::process::id()));
        let policies = folder.join("policies");
        fs::create_dir_all(&policies).with_context(|| format!("cannot make {}", policies.display()))?;
        let (address, admin) = (free_address()?, free_address()?);
        fs::write(policies.join("gateway.toml"), policy(address, admin, upstream))?;
        let log = fs::File::create(folder.join("log"))?;
        let process = Command::new(workspace.binary())
            .args(["run", "--policies"])
            .arg(&policies)
            .arg("--plugins")
            .arg(workspace.shipped_dir())
            .arg("--state")
            .arg(folder.join("state"))
            .env("REPLAY_KEY", "replay")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", workspace.binary().display()))?;
        let mut gateway = Self { process, address, folder };
        gateway.wait(admin)?;
        Ok(gateway)
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// When the connection breaks, the answer is malformed, or none comes in time.
    pub(super) fn ask(&self, path: &str, body: &[u8]) -> io::Result<Message> {
        request(self.address, &format!("POST {path}"), body)
    }

    fn wait(&mut self, admin: SocketAddr) -> anyhow::Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < READY_WITHIN && self.process.try_wait()?.is_none() {
            if request(admin, "GET /readyz", b"").is_ok_and(|answer| answer.status() == 200) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("the gateway did not get ready:\n{}", fs::read_to_string(self.folder.join("log")).unwrap_or_default())
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

fn request(address: SocketAddr, line: &str, body: &[u8]) -> io::Result<Message> {
    let mut connection = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    connection.set_read_timeout(Some(ANSWER_WITHIN))?;
    let head = format!(
        "{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         anthropic-version: 2023-06-01\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes())?;
    connection.write_all(body)?;
    let answer = wire::read(&mut BufReader::new(connection))?;
    answer.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "no answer"))
}

fn policy(address: SocketAddr, admin: SocketAddr, upstream: SocketAddr) -> String {
    let mut text = format!(
        "[[listeners]]\naddress = \"{address}\"\n\n[admin]\naddress = \"{admin}\"\n\n\
         [[routes]]\nname = \"ai\"\npath = \"/v1\"\n"
    );
    for (vendor, adapter) in [("openai", "openai-compatible"), ("anthropic", "anthropic")] {
        text.push_str(&format!(
            "\n[vendors.{vendor}]\nadapter = \"{adapter}\"\nbase_url = \"http://{upstream}/{vendor}/v1\"\nkey = \"env:REPLAY_KEY\"\n"
        ));
    }
    text
}

/// An address that was free a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}
