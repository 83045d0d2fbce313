// SPDX-License-Identifier: Apache-2.0
//! Counts a usage by a price. The buckets of a usage do not overlap, so the cost is a sum of products.

use penstock_dialects::ir::Usage;

use crate::money::Usd;
use crate::price::{Price, Rate, Rates, Unit};
use crate::stated;

/// Bucket that tells which service tier has answered: `tier-flex`, with a count of one.
pub const TIER: &str = "tier-";
/// Bucket of the requests to a tool of the vendor: `tool-web_search`.
pub const TOOL: &str = "tool-";

const BILLED_INPUT: &str = "billed-input";
const BILLED_OUTPUT: &str = "billed-output";

/// What a call has cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// How much.
    pub usd: Usd,
    /// The vendor has said so itself.
    pub stated: bool,
}

/// What was asked for, where prices differ by it and the usage does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// Size of a picture or film: "1024x1024".
    pub size: Option<String>,
    /// Quality of a picture: "hd".
    pub quality: Option<String>,
    /// Characters of a text that is spoken; vendors do not tell the usage beside the sound.
    pub characters: u64,
}

/// What a call has cost: what the vendor states, else what the price of the model says; none if neither does. Without a usage there is a
/// cost only where it follows from what was asked for.
#[must_use]
pub fn of(price: Option<&Price>, usage: Option<&Usage>, made: &Made) -> Option<Cost> {
    if let Some(usd) = usage.and_then(|usage| stated::cost(&usage.stated)) {
        return Some(Cost { usd, stated: true });
    }
    if usage.is_none() && made.characters == 0 {
        return None;
    }
    let price = price?;
    let usd = match usage {
        Some(usage) => by(price, usage, made),
        None => spoken(price, made)?,
    };
    Some(Cost { usd, stated: false })
}

fn spoken(price: &Price, made: &Made) -> Option<Usd> {
    let (_, usd) = price.rates.of.iter().find(|(rate, _)| *rate == Rate::Character)?;
    Some(usd.times(made.characters))
}

/// What a usage costs by a price.
#[must_use]
pub fn by(price: &Price, usage: &Usage, made: &Made) -> Usd {
    let input = usage_input(usage);
    let tier = usage.more.iter().find_map(|(name, _)| name.strip_prefix(TIER));
    let tier = price.tiers.iter().find(|(name, _)| Some(name.as_str()) == tier).map(|(_, rates)| rates);
    let rates = InForce { tier, all: &price.rates, input };
    let tokens = usage.output > 0 || usage.more.iter().any(|(name, _)| name == Rate::OutputImage.bucket());
    let core =
        tokens_charged(usage).into_iter().chain([(Rate::Request, 1)]).map(|(rate, count)| rates.cost(rate, count));
    let more = usage.more.iter().map(|(name, count)| match (name.strip_prefix(TOOL), Rate::of_bucket(name)) {
        (Some(tool), _) => amount(&price.tools, tool).times(*count),
        // A vendor that counts the tokens of its pictures charges those.
        (_, Some(Rate::Image)) if tokens && rates.find(Rate::OutputImage).is_some() => Usd::ZERO,
        (_, Some(Rate::Image)) => {
            picture(price, made).unwrap_or_else(|| rates.find(Rate::Image).unwrap_or_default()).times(*count)
        }
        (_, Some(Rate::VideoSecond)) => {
            film(price, made).unwrap_or_else(|| rates.find(Rate::VideoSecond).unwrap_or_default()).times(*count)
        }
        (_, Some(rate)) => rates.cost(rate, *count),
        _ => Usd::ZERO,
    });
    core.chain(more).chain(spoken(price, made)).sum()
}

/// The tokens that are no further buckets: those that the vendor says it charges, where it says that (Cohere).
fn tokens_charged(usage: &Usage) -> [(Rate, u64); 5] {
    let bucket = |wanted: &str| usage.more.iter().find(|(name, _)| name == wanted).map(|(_, count)| *count);
    let (input, read, written) = match bucket(BILLED_INPUT) {
        Some(billed) => (billed, 0, 0),
        None => (usage.input, usage.cache_read, usage.cache_write),
    };
    let (output, reasoning) = bucket(BILLED_OUTPUT).map_or((usage.output, usage.reasoning), |billed| (billed, 0));
    [
        (Rate::Input, input),
        (Rate::CacheRead, read),
        (Rate::CacheWrite, written),
        (Rate::Output, output),
        (Rate::Reasoning, reasoning),
    ]
}

/// Input tokens of any kind: the length by which tiers are told apart.
fn usage_input(usage: &Usage) -> u64 {
    let more = usage.more.iter().filter(|(name, _)| name.starts_with("input-") || name.starts_with("cache-"));
    let core = usage.input.saturating_add(usage.cache_read).saturating_add(usage.cache_write);
    more.fold(core, |sum, (_, count)| sum.saturating_add(*count))
}

/// The rates that hold for one call.
struct InForce<'p> {
    tier: Option<&'p Rates>,
    all: &'p Rates,
    input: u64,
}

impl InForce<'_> {
    fn cost(&self, rate: Rate, count: u64) -> Usd {
        if count == 0 {
            return Usd::ZERO;
        }
        let cost = self.find(rate).unwrap_or_default().times(count);
        if rate.unit() == Unit::MillionTokens { cost.per_million() } else { cost }
    }

    /// The rate of the service tier before that of the model, each by the length of the input; a rate of the same kind before
    /// that of what it is a part of.
    fn find(&self, rate: Rate) -> Option<Usd> {
        let kinds = std::iter::successors(Some(rate), |rate| rate.instead());
        kinds.into_iter().find_map(|kind| {
            let own = self.tier.and_then(|rates| self.by_length(rates, kind));
            own.or_else(|| self.by_length(self.all, kind))
        })
    }

    fn by_length(&self, rates: &Rates, kind: Rate) -> Option<Usd> {
        let find = |of: &[(Rate, Usd)]| of.iter().find(|(rate, _)| *rate == kind).map(|(_, usd)| *usd);
        let longer = rates.above.iter().rev().filter(|(tokens, _)| self.input > *tokens);
        longer.map(|(_, of)| of.as_slice()).find_map(find).or_else(|| find(&rates.of))
    }
}

/// By quality and size, or by one of them.
fn picture(price: &Price, made: &Made) -> Option<Usd> {
    let size = made.size.as_deref().unwrap_or_default();
    let quality = made.quality.as_deref().unwrap_or_default();
    let both = format!("{quality}/{size}");
    let names = [both.as_str(), size, quality];
    names.iter().find_map(|wanted| price.images.iter().find(|(name, _)| name == wanted)).map(|(_, usd)| *usd)
}

/// By lines: the shorter side of a size such as "1920x1080".
fn film(price: &Price, made: &Made) -> Option<Usd> {
    let size = made.size.as_deref()?;
    let sides = size.split(['x', '*']).map(|side| side.parse::<u32>().ok()).collect::<Option<Vec<_>>>();
    let lines = sides.and_then(|sides| sides.into_iter().min()).map(|lines| format!("{lines}p"));
    let wanted = lines.unwrap_or_else(|| size.to_ascii_lowercase());
    price.video_seconds.iter().find(|(name, _)| *name == wanted).map(|(_, usd)| *usd)
}

fn amount(of: &[(String, Usd)], wanted: &str) -> Usd {
    of.iter().find(|(name, _)| name == wanted).map_or(Usd::ZERO, |(_, usd)| *usd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(text: &str) -> Price {
        toml::from_str(text).unwrap()
    }

    fn usage(core: [u64; 5], more: &[(&str, u64)]) -> Usage {
        let [input, cache_read, cache_write, output, reasoning] = core;
        let more = more.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Usage { input, cache_read, cache_write, output, reasoning, more, stated: String::new() }
    }

    fn check(written: &str, core: [u64; 5], more: &[(&str, u64)], dollars: &str) {
        let cost = by(&price(written), &usage(core, more), &Made::default());
        assert_eq!(cost.to_string(), dollars, "{written} {core:?} {more:?}");
    }

    #[test]
    fn every_bucket_costs_its_own_rate_or_that_of_what_it_is_a_part_of() {
        const M: u64 = 1_000_000;
        let rates = "input = 1\noutput = 10";
        check(rates, [M, 0, 0, M, 0], &[], "11");
        check(rates, [0, M, 0, 0, 0], &[], "1");
        check(rates, [0, 0, M, 0, M], &[], "11");
        check(rates, [0; 5], &[("input-audio", M), ("output-audio", M), ("hidden", M), ("cache-write-1h", M)], "22");
        check(rates, [0; 5], &[("image-count", 5), ("unheard-of", M)], "0");
        let rates = "input = 1\noutput = 10\ncache_read = 0.1\ncache_write = 1.25\ncache_write_1h = 2\nreasoning = 3\ninput_audio = 40";
        check(rates, [M, M, M, M, M], &[], "15.35");
        check(
            rates,
            [0; 5],
            &[("cache-write-1h", M), ("input-audio", M), ("cache-read-audio", M), ("hidden", M)],
            "45.1",
        );
        check("input = 1.25", [1, 0, 0, 0, 0], &[], "0.00000125");
        check(rates, [M, M, M, M, M], &[("billed-input", 10), ("billed-output", 1)], "0.00002");
    }

    #[test]
    fn a_long_input_costs_more_from_its_first_token_on() {
        let rates =
            "input = 1\noutput = 10\nabove = [{ tokens = 100, input = 2, output = 20 }, { tokens = 200, input = 3 }]";
        check(rates, [100, 0, 0, 10, 0], &[], "0.0002");
        check(rates, [50, 51, 0, 10, 0], &[], "0.000402");
        check(rates, [50, 0, 0, 10, 0], &[("input-image", 51)], "0.000402");
        check(rates, [201, 0, 0, 10, 0], &[], "0.000803");
    }

    #[test]
    fn a_service_tier_has_its_own_rates_and_else_those_of_the_model() {
        let rates = "input = 1\noutput = 10\ncache_read = 0.1\nabove = [{ tokens = 100, input = 2 }]\n\
                     flex = { input = 0.5, output = 5 }\nbatch = { output = 4 }";
        check(rates, [10, 10, 0, 10, 0], &[("tier-flex", 1)], "0.000056");
        check(rates, [10, 0, 0, 10, 10], &[("tier-batch", 1)], "0.00009");
        check(rates, [10, 0, 0, 10, 0], &[("tier-priority", 1)], "0.00011");
    }

    #[test]
    fn what_is_no_token_costs_by_the_piece() {
        check("request = 0.005\ntools = { web_search = 0.01 }", [9, 0, 0, 0, 0], &[("tool-web_search", 2)], "0.025");
        check("image = 0.04", [0; 5], &[("image-count", 3)], "0.12");
        check("search_unit = 0.002", [0; 5], &[("search-units", 2)], "0.004");
        check("audio_second = 0.0001", [0; 5], &[("audio-seconds", 6)], "0.0006");
        check("character = 0.000015", [0; 5], &[("characters", 100)], "0.0015");
        let both = "input = 5\nimage = 0.04\noutput_image = 40";
        check(both, [0; 5], &[("image-count", 1), ("output-image", 1_000)], "0.04");
        check(both, [0; 5], &[("image-count", 2)], "0.08");
    }

    #[test]
    fn pictures_cost_by_quality_and_size_and_films_by_their_lines() {
        let price = price(
            "image = 0.01\nvideo_second = 0.1\nimages = { \"hd/1024x1024\" = 0.08, \"512x512\" = 0.02, \"low\" = 0.005 }\n\
             video_seconds = { \"1080p\" = 0.25 }",
        );
        for (quality, size, dollars) in
            [("hd", "1024x1024", "0.08"), ("hd", "512x512", "0.02"), ("low", "auto", "0.005"), ("auto", "auto", "0.01")]
        {
            let made = Made { size: Some(size.into()), quality: Some(quality.into()), ..Made::default() };
            assert_eq!(
                by(&price, &usage([0; 5], &[("image-count", 1)]), &made).to_string(),
                dollars,
                "{quality} {size}"
            );
        }
        for (size, dollars) in [("1920x1080", "1.25"), ("1080*1920", "1.25"), ("1080P", "1.25"), ("1280x720", "0.5")] {
            let made = Made { size: Some(size.into()), ..Made::default() };
            assert_eq!(by(&price, &usage([0; 5], &[("video-seconds", 5)]), &made).to_string(), dollars, "{size}");
        }
    }

    #[test]
    fn what_the_vendor_states_goes_before_what_we_compute() {
        let (model, tts, tokens) = (price("input = 1"), price("character = 0.00001"), price("input = 1\noutput = 2"));
        let usage = usage([1_000_000, 0, 0, 0, 0], &[]);
        let stating = Usage { stated: r#"{"cost":7}"#.to_owned(), ..usage.clone() };
        let spoken = Made { characters: 200, ..Made::default() };
        let cost =
            |price: Option<&Price>, usage, made| of(price, usage, made).map(|it| (it.usd.to_string(), it.stated));
        let silent = Made::default();
        assert_eq!(cost(Some(&model), Some(&usage), &silent), Some(("1".into(), false)));
        assert_eq!(cost(Some(&model), Some(&stating), &silent), Some(("7".into(), true)));
        assert_eq!(cost(None, Some(&stating), &silent), Some(("7".into(), true)));
        assert_eq!(cost(None, Some(&usage), &silent), None);
        assert_eq!(cost(Some(&model), None, &silent), None);
        assert_eq!(cost(Some(&tts), None, &spoken), Some(("0.002".into(), false)));
        assert_eq!(cost(Some(&tokens), None, &spoken), None);
    }

    #[test]
    fn numbers_without_sense_are_no_panic() {
        check("input = 1\noutput = 1", [u64::MAX; 5], &[("input-audio", u64::MAX)], "110680464442257.30969");
    }
}
