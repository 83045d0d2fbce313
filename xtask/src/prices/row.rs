// SPDX-License-Identifier: Apache-2.0
//! A model in LiteLLM's table, and the price that it makes. Numbers are read from their text, not through floats.

use std::collections::BTreeMap;

use penstock_prices::money::Usd;
use penstock_prices::price::{Price, Rate, Rates};
use serde_json::value::RawValue;

use super::scaled;

/// A model.
pub(super) struct Row {
    /// Who serves it.
    pub(super) provider: String,
    mode: String,
    members: BTreeMap<String, Box<RawValue>>,
}

/// What prices of tokens are called.
const TOKENS: &[(&str, Rate)] = &[
    ("input_cost_per_token", Rate::Input),
    ("output_cost_per_token", Rate::Output),
    ("output_cost_per_reasoning_token", Rate::Reasoning),
    ("cache_read_input_token_cost", Rate::CacheRead),
    ("cache_creation_input_token_cost", Rate::CacheWrite),
    ("cache_creation_input_token_cost_above_1hr", Rate::CacheWriteHour),
    ("input_cost_per_audio_token", Rate::InputAudio),
    ("input_cost_per_image_token", Rate::InputImage),
    ("input_cost_per_video_token", Rate::InputVideo),
    ("cache_read_input_audio_token_cost", Rate::CacheReadAudio),
    ("cache_read_input_image_token_cost", Rate::CacheReadImage),
    ("output_cost_per_audio_token", Rate::OutputAudio),
    ("output_cost_per_image_token", Rate::OutputImage),
    ("output_cost_per_video_token", Rate::OutputVideo),
];

/// What prices of other things are called, and for which modes they are meant.
const PIECES: &[(&str, &[&str], Rate)] = &[
    ("output_cost_per_image", &["image_generation", "image_edit", "chat"], Rate::Image),
    ("input_cost_per_image", &["image_generation", "image_edit", "embedding"], Rate::Image),
    ("output_cost_per_second", &["video_generation"], Rate::VideoSecond),
    ("output_cost_per_video_per_second", &["video_generation"], Rate::VideoSecond),
    ("input_cost_per_second", &["audio_transcription"], Rate::AudioSecond),
    ("input_cost_per_character", &["audio_speech"], Rate::Character),
    ("input_cost_per_query", &["rerank"], Rate::SearchUnit),
    ("input_cost_per_request", &["chat"], Rate::Request),
];

/// Modes of what is no call to a model.
const OTHERS: &[&str] = &["search", "ocr", "evaluation", "guardrail", "vector_store", "extraction", "decisions"];

/// What follows the name of a price that holds for a service tier, and our name of that.
const TIERS: &[(&str, &str)] = &[("_batches", "batch"), ("_flex", "flex"), ("_priority", "priority")];
/// What begins the name of a price of a second of a film of so many lines.
const LINES: &str = "output_cost_per_second_";

impl Row {
    /// Every model of a table, by name.
    pub(super) fn read_all(table: &str) -> anyhow::Result<BTreeMap<String, Self>> {
        let rows: BTreeMap<String, BTreeMap<String, Box<RawValue>>> = serde_json::from_str(table)?;
        let text = |members: &BTreeMap<String, Box<RawValue>>, name: &str| -> String {
            members.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
        };
        let row =
            |members| Self { provider: text(&members, "litellm_provider"), mode: text(&members, "mode"), members };
        Ok(rows.into_iter().map(|(name, members)| (name, row(members))).collect())
    }

    /// Its price; none if the table has none for it. Nothing to pay is no price, except where that is the rule.
    pub(super) fn price(&self) -> Option<Price> {
        if OTHERS.contains(&self.mode.as_str()) {
            return None;
        }
        let mut price = Price { rates: self.rates(""), tools: self.tools(), ..Price::default() };
        for (rate, usd) in self.pieces() {
            price.rates.of.push((rate, usd));
        }
        for (suffix, name) in TIERS {
            let mut rates = self.rates(suffix);
            rates.of.retain(|rate| !price.rates.of.contains(rate));
            rates.above.retain(|part| !price.rates.above.contains(part));
            if rates != Rates::default() {
                price.tiers.push(((*name).to_owned(), rates));
            }
        }
        price.video_seconds = self.by_lines();
        let is_paid = |rates: &Rates| rates.of.iter().any(|(_, usd)| *usd > Usd::ZERO) || !rates.above.is_empty();
        let is_priced = is_paid(&price.rates) || !price.video_seconds.is_empty();
        let is_free = self.mode == "moderation" && self.amount("input_cost_per_token").is_some();
        let has_variants = self.amount("input_cost_per_pixel").is_some();
        if is_free {
            return Some(Price::of(vec![(Rate::Input, Usd::ZERO)]));
        }
        let price = (is_priced || has_variants).then(|| simplified(price))?;
        (has_variants || price != Price::default()).then_some(price)
    }

    /// What a picture of a size costs.
    pub(super) fn picture(&self, (width, height): (u64, u64)) -> Option<Usd> {
        let paid = |name: &str| self.amount(name).filter(|usd| *usd > Usd::ZERO);
        let whole = paid("output_cost_per_image").or_else(|| paid("input_cost_per_image"));
        // The prices of pixels are those of pictures, divided: hundredths of a cent are what was meant.
        let pixels = || paid("input_cost_per_pixel").map(|usd| usd.times(width * height).rounded(4));
        whole.or_else(pixels)
    }

    /// The prices of tokens whose names end so.
    fn rates(&self, tier: &str) -> Rates {
        let mut rates = Rates::default();
        for (name, rate) in TOKENS {
            if let Some(usd) = self.amount(&format!("{name}{tier}")) {
                rates.of.push((*rate, scaled(*rate, usd)));
            }
            for (tokens, usd) in self.above(name, tier) {
                let usd = scaled(*rate, usd);
                match rates.above.iter_mut().find(|(known, _)| *known == tokens) {
                    Some((_, of)) => of.push((*rate, usd)),
                    None => rates.above.push((tokens, vec![(*rate, usd)])),
                }
            }
        }
        if tier.is_empty() {
            self.ranges(&mut rates);
        }
        rates.above.sort_by_key(|(tokens, _)| *tokens);
        rates
    }

    /// `NAME_above_200k_tokensTIER`.
    fn above(&self, name: &str, tier: &str) -> Vec<(u64, Usd)> {
        let begin = format!("{name}_above_");
        let end = format!("k_tokens{tier}");
        let found = self.members.keys().filter_map(|key| {
            let thousands = key.strip_prefix(&begin)?.strip_suffix(&end)?.parse::<u64>().ok()?;
            Some((thousands * 1000, self.amount(key)?))
        });
        found.collect()
    }

    /// `tiered_pricing`: rates by ranges of input tokens.
    fn ranges(&self, rates: &mut Rates) {
        #[derive(serde::Deserialize)]
        struct Range {
            range: [f64; 2],
            #[serde(flatten)]
            members: BTreeMap<String, serde_json::Number>,
        }
        let Some(raw) = self.members.get("tiered_pricing") else { return };
        let ranges: Vec<Range> = serde_json::from_str(raw.get()).unwrap_or_default();
        for Range { range: [from, _], members } in ranges {
            let amount = |name: &str| Usd::parse_rounded(&members.get(name)?.to_string()).ok();
            let of = TOKENS.iter().filter_map(|(name, rate)| Some((*rate, scaled(*rate, amount(name)?)))).collect();
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a number of tokens; it saturates"
            )]
            match from as u64 {
                0 => rates.of = of,
                tokens => rates.above.push((tokens, of)),
            }
        }
    }

    fn pieces(&self) -> Vec<(Rate, Usd)> {
        let mut found = Vec::<(Rate, Usd)>::new();
        for (name, modes, rate) in PIECES {
            let usd = self.amount(name).filter(|usd| *usd > Usd::ZERO && modes.contains(&self.mode.as_str()));
            if let Some(usd) = usd.filter(|_| !found.iter().any(|(known, _)| known == rate)) {
                found.push((*rate, usd));
            }
        }
        found
    }

    /// A search costs the same whatever it finds, or by how much of it the model reads.
    fn tools(&self) -> Vec<(String, Usd)> {
        let sizes: BTreeMap<String, Box<RawValue>> = self
            .members
            .get("search_context_cost_per_query")
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default();
        let size = |size: &str| Usd::parse(sizes.get(&format!("search_context_size_{size}"))?.get()).ok();
        let (Some(low), Some(medium), Some(high)) = (size("low"), size("medium"), size("high")) else {
            return Vec::new();
        };
        if low == high && medium == high {
            return vec![("web_search".to_owned(), high)];
        }
        let sizes = [("low", low), ("medium", medium), ("high", high)];
        let mut tools: Vec<_> = sizes.into_iter().map(|(size, usd)| (format!("search_{size}"), usd)).collect();
        tools.sort();
        tools
    }

    fn by_lines(&self) -> Vec<(String, Usd)> {
        let found =
            self.members.keys().filter_map(|key| Some((key.strip_prefix(LINES)?.to_owned(), self.amount(key)?)));
        found.collect()
    }

    fn amount(&self, name: &str) -> Option<Usd> {
        Usd::parse_rounded(self.members.get(name)?.get()).ok()
    }
}

/// Without the rates that would be found without them, too.
fn simplified(mut price: Price) -> Price {
    let all = price.rates.of.clone();
    let rate_of = |of: &[(Rate, Usd)], wanted| of.iter().find(|(rate, _)| *rate == wanted).map(|(_, usd)| *usd);
    let instead = |of: &[(Rate, Usd)], rate: Rate| {
        std::iter::successors(rate.instead(), |rate| rate.instead()).find_map(|rate| rate_of(of, rate))
    };
    price.rates.of.retain(|(rate, usd)| instead(&all, *rate).unwrap_or_default() != *usd);
    let base = price.rates.of.clone();
    let retain = |of: &mut Vec<(Rate, Usd)>| {
        let all = of.clone();
        of.retain(|(rate, usd)| rate_of(&base, *rate).is_some() || instead(&all, *rate).unwrap_or_default() != *usd);
    };
    price.rates.above.iter_mut().for_each(|(_, of)| retain(of));
    for (_, rates) in &mut price.tiers {
        retain(&mut rates.of);
        rates.above.iter_mut().for_each(|(_, of)| retain(of));
    }
    for rates in std::iter::once(&mut price.rates).chain(price.tiers.iter_mut().map(|(_, rates)| rates)) {
        rates.above.retain(|(_, of)| !of.is_empty());
    }
    price.tiers.retain(|(_, rates)| *rates != Rates::default());
    price
}
