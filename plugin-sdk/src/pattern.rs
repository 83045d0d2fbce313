// SPDX-License-Identifier: Apache-2.0
//! Patterns of names, as operators write them: `*` stands for any text.

/// Whether a name fits a pattern: "qwen*-vl*" fits "qwen2.5-vl-7b".
#[must_use]
pub fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

/// Whether a name fits one of the patterns.
#[must_use]
pub fn fits_any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| fits(pattern, name))
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_any_text() {
        let cases = [
            ("qwen-max", "qwen-max", true),
            ("qwen-max", "qwen-max-latest", false),
            ("qwen*", "qwen-max", true),
            ("*-vl*", "qwen2.5-vl-7b", true),
            ("*-vl*", "qwen-max", false),
            ("qwen*-vl", "qwen3-vl", true),
            ("qwen*-vl", "qwen3-vl-plus", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("*", "", true),
            ("", "", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
