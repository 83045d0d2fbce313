// SPDX-License-Identifier: Apache-2.0
//! The trace that a request is a part of, as it comes and as it goes on: W3C Trace Context, level 1.

use std::sync::atomic::{AtomicU32, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Longest `tracestate` that is kept; a longer one is dropped whole, as the standard allows beyond 512.
const STATE_BYTES_MAX: usize = 1024;

/// What a caller says of its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) trace: u128,
    pub(super) span: u64,
    pub(super) is_sampled: bool,
    /// `tracestate`, as it came.
    pub(super) state: String,
}

impl Parent {
    /// The caller's trace; none if it says nothing, or nothing that can be read.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(TRACEPARENT).iter();
        let (one, none) = (given.next()?, given.next());
        if none.is_some() {
            return None; // which of them is meant, nobody can say
        }
        let (trace, span, flags) = read(one.to_str().ok()?)?;
        let states = headers.get_all(TRACESTATE).iter().filter_map(|state| state.to_str().ok());
        let state = states.collect::<Vec<_>>().join(",");
        let state = if state.len() > STATE_BYTES_MAX { String::new() } else { state };
        Some(Self { trace, span, is_sampled: flags & 1 == 1, state })
    }
}

/// `version-trace-span-flags`, in hexadecimal of lower case. Later versions may have more behind it.
fn read(text: &str) -> Option<(u128, u64, u8)> {
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = text.splitn(5, '-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let more = parts.next();
    let lengths = [version.len(), trace.len(), span.len(), flags.len()];
    let well_formed = lengths == [2, 32, 16, 2] && [version, trace, span, flags].into_iter().all(is_hex);
    if !well_formed || version == "ff" || (version == "00" && more.is_some()) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
    Some((trace, span, u8::from_str_radix(flags, 16).ok()?))
}

/// The trace as the tries of one request send it on.
#[derive(Debug)]
pub struct Outgoing {
    trace: u128,
    root: u64,
    state: String,
    attempt: AtomicU32,
}

impl Outgoing {
    pub(super) fn new(trace: u128, root: u64, state: String) -> Self {
        Self { trace, root, state, attempt: AtomicU32::new(0) }
    }

    /// Id of the span of a try, by its number.
    pub(super) fn span(root: u64, number: u32) -> u64 {
        // Odd factor: different numbers give different ids.
        (root ^ u64::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1)
    }

    /// What is sent from now on belongs to the try of this number.
    pub fn attempt(&self, number: u32) {
        self.attempt.store(number, Ordering::Relaxed);
    }

    /// The same trace, for a try beside the one that is under way.
    #[must_use]
    pub fn twin(&self) -> Self {
        Self::new(self.trace, self.root, self.state.clone())
    }

    /// Puts the trace into the head of a request.
    pub fn put(&self, headers: &mut HeaderMap) {
        let span = Self::span(self.root, self.attempt.load(Ordering::Relaxed));
        if let Ok(value) = HeaderValue::try_from(format!("00-{:032x}-{span:016x}-01", self.trace)) {
            headers.insert(TRACEPARENT, value);
        }
        headers.remove(TRACESTATE);
        if let Ok(state) = HeaderValue::try_from(&self.state)
            && !self.state.is_empty()
        {
            headers.insert(TRACESTATE, state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn a_parent_is_taken_as_the_standard_says_or_not_at_all() {
        let read = |text: &str| read(text).map(|(_, span, flags)| (span, flags));
        let good = [
            (format!("00-{TRACE}-b7ad6b7169203331-01"), 1),
            (format!("00-{TRACE}-b7ad6b7169203331-00"), 0),
            (format!("01-{TRACE}-b7ad6b7169203331-03-what-comes-later"), 3),
        ];
        for (text, flags) in good {
            assert_eq!(read(&text), Some((0xb7ad_6b71_6920_3331, flags)), "{text}");
        }
        let zero = "0".repeat(32);
        for bad in [
            String::new(),
            format!("ff-{TRACE}-b7ad6b7169203331-01"),
            format!("00-{zero}-b7ad6b7169203331-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-b7ad6b7169203331-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-b7ad6b7169203331-01-more"),
            format!("00-{TRACE}-b7ad6b7169203331"),
            format!("00-{TRACE}-+7ad6b7169203331-01"),
        ] {
            assert_eq!(read(&bad), None, "{bad}");
        }
    }

    #[test]
    fn states_of_several_headers_are_one_and_too_long_ones_are_dropped() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, format!("00-{TRACE}-b7ad6b7169203331-01").parse().unwrap());
        headers.append(TRACESTATE, "a=1".parse().unwrap());
        headers.append(TRACESTATE, "b=2,c=3".parse().unwrap());
        let parent = Parent::of(&headers).unwrap();
        assert_eq!((parent.state.as_str(), parent.is_sampled), ("a=1,b=2,c=3", true));
        headers.append(TRACESTATE, format!("d={}", "x".repeat(2000)).parse().unwrap());
        assert_eq!(Parent::of(&headers).unwrap().state, "");
        headers.append(TRACEPARENT, format!("00-{TRACE}-b7ad6b7169203332-01").parse().unwrap());
        assert_eq!(Parent::of(&headers), None, "two parents");
    }

    #[test]
    fn each_try_sends_a_span_of_its_own_and_replaces_what_was_there() {
        let outgoing = Outgoing::new(7, 9, "a=1".to_owned());
        let mut headers = HeaderMap::new();
        headers.insert(TRACESTATE, "old=1".parse().unwrap());
        let mut seen = Vec::new();
        for number in 0..4 {
            outgoing.attempt(number);
            outgoing.put(&mut headers);
            let sent = Parent::of(&headers).unwrap();
            assert_eq!((sent.trace, sent.state.as_str(), sent.is_sampled), (7, "a=1", true));
            assert_eq!(sent.span, Outgoing::span(9, number));
            assert!(!seen.contains(&sent.span));
            seen.push(sent.span);
        }
    }
}
