// SPDX-License-Identifier: Apache-2.0
//! Answers of plugins that need not be asked for again. A plugin may say in what calls have to agree to be answered alike
//! (`lifecycle.want`, kind "alike"); then calls that agree in that are answered by the host, and no guest is entered.
//!
//! The whole of what calls agree in is the key, compared byte by byte: there is no digest that somebody could meet. Only
//! answers are kept, never faults. What is kept is forgotten at once when there is too much of it: callers choose the keys.

use std::cell::RefCell;
use std::sync::Arc;

use foldhash::quality::RandomState;

use super::types::{Alike, Call, CallError, Candidate, Pair, Part, Rule};

/// Answers that are kept for one plugin.
const ANSWERS_MAX: usize = 2_048;
/// Bytes of a key that is kept.
const KEY_BYTES_MAX: usize = 2_048;

thread_local! {
    static KEY: RefCell<Key> = const { RefCell::new(Key(Vec::new())) };
}

/// Answers of one configured plugin to one function.
pub(super) struct Memo<A> {
    alike: Option<Alike>,
    answers: papaya::HashMap<Box<[u8]>, Arc<A>, RandomState>,
    is_small: fn(&A) -> bool,
}

/// What a plugin is asked about.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked<'a> {
    pub(super) call: Call<'a>,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// Those that the plugin wants.
    pub(super) headers: &'a [Pair<'a>],
    /// Those that the plugin wants.
    pub(super) members: &'a [Pair<'a>],
    pub(super) rules: &'a [Rule],
    pub(super) candidates: &'a [Candidate<'a>],
    /// What the host adds to tell one question from another.
    pub(super) place: &'a str,
}

impl<A> Memo<A> {
    /// Keeps nothing if the plugin does not say what calls have to agree in; keeps no answer that is not small.
    pub(super) fn new(alike: Option<Alike>, is_small: fn(&A) -> bool) -> Self {
        Self { alike, answers: papaya::HashMap::default(), is_small }
    }

    /// The answer that is kept, or what `ask` answers.
    pub(super) fn answer(
        &self,
        asked: &Asked<'_>,
        ask: impl FnOnce() -> Result<A, CallError>,
    ) -> Result<Arc<A>, CallError> {
        let Some(alike) = &self.alike else { return ask().map(Arc::new) };
        let kept = KEY.with_borrow_mut(|key| {
            key.write(alike, asked);
            self.answers.pin().get(key.0.as_slice()).map(Arc::clone).ok_or_else(|| Box::from(key.0.as_slice()))
        });
        match kept {
            Ok(answer) => Ok(answer),
            Err(key) => ask().map(|answer| self.keep(key, answer)),
        }
    }

    fn keep(&self, key: Box<[u8]>, answer: A) -> Arc<A> {
        let keeps = key.len() <= KEY_BYTES_MAX && (self.is_small)(&answer);
        let answer = Arc::new(answer);
        if keeps {
            let answers = self.answers.pin();
            if answers.len() >= ANSWERS_MAX {
                answers.clear();
            }
            answers.insert(key, Arc::clone(&answer));
        }
        answer
    }
}

/// Texts one after another, each after its length, so that no two lists of texts are written alike.
struct Key(Vec<u8>);

impl Key {
    fn write(&mut self, alike: &Alike, asked: &Asked<'_>) {
        self.0.clear();
        self.text(asked.place);
        self.pairs(asked.headers);
        self.pairs(asked.members);
        self.candidates(asked.candidates);
        for part in &alike.0 {
            self.part(part, asked);
        }
    }

    fn part(&mut self, part: &Part, asked: &Asked<'_>) {
        let call = &asked.call;
        match part {
            Part::Operation => self.text(call.operation),
            Part::Dialect => self.text(call.dialect),
            Part::Model => self.text(call.model),
            Part::Streaming => self.number(call.streaming.into()),
            Part::Attempt => self.number(call.attempt.into()),
            Part::Subject => self.maybe(call.subject),
            Part::Tenant => self.maybe(call.tenant),
            Part::Caller => match call.subject {
                Some(_) => self.maybe(call.subject),
                None => self.facts(call, "client-ip"),
            },
            Part::Method => self.text(asked.method),
            Part::Path => self.text(asked.path),
            Part::Rules => self.rules(asked.rules),
            Part::Load => {}
            Part::Fact(name) => self.facts(call, name),
        }
    }

    /// Every value of a fact: a name may repeat.
    fn facts(&mut self, call: &Call<'_>, name: &str) {
        for (_, value) in call.facts.iter().filter(|(fact, _)| *fact == name) {
            self.maybe(Some(value));
        }
        self.maybe(None);
    }

    fn rules(&mut self, rules: &[Rule]) {
        self.number(rules.len() as u64);
        for Rule { scope, algorithm, counted, limit, window_ms, burst, label } in rules {
            for text in [scope, algorithm.name(), counted.name(), label] {
                self.text(text);
            }
            for number in [*limit, *window_ms, *burst] {
                self.number(number);
            }
        }
    }

    /// Without how fast and how busy they are, which differs each time.
    fn candidates(&mut self, candidates: &[Candidate<'_>]) {
        for Candidate { id, vendor, model, weight, priority, healthy, latency_ms: _, inflight: _, facts } in candidates
        {
            for text in [id, vendor, model] {
                self.text(text);
            }
            self.number(u64::from(*weight) << 32 | u64::from(*priority));
            self.0.push((*healthy).into());
            self.pairs(facts);
        }
    }

    fn pairs(&mut self, pairs: &[Pair<'_>]) {
        self.number(pairs.len() as u64);
        for (name, value) in pairs {
            self.text(name);
            self.text(value);
        }
    }

    fn maybe(&mut self, text: Option<&str>) {
        self.0.push(text.is_some().into());
        if let Some(text) = text {
            self.text(text);
        }
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alike(names: &[&str]) -> Alike {
        Alike(names.iter().map(|name| Part::of_name(name).unwrap()).collect())
    }

    fn memo(names: &[&str]) -> Memo<u32> {
        Memo::new(Some(alike(names)), |_| true)
    }

    #[test]
    fn calls_that_agree_are_asked_about_once() {
        let memo = memo(&["model", "caller", "fact.route"]);
        let mut count = 0;
        let mut ask = |call: Call<'_>| {
            let answer = memo.answer(&Asked { call, ..Asked::default() }, || {
                count += 1;
                Ok(count)
            });
            *answer.unwrap()
        };
        let here = [("route", "a"), ("client-ip", "::1")];
        let there = [("route", "a"), ("client-ip", "::2")];
        let elsewhere = [("route", "b"), ("client-ip", "::1")];
        let call = |subject, model, facts| Call { subject, model, facts, ..Call::default() };
        assert_eq!(ask(call(Some("s"), "m", &here)), 1);
        assert_eq!(ask(Call { id: "other", deadline_ms: 7, ..call(Some("s"), "m", &there) }), 1);
        assert_eq!(ask(call(Some("s"), "m", &elsewhere)), 2);
        assert_eq!(ask(call(Some("s"), "n", &here)), 3);
        assert_eq!(ask(call(Some("t"), "m", &here)), 4);
        assert_eq!(ask(call(None, "m", &here)), 5);
        assert_eq!(ask(call(None, "m", &there)), 6);
        assert_eq!(ask(call(None, "m", &here)), 5);
    }

    #[test]
    fn no_two_questions_have_one_key() {
        let parts = alike(&["subject", "tenant", "rules", "path"]);
        let mut keys = Vec::new();
        let mut write = |asked: Asked<'_>| {
            let mut key = Key(Vec::new());
            key.write(&parts, &asked);
            assert!(!keys.contains(&key.0));
            keys.push(key.0);
        };
        let call = |subject, tenant| Call { subject, tenant, ..Call::default() };
        write(Asked::default());
        write(Asked { call: call(Some(""), None), ..Asked::default() });
        write(Asked { call: call(None, Some("")), ..Asked::default() });
        write(Asked { call: call(Some("a"), Some("b")), ..Asked::default() });
        write(Asked { call: call(Some("ab"), Some("")), ..Asked::default() });
        write(Asked { path: "/a", ..Asked::default() });
        write(Asked { place: "/a", ..Asked::default() });
        write(Asked { headers: &[("a", "b")], ..Asked::default() });
        write(Asked { members: &[("a", "b")], ..Asked::default() });
        write(Asked { headers: &[("a", "b"), ("", "")], ..Asked::default() });
        write(Asked { headers: &[("ab", "")], ..Asked::default() });
    }

    #[test]
    fn faults_and_what_is_large_are_not_kept() {
        let fault =
            || CallError::Fault(penstock_dialects::ir::Fault::new(penstock_dialects::ir::FaultClass::Quota, "no"));
        let memo = Memo::new(Some(alike(&["model"])), |answer: &u32| *answer < 10);
        let ask = |answer: Result<u32, CallError>| memo.answer(&Asked::default(), || answer).map(|answer| *answer);
        assert!(ask(Err(fault())).is_err());
        assert_eq!(ask(Ok(10)).unwrap(), 10);
        assert_eq!(ask(Ok(1)).unwrap(), 1);
        assert_eq!(ask(Err(fault())).unwrap(), 1);
        let large = "m".repeat(KEY_BYTES_MAX);
        let asked = Asked { call: Call { model: &large, ..Call::default() }, ..Asked::default() };
        assert_eq!(*memo.answer(&asked, || Ok(1)).unwrap(), 1);
        assert_eq!(*memo.answer(&asked, || Ok(2)).unwrap(), 2);
    }

    #[test]
    fn callers_cannot_make_it_grow_without_end() {
        let memo = memo(&["model"]);
        for index in 0..3 * ANSWERS_MAX {
            let model = index.to_string();
            let asked = Asked { call: Call { model: &model, ..Call::default() }, ..Asked::default() };
            memo.answer(&asked, || Ok(1)).unwrap();
        }
        assert!(memo.answers.pin().len() <= ANSWERS_MAX);
    }
}
