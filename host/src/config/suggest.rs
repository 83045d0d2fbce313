// SPDX-License-Identifier: Apache-2.0
//! "Did you mean": the known name that is nearest to one that is not known.

/// Longest name that is compared; a longer one is no slip of the finger.
const NAME_CHARS_MAX: usize = 64;

/// The candidate that differs from `name` by the fewest edits, if that is few enough for a slip.
pub fn closest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let allowed = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter_map(|candidate| distance(name, candidate).map(|edits| (edits, candidate)))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Help for an unknown name: the nearest one, or all that there are.
pub fn help<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    match closest(name, candidates.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? There are: {}", candidates.join(", ")),
        None if candidates.is_empty() => "there are none".to_owned(),
        None => format!("there are: {}", candidates.join(", ")),
    }
}

/// Levenshtein distance in characters, with a swap of neighbours as one edit.
fn distance(a: &str, b: &str) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().max(b.len()) > NAME_CHARS_MAX {
        return None;
    }
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let mut cost = (last[j] + usize::from(a[i] != b[j])).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                cost = cost.min(before_last[j - 1] + 1);
            }
            row.push(cost);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_name_and_a_different_word_does_not() {
        let known = ["base_url", "optional", "models", "key"];
        for (written, meant) in [
            ("base_ulr", Some("base_url")),
            ("baseurl", Some("base_url")),
            ("model", Some("models")),
            ("kye", Some("key")),
            ("endpoint", None),
            ("", None),
        ] {
            assert_eq!(closest(written, known), meant, "{written}");
        }
        assert_eq!(closest(&"k".repeat(1 << 20), known), None);
    }
}
