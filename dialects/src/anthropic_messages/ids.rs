// SPDX-License-Identifier: Apache-2.0
//! Ids of tool calls. This dialect admits only `^[a-zA-Z0-9_-]+$`; other dialects admit anything, or nothing at all.

use std::borrow::Cow;
use std::fmt::Write;

/// Ids within one request. The same id of a call and of its result gets the same name here; ids that are empty are paired
/// in order.
#[derive(Default)]
pub(super) struct Ids {
    unnamed_calls: u32,
    unnamed_results: u32,
}

impl Ids {
    /// The wire id of a call.
    pub(super) fn call<'a>(&mut self, id: &'a str) -> Cow<'a, str> {
        admissible(id, &mut self.unnamed_calls)
    }

    /// The wire id of a result.
    pub(super) fn result<'a>(&mut self, id: &'a str) -> Cow<'a, str> {
        admissible(id, &mut self.unnamed_results)
    }
}

/// Every character that is not admitted becomes `_x` and its code in hexadecimal digits, so that different ids stay different.
fn admissible<'a>(id: &'a str, unnamed: &mut u32) -> Cow<'a, str> {
    let admitted = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    if id.is_empty() {
        *unnamed += 1;
        return Cow::Owned(format!("toolu_unnamed_{unnamed}"));
    }
    if id.chars().all(admitted) {
        return Cow::Borrowed(id);
    }
    let mut wire = String::with_capacity(id.len() + 8);
    for character in id.chars() {
        if admitted(character) {
            wire.push(character);
        } else {
            let _ = write!(wire, "_x{:02x}", u32::from(character));
        }
    }
    Cow::Owned(wire)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_finds_its_call() {
        let ids = ["toolu_01A-b", "functions.weather:0", "", "call 1", "", "é"];
        let (mut calls, mut results) = (Ids::default(), Ids::default());
        for id in ids {
            let call = calls.call(id);
            assert_eq!(call, results.result(id));
            assert!(call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'), "{call}");
        }
        assert_eq!(Ids::default().call("functions.weather:0"), "functions_x2eweather_x3a0");
    }
}
