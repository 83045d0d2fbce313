// SPDX-License-Identifier: Apache-2.0
//! Finds the price of a model. Names are `vendor/model`; one without a slash is that model at whichever vendor. In this order:
//!
//! 1. the name itself;
//! 2. the name without a date or version at its end (`-2025-09-29`, `@20250929`, `-0709`, `-v1:0`, `-latest`), so that a
//!    dated version costs what the model costs unless the table knows it by itself;
//! 3. names with a `*`: those that go on behind it first, then those with the longest text before it.
//!
//! Case, and the difference between `.` and `-`, which vendors and their resellers do not agree on, do not count.

use std::collections::HashMap;
use std::sync::Arc;

use crate::price::Price;

/// Names that a price may refer to one after another.
const HOPS_MAX: usize = 4;

/// The prices of all models.
#[derive(Debug, Clone, Default)]
pub struct Table {
    exact: HashMap<Box<str>, Arc<Price>>,
    /// In the order in which they are tried.
    patterns: Vec<(Pattern, Arc<Price>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    begin: Box<str>,
    end: Box<str>,
}

impl Pattern {
    fn weight(&self) -> (usize, usize, &str) {
        (self.end.len(), self.begin.len(), &self.begin)
    }

    /// What the star stands for.
    fn rest<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_prefix(&*self.begin)?.strip_suffix(&*self.end).filter(|rest| !rest.is_empty())
    }
}

impl Table {
    /// Puts prices over those that are there; one of the same name replaces the other.
    pub fn put<N: AsRef<str>>(&mut self, prices: impl IntoIterator<Item = (N, Arc<Price>)>) {
        for (name, price) in prices {
            let name = normal(name.as_ref());
            let Some((begin, end)) = name.split_once('*') else {
                self.exact.insert(name.into(), price);
                continue;
            };
            let pattern = Pattern { begin: begin.into(), end: end.into() };
            self.patterns.retain(|(other, _)| *other != pattern);
            self.patterns.push((pattern, price));
        }
        self.patterns.sort_by(|(one, _), (other, _)| other.weight().cmp(&one.weight()));
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.exact.len() + self.patterns.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every name with its price, in no order; patterns have a `*`.
    pub fn iter(&self) -> impl Iterator<Item = (String, &Price)> {
        let exact = self.exact.iter().map(|(name, price)| (name.to_string(), &**price));
        let patterns = self.patterns.iter();
        exact.chain(patterns.map(|(of, price)| (format!("{}*{}", of.begin, of.end), &**price)))
    }

    /// The price of a model.
    #[must_use]
    pub fn find(&self, vendor: &str, model: &str) -> Option<&Arc<Price>> {
        self.follow(&normal(&format!("{vendor}/{model}")), HOPS_MAX)
    }

    /// What `like` refers to in a price of this name; none where it leads nowhere. A star refers to whatever it finds.
    #[must_use]
    pub fn refers(&self, like: &str) -> bool {
        like.contains('*') || self.follow(&normal(like), HOPS_MAX).is_some()
    }

    fn follow(&self, name: &str, hops: usize) -> Option<&Arc<Price>> {
        let (price, rest) = self.look_up(name)?;
        match &price.like {
            None => Some(price),
            Some(_) if hops == 0 => None,
            Some(like) => self.follow(&normal(like).replace('*', rest), hops - 1),
        }
    }

    /// The entry for a name, and what its star stands for.
    fn look_up<'n>(&self, name: &'n str) -> Option<(&Arc<Price>, &'n str)> {
        let of_any_vendor = name.split_once('/').map(|(_, model)| model);
        for name in [Some(name), of_any_vendor].into_iter().flatten() {
            let versions = std::iter::successors(Some(name), |name| without_version(name));
            if let Some(price) = versions.into_iter().find_map(|name| self.exact.get(name)) {
                return Some((price, ""));
            }
        }
        self.patterns.iter().find_map(|(pattern, price)| Some((price, pattern.rest(name)?)))
    }
}

/// A name as names are compared.
#[must_use]
pub fn normal(name: &str) -> String {
    name.chars().map(|c| if c == '.' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// A name without the date or version at its end; none if there is none.
#[must_use]
pub fn without_version(name: &str) -> Option<&str> {
    let ends = |rest: &str| {
        rest == "latest" || is_revision(rest) || is_date(&rest.bytes().filter(|byte| *byte != b'-').collect::<Vec<_>>())
    };
    // The longest end first, so that `-2025-09-29` is taken for a date and not for a day.
    let cuts = name.char_indices().filter(|(_, c)| matches!(c, '-' | '@'));
    let cut = cuts.map(|(at, _)| at).find(|at| ends(&name[at + 1..]))?;
    Some(&name[..cut]).filter(|name| !name.is_empty() && !name.ends_with('/'))
}

/// "v1", "v1:0", "001".
fn is_revision(rest: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match rest.strip_prefix('v') {
        Some(version) => version.split(':').all(digits) && version.contains(':'),
        None => rest.len() == 3 && rest.starts_with('0') && digits(rest),
    }
}

/// Year, month and day in the ways in which vendors write them, without hyphens: 20250929, 250929, 0929, 2509, 092025.
fn is_date(digits: &[u8]) -> bool {
    if !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let two = |at: usize| u32::from(digits[at] - b'0') * 10 + u32::from(digits[at + 1] - b'0');
    let (month, day) = (|at| (1..=12).contains(&two(at)), |at| (1..=31).contains(&two(at)));
    let year = |at| (20..=39).contains(&two(at));
    match digits.len() {
        8 => two(0) == 20 && year(2) && month(4) && day(6),
        6 => (year(0) && month(2) && day(4)) || (month(0) && two(2) == 20 && year(4)),
        4 => (month(0) && day(2)) || (year(0) && month(2)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Usd;
    use crate::price::Rate;

    fn table(names: &[(&str, &str)]) -> Table {
        let mut table = Table::default();
        table.put(names.iter().map(|(name, says)| {
            let price = match says.parse::<u64>() {
                Ok(number) => Price::of(vec![(Rate::Input, Usd::of(number.into(), 0))]),
                Err(_) => Price { like: Some((*says).to_owned()), ..Price::default() },
            };
            (*name, Arc::new(price))
        }));
        table
    }

    fn check(table: &Table, cases: &[(&str, &str, Option<u64>)]) {
        for (vendor, model, input) in cases {
            let found = table.find(vendor, model).map(|price| price.rates.of[0].1.to_string());
            assert_eq!(found, input.map(|input| input.to_string()), "{vendor}/{model}");
        }
    }

    #[test]
    fn a_model_is_found_by_its_name_then_without_its_version_then_at_any_vendor() {
        let table = table(&[
            ("openai/gpt-4.1", "1"),
            ("openai/gpt-4.1-mini", "2"),
            ("openai/gpt-4.1-2025-04-14", "3"),
            ("openai/gpt-4", "4"),
            ("anthropic/claude-haiku-4-5", "5"),
            ("bedrock/us.anthropic.claude-haiku-4-5", "6"),
            ("my-model", "7"),
            ("gemini/gemini-2.5-flash-preview", "8"),
        ]);
        check(
            &table,
            &[
                ("openai", "gpt-4.1", Some(1)),
                ("openai", "GPT-4.1", Some(1)),
                ("openai", "gpt-4.1-latest", Some(1)),
                ("openai", "gpt-4.1-2025-04-14", Some(3)),
                ("openai", "gpt-4.1-2025-05-15", Some(1)),
                ("openai", "gpt-4.1-mini-2025-04-14", Some(2)),
                ("openai", "gpt-4-0613", Some(4)),
                ("openai", "gpt-4.7", None),
                ("openai", "gpt-4-32k", None),
                ("openai", "gpt-4-8192", None),
                ("openai", "gpt-4-turbo", None),
                ("other", "gpt-4", None),
                ("anthropic", "claude-haiku-4.5", Some(5)),
                ("anthropic", "claude-haiku-4-5@20251001", Some(5)),
                ("anthropic", "claude-haiku-4-5-20251001", Some(5)),
                ("bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0", Some(6)),
                ("gemini", "gemini-2.5-flash-preview-09-2025", Some(8)),
                ("anything", "my-model", Some(7)),
                ("anything", "my-model-2507", Some(7)),
                ("anything", "my-model:free", None),
                ("anything", "", None),
            ],
        );
    }

    #[test]
    fn a_pattern_refers_to_what_its_star_stands_for() {
        let table = table(&[
            ("reseller/*", "*"),
            ("reseller/*:free", "0"),
            ("reseller/x-ai-with-a-long-name/*", "xai/*"),
            ("reseller/x-ai/*", "xai/*"),
            ("xai/grok", "1"),
            ("alias/deployment", "xai/grok"),
            ("circle/a", "circle/b"),
            ("circle/b", "circle/a"),
            ("local/*", "0"),
        ]);
        check(
            &table,
            &[
                ("reseller", "xai/grok", Some(1)),
                ("reseller", "x-ai/grok", Some(1)),
                ("reseller", "x-ai/grok-2025-01-01", Some(1)),
                ("reseller", "x-ai/grok:free", Some(0)),
                ("reseller", "x-ai-with-a-long-name/grok:free", Some(0)),
                ("reseller", "x-ai/other", None),
                ("reseller", "", None),
                ("alias", "deployment", Some(1)),
                ("circle", "a", None),
                ("local", "anything/at-all", Some(0)),
            ],
        );
        assert!(table.refers("xai/grok") && table.refers("xai/*") && !table.refers("xai/krog"));
    }

    #[test]
    fn a_later_price_replaces_an_earlier_one_of_the_same_name() {
        let mut prices = table(&[("openai/gpt-4.1", "1"), ("local/*", "2")]);
        let over = table(&[("OpenAI/gpt-4-1", "3"), ("local/*", "4")]);
        let (exact, patterns) = (over.exact.iter(), over.patterns.iter());
        prices.put(exact.map(|(name, price)| (&**name, Arc::clone(price))));
        prices.put(patterns.map(|(pattern, price)| {
            assert_eq!((&*pattern.begin, &*pattern.end), ("local/", ""));
            ("local/*", Arc::clone(price))
        }));
        check(&prices, &[("openai", "gpt-4.1", Some(3)), ("local", "x", Some(4))]);
        assert_eq!(prices.len(), 2);
    }
}
