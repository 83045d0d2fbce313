// SPDX-License-Identifier: Apache-2.0
//! A real redis-server on loopback, with a directory of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server, and its data, which outlive a kill.
pub struct RedisServer {
    folder: tempfile::TempDir,
    child: Child,
    address: SocketAddr,
}

impl RedisServer {
    /// Starts a server; none, and a line that says so, if the machine has none.
    pub fn start(test: &str) -> Option<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            say(&format!("SKIPPED {test}: there is no redis-server here; install it (Debian: redis-server)"));
            return None;
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let folder = tempfile::tempdir().unwrap();
        let child = spawn(folder.path(), address, &[]);
        let server = Self { folder, child, address };
        server.ready();
        Some(server)
    }

    /// The same with TLS and a password; also the PEM with the root of trust.
    pub fn start_guarded(test: &str, password: &str) -> Option<(Self, Vec<u8>)> {
        let mut server = Self::start(test)?;
        server.kill();
        let issued = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let file = |name: &str, text: String| {
            let path = server.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (certificate, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
        let (cert_file, key_file) = (file("tls.crt", certificate.clone()), file("tls.key", key));
        let port = server.address.port().to_string();
        let tls = ["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no", "--requirepass", password];
        let files = ["--tls-cert-file", &cert_file, "--tls-key-file", &key_file, "--tls-ca-cert-file", &cert_file];
        server.child = spawn(server.folder.path(), server.address, &[&tls[..], &files[..]].concat());
        let begun = Instant::now();
        while TcpStream::connect(server.address).is_err() {
            if server.child.try_wait().unwrap().is_some() {
                say(&format!("SKIPPED {test}: the redis-server here is built without TLS"));
                return None;
            }
            assert!(begun.elapsed() < PATIENCE, "redis-server does not begin");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some((server, certificate.into_bytes()))
    }

    /// Its address for a policy.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Where it keeps its data.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Runs one command of its protocol.
    pub fn run<T: redis::FromRedisValue>(&self, command: &[&[u8]]) -> T {
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        let mut words = command.iter();
        let mut asked = redis::cmd(std::str::from_utf8(words.next().unwrap()).unwrap());
        for word in words {
            asked.arg(*word);
        }
        asked.query(&mut connection).unwrap()
    }

    /// Kills it without a warning.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again with what it has on the disk.
    pub fn again(&mut self) {
        self.child = spawn(self.folder.path(), self.address, &[]);
        self.ready();
    }

    /// Stops it: connections stay, and nothing is answered.
    pub fn freeze(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    fn ready(&self) {
        let begun = Instant::now();
        while !self.answers() {
            assert!(begun.elapsed() < PATIENCE, "redis-server does not begin");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn answers(&self) -> bool {
        use std::io::{Read, Write};
        let Ok(mut connection) = TcpStream::connect(self.address) else { return false };
        connection.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut answer = [0; 5];
        connection.write_all(b"PING\r\n").is_ok() && connection.read_exact(&mut answer).is_ok() && &answer == b"+PONG"
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Past the test runner, which shows what a test prints only if it fails.
fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn spawn(folder: &std::path::Path, address: SocketAddr, further: &[&str]) -> Child {
    Command::new("redis-server")
        .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
        .args(["--dir", &folder.display().to_string()])
        .args(further)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
