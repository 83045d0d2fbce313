// SPDX-License-Identifier: Apache-2.0
//! Runs a plugin's golden cases natively, as one of its tests. What is tested is the author's type; `penstock plugin test`
//! runs the same cases with the component in the real host.
//!
//! ```ignore
//! #[test]
//! fn golden_cases_pass() {
//!     penstock_sdk::testkit::run_cases::<MyPlugin>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
//! }
//! ```
//!
//! With `PENSTOCK_BLESS=1` in the environment the outcomes are written into the case files as what is expected from now on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use penstock_dialects::framing::{Frame, Kind};
use penstock_dialects::ir::Event;
use penstock_vectors::case::{self, Ask, Case, Pairs as CasePairs};
use penstock_vectors::run::{Failed, Plan, Unfit, Upstream, outcome, run};
use penstock_vectors::{Outcome, Subject};
use serde_json::{Value, json};

use crate::adapter::{self, Adapter, Answer, Exchange};
use crate::call::{Call, Pairs, Wants};
use crate::config::{Config, Issue, Reader};
use crate::order::Share;
use crate::policy::{Auth, Filter, Head, Limits, ResponseFilter, Routing, Target};
use crate::{rules, secrets};

/// A type that one of the SDK's macros exports; the macros implement it.
pub trait Plugin {
    /// The plugin as the runner of cases sees it.
    type Subject: Subject + Default;
}

/// Runs every case of a folder.
///
/// # Panics
/// If a case cannot be read or does not pass, with everything that differs.
#[allow(clippy::panic, reason = "a test reports its failure so")]
pub fn run_cases<P: Plugin>(folder: impl AsRef<Path>) {
    let bless = std::env::var_os("PENSTOCK_BLESS").is_some();
    let files = Case::files(folder.as_ref()).unwrap_or_else(|why| panic!("{why}"));
    let mut report = String::new();
    for file in files {
        let result = if bless { bless_case::<P>(&file) } else { run_case::<P>(&file) };
        if let Err(why) = result {
            report.push_str(&format!("\n{}\n  {}\n", file.display(), why.join("\n  ")));
        }
    }
    assert!(report.is_empty(), "golden cases do not pass:\n{report}");
}

/// Puts virtual keys, by what a caller presents, before what runs in this thread.
pub fn virtual_keys(keys: impl IntoIterator<Item = (String, crate::virtual_keys::VirtualKey)>) {
    crate::virtual_keys::imp::put(keys.into_iter().collect());
}

/// Grants secrets to what runs in this thread, for tests without a case: of signatures, for one.
pub fn grant<'s, B: AsRef<[u8]>>(granted: impl IntoIterator<Item = (&'s str, B)>) {
    secrets::imp::grant(granted.into_iter().map(|(name, bytes)| (name.to_owned(), bytes.as_ref().to_vec())).collect());
}

/// Puts answers of others before what runs in this thread; see [`crate::documents`].
pub fn documents(known: Vec<case::Document>) {
    crate::documents::imp::give(known);
}

fn run_case<P: Plugin>(file: &Path) -> Result<Outcome, Vec<String>> {
    let case = Case::read(file).map_err(|why| vec![why])?;
    run(&case, &mut P::Subject::default())
}

/// Writes the parts of the outcome that the case names, or all of them if it names none.
fn bless_case<P: Plugin>(file: &PathBuf) -> Result<Outcome, Vec<String>> {
    let refuse = |error: &dyn std::fmt::Display| vec![error.to_string()];
    let case = Case::read(file).map_err(|why| vec![why])?;
    let outcome = outcome(&case, &mut P::Subject::default()).map_err(|why| vec![why])?;
    let named = |part: &String| case.expect.is_empty() || case.expect.contains_key(part) || part == "fault";
    let mut expect: Outcome =
        outcome.iter().filter(|(part, _)| named(part)).map(|(part, value)| (part.clone(), value.clone())).collect();
    if expect.contains_key("events") && case.expect.is_empty() {
        expect.remove("response");
    }
    let text = std::fs::read_to_string(file).map_err(|error| refuse(&error))?;
    let mut written: Value = serde_json::from_str(&text).map_err(|error| refuse(&error))?;
    written["expect"] = Value::Object(expect);
    let mut text = serde_json::to_string_pretty(&written).map_err(|error| refuse(&error))?;
    text.push('\n');
    std::fs::write(file, text).map_err(|error| refuse(&error))?;
    Ok(outcome)
}

/// An adapter under test.
#[derive(Debug)]
pub struct AdapterSubject<T: Adapter> {
    plugin: Option<T>,
    exchange: Option<T::Exchange>,
}

impl<T: Adapter> Default for AdapterSubject<T> {
    fn default() -> Self {
        Self { plugin: None, exchange: None }
    }
}

impl<T: Adapter> Subject for AdapterSubject<T> {
    fn configure(&mut self, config: &Value, secrets: &BTreeMap<String, String>) -> Result<Value, Unfit> {
        configure(config, secrets, &mut self.plugin, T::new, T::wants)
    }

    fn ask(&mut self, call: &case::Call, ask: &Ask) -> Result<Value, Failed> {
        let plugin = self.plugin.as_ref().ok_or_else(unconfigured)?;
        match ask {
            Ask::Relay { headers, members } => {
                let members: Vec<_> = members.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
                let upstream = plugin.relay(&call.into(), &headers.into(), &members.into());
                upstream.map(|upstream| json!(upstream)).map_err(Failed::Fault)
            }
            Ask::Reject(answer) => Ok(json!(plugin.reject(answer.status, &(&answer.headers).into(), &answer.bytes()))),
            other => Err(not_of_this_kind(other)),
        }
    }

    fn open(
        &mut self,
        call: &case::Call,
        headers: &CasePairs,
        body: &[u8],
        blobs: &[case::Blob],
    ) -> Result<Plan, Failed> {
        let plugin = self.plugin.as_ref().ok_or_else(unconfigured)?;
        let blobs: Vec<_> = blobs.iter().map(Into::into).collect();
        let (exchange, plan) = plugin.open(&call.into(), &headers.into(), body, &blobs).map_err(Failed::Fault)?;
        self.exchange = Some(exchange);
        Ok(match plan {
            adapter::Plan::Ask(upstream) => Plan::Ask(asked(&upstream)?),
            adapter::Plan::Answer(events) => Plan::Answer(events),
        })
    }

    fn frames(&mut self, frames: &[Frame<'_>]) -> Result<Vec<Event>, Failed> {
        let exchange = self.exchange.as_mut().ok_or_else(unconfigured)?;
        let mut events = Vec::new();
        for frame in frames {
            exchange.frame(frame, &mut events).map_err(Failed::Fault)?;
        }
        Ok(events)
    }

    fn finish(
        &mut self,
        status: u16,
        headers: &CasePairs,
        body: &[u8],
    ) -> Result<(Vec<Event>, Option<Upstream>), Failed> {
        let exchange = self.exchange.as_mut().ok_or_else(unconfigured)?;
        let headers = Pairs::from(headers);
        let mut events = Vec::new();
        let next = exchange.finish(&Answer { status, headers: &headers, body }, &mut events).map_err(Failed::Fault)?;
        Ok((events, next.as_ref().map(asked).transpose()?))
    }
}

fn asked(upstream: &adapter::Upstream) -> Result<Upstream, Failed> {
    let framing = match upstream.framing {
        adapter::Framing::Whole => None,
        adapter::Framing::Sse => Some(Kind::Sse),
        adapter::Framing::JsonLines => Some(Kind::JsonLines),
        adapter::Framing::JsonArray => Some(Kind::JsonArray),
        adapter::Framing::AwsEventStream => Some(Kind::AwsEventStream),
    };
    Ok(Upstream { json: json!(upstream), framing })
}

macro_rules! policy_subject {
    ($(#[$doc:meta])* $subject:ident, $kind:ident, $wants:expr, $ask:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $subject<T: $kind>(Option<T>);

        impl<T: $kind> Default for $subject<T> {
            fn default() -> Self {
                Self(None)
            }
        }

        impl<T: $kind> Subject for $subject<T> {
            fn configure(&mut self, config: &Value, secrets: &BTreeMap<String, String>) -> Result<Value, Unfit> {
                configure(config, secrets, &mut self.0, T::new, $wants)
            }

            fn ask(&mut self, call: &case::Call, ask: &Ask) -> Result<Value, Failed> {
                let plugin = self.0.as_ref().ok_or_else(unconfigured)?;
                let answer: fn(&T, &Call, &Ask) -> Result<Value, Failed> = $ask;
                answer(plugin, &call.into(), ask)
            }

            fn open(&mut self, _: &case::Call, _: &CasePairs, _: &[u8], _: &[case::Blob]) -> Result<Plan, Failed> {
                Err(no_adapter())
            }

            fn frames(&mut self, _: &[Frame<'_>]) -> Result<Vec<Event>, Failed> {
                Err(no_adapter())
            }

            fn finish(
                &mut self,
                _: u16,
                _: &CasePairs,
                _: &[u8],
            ) -> Result<(Vec<Event>, Option<Upstream>), Failed> {
                Err(no_adapter())
            }
        }
    };
}

policy_subject!(
    /// An auth plugin under test.
    AuthSubject,
    Auth,
    T::wants,
    |plugin, call, ask| match ask {
        Ask::Authenticate { headers, documents } => {
            crate::documents::imp::give(documents.clone());
            plugin.authenticate(call, &headers.into()).map(|grant| json!(grant)).map_err(Failed::Fault)
        }
        other => Err(not_of_this_kind(other)),
    }
);

policy_subject!(
    /// A limits plugin under test.
    LimitsSubject,
    Limits,
    |_: &T| Wants::nothing(),
    |plugin, call, ask| match ask {
        Ask::Plan { rules } => {
            rules::imp::give(rules);
            plugin.plan(call).map(|checks| json!(checks)).map_err(Failed::Fault)
        }
        other => Err(not_of_this_kind(other)),
    }
);

policy_subject!(
    /// A routing plugin under test.
    RoutingSubject,
    Routing,
    T::wants,
    |plugin, call, ask| match ask {
        Ask::Rank { targets, seed } => {
            let targets: Vec<Target> = targets.iter().map(Into::into).collect();
            let order = plugin.rank(call, &targets, *seed).map_err(Failed::Fault)?;
            Ok(json!(order.groups().iter().map(|group| group_json(group)).collect::<Vec<_>>()))
        }
        other => Err(not_of_this_kind(other)),
    }
);

fn group_json(group: &[Share]) -> Value {
    case::group(&group.iter().map(|share| (share.target, share.weight)).collect::<Vec<_>>())
}

policy_subject!(
    /// A filter under test.
    FilterSubject,
    Filter,
    T::wants,
    |plugin, call, ask| match ask {
        Ask::RequestHead { method, path, headers } => {
            let headers = Pairs::from(headers);
            let verdict = plugin.request_head(call, &Head { method, path, headers: &headers });
            verdict.map(|verdict| json!(verdict)).map_err(Failed::Fault)
        }
        other => Err(not_of_this_kind(other)),
    }
);

policy_subject!(
    /// A filter of requests and answers under test.
    ResponseFilterSubject,
    ResponseFilter,
    T::wants,
    |plugin, call, ask| match ask {
        Ask::RequestHead { method, path, headers } => {
            let headers = Pairs::from(headers);
            let verdict = plugin.request_head(call, &Head { method, path, headers: &headers });
            verdict.map(|verdict| json!(verdict)).map_err(Failed::Fault)
        }
        Ask::ResponseHead { status, headers } =>
            plugin.response_head(call, *status, &headers.into()).map(|edits| json!(edits)).map_err(Failed::Fault),
        other => Err(not_of_this_kind(other)),
    }
);

fn configure<T, C: Config>(
    config: &Value,
    granted: &BTreeMap<String, String>,
    plugin: &mut Option<T>,
    new: impl FnOnce(C) -> Result<T, Vec<Issue>>,
    wants: impl FnOnce(&T) -> Wants,
) -> Result<Value, Unfit> {
    grant(granted.iter().map(|(name, text)| (name.as_str(), text)));
    let made = Reader::read(config).and_then(new).map_err(|issues| Unfit::Issues(json!(issues)))?;
    let Wants { headers, response_headers, members, facts: _, without: _, alike: _ } = wants(&made);
    let wants = json!({
        "headers": sorted(headers),
        "response_headers": sorted(response_headers),
        "members": sorted(members),
    });
    *plugin = Some(made);
    Ok(wants)
}

/// As the host keeps them.
fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names.dedup();
    names
}

fn unconfigured() -> Failed {
    Failed::Broken("it was called before it was configured".to_owned())
}

fn no_adapter() -> Failed {
    Failed::Broken("only an adapter has exchanges".to_owned())
}

fn not_of_this_kind(ask: &Ask) -> Failed {
    Failed::Broken(format!("a plugin of this kind cannot be asked this: {ask:?}"))
}

impl From<&case::Call> for Call {
    fn from(call: &case::Call) -> Self {
        let call = call.clone();
        Self {
            id: call.id,
            operation: call.operation,
            dialect: call.dialect,
            model: call.model,
            streaming: call.streaming,
            attempt: call.attempt,
            deadline_ms: call.deadline_ms,
            subject: call.subject,
            tenant: call.tenant,
            facts: call.facts.0,
        }
    }
}

impl From<&CasePairs> for Pairs {
    fn from(pairs: &CasePairs) -> Self {
        pairs.0.clone().into()
    }
}

impl From<&case::Blob> for adapter::Blob {
    fn from(blob: &case::Blob) -> Self {
        Self { marker: blob.marker.clone(), media_type: blob.media_type.clone(), length: blob.length }
    }
}

impl From<&case::Target> for Target {
    fn from(target: &case::Target) -> Self {
        let target = target.clone();
        Self {
            id: target.id,
            vendor: target.vendor,
            model: target.model,
            weight: target.weight,
            priority: target.priority,
            healthy: target.healthy,
            latency_ms: target.latency_ms,
            inflight: target.inflight,
            facts: target.facts.0,
        }
    }
}
