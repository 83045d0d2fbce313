// SPDX-License-Identifier: Apache-2.0
//! The `penstock` program as a process, with a directory of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::caller;
use super::plugins::built as component;

/// Far more than anything here takes; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A new file that is not in force by then never will be. It takes less than a second on a machine that does nothing else;
/// how long exactly, benchmarks tell.
pub const SOON: Duration = Duration::from_secs(15);

/// Where a gateway keeps its things, and the process.
pub struct Program {
    /// Policies, plugins and state.
    pub root: tempfile::TempDir,
    /// The process.
    pub child: Child,
    log: Receiver<Value>,
    /// Where callers connect to.
    pub gateway: SocketAddr,
    /// Where the admin API is.
    pub admin: SocketAddr,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// Starts with this policy and the plugins that most tests need.
    pub fn start(policy: &str) -> Self {
        Self::run(prepared(policy))
    }

    /// Starts in a directory that is prepared.
    pub fn run(root: tempfile::TempDir) -> Self {
        let (child, log) = spawn(root.path());
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut program = Self { root, child, log, gateway: nowhere, admin: nowhere };
        program.ready();
        program
    }

    /// Kills it without a warning.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was.
    pub fn again(&mut self) {
        (self.child, self.log) = spawn(self.root.path());
        self.ready();
    }

    fn ready(&mut self) {
        self.gateway = self.announced("serving http").parse().unwrap();
        self.admin = self.announced("the admin API is at").parse().unwrap();
        self.logged("ready");
    }

    /// The next line whose message begins so.
    pub fn logged(&self, message: &str) -> Value {
        self.line(|line| line["message"].as_str().is_some_and(|text| text.starts_with(message)))
    }

    /// The next line of this kind.
    pub fn line(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let line = self.log.recv_timeout(PATIENCE.saturating_sub(begun.elapsed()));
            let line = line.unwrap_or_else(|_| panic!("the log does not have the line that is waited for"));
            if is_so(&line) {
                return line;
            }
        }
    }

    fn announced(&self, message: &str) -> String {
        self.logged(message)["address"].as_str().unwrap().to_owned()
    }

    /// Puts a plugin into the watched directory.
    pub fn plugin(&self, name: &str, bytes: &[u8]) {
        fs::write(self.root.path().join("plugins").join(format!("{name}.wasm")), bytes).unwrap();
    }

    /// Asks the admin API.
    pub async fn admin(&self, method: &str, path: &str) -> Value {
        let token = fs::read_to_string(self.root.path().join("state/admin-token")).unwrap();
        let request = http::Request::builder().method(method).uri(path).header("host", "admin");
        let request = request.header("authorization", format!("Bearer {}", token.trim())).body("".into()).unwrap();
        caller::ask(self.admin, request).await.json()
    }

    /// Asks until the answer is so, and fails if it is not soon.
    pub async fn soon(&self, what: &str, path: &str, is_so: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        loop {
            let answer = self.admin("GET", path).await;
            if is_so(&answer) {
                return;
            }
            assert!(begun.elapsed() < SOON, "{what}: {answer:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks a model to say something.
    pub async fn chat(&self, model: &str) -> caller::Reply {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hello"}]});
        caller::ask(self.gateway, caller::post("/v1/chat/completions", &body)).await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn exit_code(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "the program does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn spawn(root: &Path) -> (Child, Receiver<Value>) {
    let mut child = penstock("run", root).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (sender, log) = channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let line = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    (child, log)
}

/// A directory with policies and the plugins that they need.
pub fn prepared(policy: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for name in ["policies", "plugins", "state"] {
        fs::create_dir(root.path().join(name)).unwrap();
    }
    for name in ["echo", "openai-compatible"] {
        fs::write(root.path().join("plugins").join(format!("{name}.wasm")), component(name)).unwrap();
    }
    fs::write(root.path().join("policies/main.toml"), policy).unwrap();
    root
}

/// The program with a verb, in such a directory.
pub fn penstock(verb: &str, root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    command.arg(verb).env_remove("RUST_LOG");
    for (flag, place) in [("--policies", "policies"), ("--plugins", "plugins"), ("--state", "state")] {
        command.arg(flag).arg(root.join(place));
    }
    command
}
