// SPDX-License-Identifier: Apache-2.0
//! What is asked of the cluster's Redis, and under which keys it stands. All keys have one hash tag, so that they lie in one
//! slot; every change is one script.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Cmd, Script, ScriptInvocation};

use super::entry::ENTRY_BYTES_MAX;
use crate::clock;
use crate::state::link::{Link, Server};

/// Changes that are kept to be told one by one; a node that is further behind reads everything.
const LOG_MAX: usize = 10_000;
/// Changes that are told at once.
const TOLD_MAX: usize = 500;
/// Lines of the audit log that a new node gets; each node keeps more.
const LINES_MAX: usize = 100_000;
/// Entries or lines of one question.
const CHUNK: usize = 200;
/// How long a component may take.
const COMPONENT: Duration = Duration::from_secs(30);
/// A component that no entry refers to goes after this many seconds.
pub(super) const UNUSED_S: u64 = 86_400;

/// The store of a cluster.
pub(super) struct Wire {
    link: Link,
    tag: String,
    within: Duration,
    scripts: Scripts,
}

macro_rules! scripts {
    ($($name:ident)*) => {
        struct Scripts { $($name: Script,)* }

        impl Scripts {
            fn new() -> Self {
                Self { $($name: Script::new(include_str!(concat!("scripts/", stringify!($name), ".lua"))),)* }
            }
        }
    };
}

scripts! { beat component lead look nodes read release restore sweep write }

/// A change of the cluster: its number and a random head, which tells it from another one of the same number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) number: u64,
    pub(super) head: String,
}

/// What a node finds.
pub(super) struct Look {
    pub(super) epoch: String,
    pub(super) check: String,
    pub(super) last: Position,
    /// Names of entries that have changed; none for everything.
    pub(super) changed: Option<Vec<String>>,
}

/// An entry on its way: name, whether it is no more, digest of its component, content.
pub(super) struct Sent {
    pub(super) name: String,
    pub(super) gone: bool,
    pub(super) component: Option<String>,
    pub(super) content: Vec<u8>,
}

/// What came of a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is the last one now.
    Done,
    /// Others came before.
    Behind,
    /// Another cluster is there.
    Other,
    /// A component that an entry refers to is not there.
    Missing,
}

/// Every node: now in milliseconds, who leads with which token, the last change, and what nodes say of themselves.
pub(super) struct Nodes {
    pub(super) now_ms: u64,
    pub(super) lease: String,
    pub(super) number: u64,
    pub(super) nodes: Vec<(String, String)>,
}

/// Where in a restoration a question is.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Begin,
    Middle,
    End,
}

impl Wire {
    pub(super) fn new(server: &Server, prefix: &str, within: Duration) -> Result<Self, String> {
        let tag = format!("{{{prefix}}}:cluster:");
        Ok(Self { link: Link::new(server)?, tag, within, scripts: Scripts::new() })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.tag)
    }

    /// The keys that a change is about, in the order in which the scripts have them.
    fn of_change<'s>(&self, script: &'s Script) -> ScriptInvocation<'s> {
        let mut script = script.prepare_invoke();
        for key in ["meta", "entries", "log", "gone", "refs", "audit"] {
            script.key(self.key(key));
        }
        script
    }

    /// Leaves the connection for a new one.
    pub(super) fn renew(&self) {
        self.link.renew();
    }

    /// Wakes somebody at every change that is announced, until the connection breaks.
    pub(super) async fn listen(&self, wake: &tokio::sync::Notify) -> Result<(), String> {
        self.link.listen(&self.key("changed"), wake).await
    }

    /// What has changed since; none if there is no cluster.
    pub(super) async fn look(&self, since: &Position) -> Result<Option<Look>, String> {
        let mut script = self.scripts.look.prepare_invoke();
        script.key(self.key("meta")).key(self.key("log")).arg(since.number).arg(&since.head).arg(TOLD_MAX);
        let answer: Vec<String> = self.link.ask(&script, self.within).await?;
        let [epoch, check, number, head, how, changes @ ..] = answer.as_slice() else {
            return if answer.is_empty() { Ok(None) } else { Err("the cluster in Redis is damaged".to_owned()) };
        };
        let number = number.parse().map_err(|_| "the cluster in Redis is damaged: no number of changes".to_owned())?;
        let last = Position { number, head: head.clone() };
        let changed = match how.as_str() {
            "same" => Some(Vec::new()),
            "some" => Some(changes.iter().flat_map(|change| change.lines().skip(1)).map(str::to_owned).collect()),
            _ => None,
        };
        Ok(Some(Look { epoch: epoch.clone(), check: check.clone(), last, changed }))
    }

    /// Names of all entries.
    pub(super) async fn names(&self) -> Result<Vec<String>, String> {
        self.link.command(redis::cmd("HKEYS").arg(self.key("entries")), COMPONENT).await
    }

    /// Entries by name, as they are kept; empty for one that is not there.
    pub(super) async fn read(&self, names: &[String]) -> Result<Vec<Vec<u8>>, String> {
        let mut entries = Vec::with_capacity(names.len());
        for some in names.chunks(CHUNK) {
            let mut script = self.scripts.read.prepare_invoke();
            script.key(self.key("entries")).arg(ENTRY_BYTES_MAX);
            for name in some {
                script.arg(name);
            }
            let answer: Vec<Vec<u8>> = self.link.ask(&script, COMPONENT).await?;
            if answer.len() != some.len() {
                return Err("the answer of Redis is too short".to_owned());
            }
            entries.extend(answer);
        }
        Ok(entries)
    }

    /// Lines of the audit log after one, with their numbers; so many at most.
    pub(super) async fn lines(&self, after: u64) -> Result<Vec<(Vec<u8>, u64)>, String> {
        let mut lines = redis::cmd("ZRANGEBYSCORE");
        lines.arg(self.key("audit")).arg(after + 1).arg("+inf").arg("WITHSCORES").arg("LIMIT").arg(0).arg(CHUNK);
        self.link.command(&lines, COMPONENT).await
    }

    /// Makes a change upon the one before it.
    pub(super) async fn write(
        &self,
        epoch: &str,
        before: u64,
        head: &str,
        entries: &[Sent],
        lines: &[(u64, Vec<u8>)],
    ) -> Result<Written, String> {
        let mut script = self.of_change(&self.scripts.write);
        for component in entries.iter().filter_map(|entry| entry.component.as_ref()) {
            script.key(self.component_key(component));
        }
        script
            .arg(epoch)
            .arg(before)
            .arg(head)
            .arg(self.key("changed"))
            .arg(clock::unix_ms())
            .arg(LOG_MAX)
            .arg(LINES_MAX);
        add(&mut script, entries, lines);
        let (code, _): (i64, u64) = self.link.ask(&script, self.within).await?;
        match code {
            0 => Ok(Written::Done),
            -1 => Ok(Written::Behind),
            -2 => Ok(Written::Other),
            -3 => Ok(Written::Missing),
            other => Err(format!("Redis answers {other} to a change")),
        }
    }

    /// Gives back what the store has lost. False: another cluster is there.
    pub(super) async fn restore(
        &self,
        (epoch, check): (&str, &str),
        last: &Position,
        part: Part,
        entries: &[Sent],
        lines: &[(u64, Vec<u8>)],
    ) -> Result<bool, String> {
        let part = match part {
            Part::Begin => "begin",
            Part::Middle => "middle",
            Part::End => "end",
        };
        let mut script = self.of_change(&self.scripts.restore);
        script
            .arg(epoch)
            .arg(check)
            .arg(last.number)
            .arg(&last.head)
            .arg(self.key("changed"))
            .arg(part)
            .arg(clock::unix_ms());
        add(&mut script, entries, lines);
        let code: i64 = self.link.ask(&script, COMPONENT).await?;
        Ok(code == 0)
    }

    /// Puts a component there, for an entry that is to refer to it.
    pub(super) async fn put_component(&self, digest: &str, bytes: &[u8]) -> Result<(), String> {
        let mut script = self.scripts.component.prepare_invoke();
        script.key(self.component_key(digest)).key(self.key("stored")).arg(digest).arg(bytes).arg(UNUSED_S);
        self.link.ask(&script, COMPONENT).await
    }

    /// A component; none if it is not there, or is larger than so many bytes.
    pub(super) async fn component(&self, digest: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, String> {
        let key = self.component_key(digest);
        let length: usize = self.link.command(redis::cmd("STRLEN").arg(&key), self.within).await?;
        if length == 0 || length > bytes_max {
            return Ok(None);
        }
        self.link.command(redis::cmd("GET").arg(&key), COMPONENT).await
    }

    /// Takes the lead; none if somebody has it.
    pub(super) async fn lead(&self, node: &str, lease: Duration) -> Result<Option<u64>, String> {
        let mut script = self.scripts.lead.prepare_invoke();
        script.key(self.key("lease")).key(self.key("fence")).arg(node).arg(clock::millis(lease));
        let token: u64 = self.link.ask(&script, self.within).await?;
        Ok(Some(token).filter(|token| *token > 0))
    }

    /// Does the leader's work and renews its lease. None: the token is not the newest, and nothing was done.
    pub(super) async fn sweep(
        &self,
        node: &str,
        token: u64,
        lease: Duration,
        kept: &Kept,
    ) -> Result<Option<u64>, String> {
        let stored: Vec<String> =
            self.link.command(redis::cmd("SMEMBERS").arg(self.key("stored")), self.within).await?;
        let used: Vec<String> = self.link.command(redis::cmd("HVALS").arg(self.key("refs")), self.within).await?;
        let unused: Vec<_> = stored.into_iter().filter(|digest| !used.contains(digest)).take(CHUNK).collect();
        let mut script = self.scripts.sweep.prepare_invoke();
        for key in ["lease", "fence", "entries", "gone", "refs", "stored", "nodes", "beats"] {
            script.key(self.key(key));
        }
        for digest in &unused {
            script.key(self.component_key(digest));
        }
        script.arg(node).arg(token).arg(clock::millis(lease)).arg(clock::unix_ms());
        script.arg(clock::millis(kept.removed)).arg(clock::millis(kept.nodes)).arg(kept.beats.as_secs()).arg(UNUSED_S);
        for digest in &unused {
            script.arg(digest);
        }
        let done: i64 = self.link.ask(&script, self.within).await?;
        Ok(u64::try_from(done).ok())
    }

    /// Gives the lead back.
    pub(super) async fn release(&self, node: &str, token: u64) -> Result<(), String> {
        let mut script = self.scripts.release.prepare_invoke();
        script.key(self.key("lease")).arg(node).arg(token);
        self.link.ask(&script, self.within).await
    }

    /// Tells that a node is there and what it has heard of services; answers with what others have heard.
    pub(super) async fn beat(
        &self,
        node: &str,
        shown: &str,
        heard: &HashMap<String, u64>,
        since_s: u64,
    ) -> Result<Vec<(String, u64)>, String> {
        let mut script = self.scripts.beat.prepare_invoke();
        script.key(self.key("nodes")).key(self.key("beats")).arg(node).arg(shown).arg(since_s);
        for (service, at) in heard {
            script.arg(service).arg(at);
        }
        self.link.ask(&script, self.within).await
    }

    /// Every node that is known.
    pub(super) async fn nodes(&self) -> Result<Nodes, String> {
        let mut script = self.scripts.nodes.prepare_invoke();
        script.key(self.key("nodes")).key(self.key("lease")).key(self.key("meta"));
        let answer: Vec<String> = self.link.ask(&script, self.within).await?;
        let [now, lease, number, nodes @ ..] = answer.as_slice() else {
            return Err("the answer of Redis is too short".to_owned());
        };
        let pair = |pair: &[String]| Some((pair.first()?.clone(), pair.get(1)?.clone()));
        Ok(Nodes {
            now_ms: now.parse().unwrap_or(0),
            lease: lease.clone(),
            number: number.parse().unwrap_or(0),
            nodes: nodes.chunks(2).filter_map(pair).collect(),
        })
    }

    /// Puts sums of usage there: day, field and sum of each.
    pub(super) async fn put_usage(&self, rows: &[(u64, String, String)], kept: Duration) -> Result<(), String> {
        let mut days: HashMap<u64, Vec<(&str, &str)>> = HashMap::new();
        for (day, field, sum) in rows {
            days.entry(*day).or_default().push((field, sum));
        }
        for (day, rows) in days {
            let key = self.key(&format!("usage:{day}"));
            for some in rows.chunks(CHUNK) {
                let mut put: Cmd = redis::cmd("HSET");
                put.arg(&key);
                for (field, sum) in some {
                    put.arg(field).arg(sum);
                }
                let _: u64 = self.link.command(&put, self.within).await?;
            }
            let _: u64 = self.link.command(redis::cmd("EXPIRE").arg(&key).arg(kept.as_secs()), self.within).await?;
        }
        Ok(())
    }

    /// Sums of usage of a day, by field.
    pub(super) async fn usage(&self, day: u64) -> Result<Vec<(String, String)>, String> {
        self.link.command(redis::cmd("HGETALL").arg(self.key(&format!("usage:{day}"))), self.within).await
    }

    fn component_key(&self, digest: &str) -> String {
        self.key(&format!("component:{digest}"))
    }
}

/// How long the leader keeps what is over.
pub(super) struct Kept {
    /// Entries that were removed: a node that was away for longer reads everything.
    pub(super) removed: Duration,
    /// Nodes that are silent.
    pub(super) nodes: Duration,
    /// When services were heard of.
    pub(super) beats: Duration,
}

fn add(script: &mut ScriptInvocation<'_>, entries: &[Sent], lines: &[(u64, Vec<u8>)]) {
    script.arg(entries.len());
    for Sent { name, gone, component, content } in entries {
        script.arg(name).arg(u8::from(*gone)).arg(component.as_deref().unwrap_or_default()).arg(content.as_slice());
    }
    for (number, content) in lines {
        script.arg(number).arg(content.as_slice());
    }
}
