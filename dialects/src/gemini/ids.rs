// SPDX-License-Identifier: Apache-2.0
//! Ids of function calls. This API pairs calls and responses by name and order, and by ids only where it has given them;
//! every other dialect needs ids. What has none gets one that is recognised, and left out, on the way to a vendor.

/// Beginning of the ids that are made here.
const MADE: &str = "call_gemini_";

/// The calls of a conversation that is read, and those that have no response yet.
#[derive(Debug, Default)]
pub(super) struct Calls {
    count: usize,
    open: Vec<(String, String)>,
}

impl Calls {
    /// The id of the next call.
    pub(super) fn call(&mut self, id: Option<String>, name: &str) -> String {
        let id = id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("{MADE}{}", self.count));
        self.count += 1;
        self.open.push((name.to_owned(), id.clone()));
        id
    }

    /// The id of the call that a response answers, and whether there is one.
    pub(super) fn response(&mut self, id: Option<String>, name: &str) -> (String, bool) {
        let place = match id.as_deref().filter(|id| !id.is_empty()) {
            Some(id) => self.open.iter().position(|(_, open)| open == id),
            None => self.open.iter().position(|(open, _)| open == name),
        };
        match (place, id) {
            (Some(place), _) => (self.open.remove(place).1, true),
            (None, Some(id)) => (id, false),
            (None, None) => {
                self.count += 1;
                (format!("{MADE}{}", self.count - 1), false)
            }
        }
    }
}

/// Whether an id was made here or by the encoder of another dialect for a caller (`call_req_<24 digits>_0`): the vendor has
/// not given it and need not see it.
pub(super) fn is_made(id: &str) -> bool {
    if id.is_empty() || id.starts_with(MADE) {
        return true;
    }
    let Some((_, rest)) = id.split_once("_req_") else { return false };
    let (request, index) = rest.split_once('_').unwrap_or((rest, ""));
    request.len() == 24
        && request.bytes().all(|digit| digit.is_ascii_hexdigit())
        && !index.is_empty()
        && index.bytes().all(|digit| digit.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_find_their_calls_by_id_or_by_name_and_order() {
        let mut calls = Calls::default();
        let ids =
            [calls.call(None, "a"), calls.call(None, "b"), calls.call(None, "a"), calls.call(Some("x".into()), "a")];
        assert!(ids[..3].iter().all(|id| is_made(id)), "{ids:?}");
        assert_eq!(calls.response(None, "b"), (ids[1].clone(), true));
        assert_eq!(calls.response(None, "a"), (ids[0].clone(), true));
        assert_eq!(calls.response(Some("x".into()), ""), ("x".to_owned(), true));
        assert_eq!(calls.response(None, "a"), (ids[2].clone(), true));
        assert_eq!(calls.response(Some("y".into()), "a"), ("y".to_owned(), false));
        let (unknown, found) = calls.response(None, "c");
        assert!(is_made(&unknown) && !found && !ids.contains(&unknown));
    }

    #[test]
    fn made_ids_are_told_from_given_ones() {
        for made in
            ["", "call_gemini_3", "call_req_0123456789abcdef01234567_0", "toolu_req_0123456789abcdef01234567_12"]
        {
            assert!(is_made(made), "{made}");
        }
        for given in ["call_3091305", "dv8szvqe", "toolu_01A", "call_req_1", "call_req_0123456789abcdef0123456z_0"] {
            assert!(!is_made(given), "{given}");
        }
    }
}
