// SPDX-License-Identifier: Apache-2.0
//! A Redis of the benchmark's own, and what it was asked.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

/// How long it may take to start.
const START: Duration = Duration::from_secs(10);

/// A running Redis. Dropping it ends the process.
pub struct Redis {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Redis {
    /// Starts one; none if there is no `redis-server` on this machine.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()]);
        let spawned = command.current_dir(&folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let Ok(child) = spawned else { return Ok(None) };
        let redis = Self { child, port, _folder: folder };
        let begun = Instant::now();
        while redis.ask("PING").is_err() {
            if begun.elapsed() > START {
                bail!("redis-server does not answer");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(redis))
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Scripts that it has run so far: those that decide, and those that settle.
    pub fn scripts(&self) -> anyhow::Result<u64> {
        let told = self.ask("INFO commandstats")?;
        let calls = |name: &str| -> Option<u64> {
            let line = told.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")))?;
            line.split(',').next()?.parse().ok()
        };
        Ok(calls("evalsha").unwrap_or_default() + calls("eval").unwrap_or_default())
    }

    fn ask(&self, command: &str) -> anyhow::Result<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
        let mut told = String::new();
        for line in BufReader::new(socket).lines() {
            told.push_str(&line.context("Redis broke off")?);
            told.push('\n');
        }
        Ok(told)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
