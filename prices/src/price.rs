// SPDX-License-Identifier: Apache-2.0
//! The price of a model, as it is written in a policy file: a rate for each bucket of the usage, tiers for long inputs,
//! other rates for batches and service tiers.
//!
//! What a rate is for has the name of the bucket in [`penstock_dialects::ir::Usage`]; a bucket without a rate of its own
//! costs what the one costs that it is a part of ([`Rate::instead`]).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use crate::money::Usd;

macro_rules! rates {
    ($($(#[$doc:meta])* $variant:ident = $key:literal, $bucket:literal, $unit:ident, $instead:expr;)*) => {
        /// What a rate is for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Rate { $($(#[$doc])* $variant,)* }

        impl Rate {
            /// Every rate.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The key in policy files.
            #[must_use]
            pub fn key(self) -> &'static str {
                match self { $(Self::$variant => $key,)* }
            }

            /// The bucket of the usage that it is for.
            #[must_use]
            pub fn bucket(self) -> &'static str {
                match self { $(Self::$variant => $bucket,)* }
            }

            /// What one unit is.
            #[must_use]
            pub fn unit(self) -> Unit {
                match self { $(Self::$variant => Unit::$unit,)* }
            }

            /// The rate that holds where there is none of this kind.
            #[must_use]
            pub fn instead(self) -> Option<Self> {
                match self { $(Self::$variant => $instead,)* }
            }
        }
    };
}

/// How much of a bucket a rate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A million tokens.
    MillionTokens,
    /// One.
    One,
}

rates! {
    /// Input tokens.
    Input = "input", "input", MillionTokens, None;
    /// Visible output tokens.
    Output = "output", "output", MillionTokens, None;
    /// Output tokens spent on reasoning.
    Reasoning = "reasoning", "reasoning", MillionTokens, Some(Self::Output);
    /// Output tokens that a vendor counts in its total only.
    Hidden = "hidden", "hidden", MillionTokens, Some(Self::Reasoning);
    /// Input tokens read from a cache.
    CacheRead = "cache_read", "cache_read", MillionTokens, Some(Self::Input);
    /// Input tokens written to a cache.
    CacheWrite = "cache_write", "cache_write", MillionTokens, Some(Self::Input);
    /// Input tokens written to a cache that lasts an hour.
    CacheWriteHour = "cache_write_1h", "cache-write-1h", MillionTokens, Some(Self::CacheWrite);
    /// Sound that goes in, in tokens.
    InputAudio = "input_audio", "input-audio", MillionTokens, Some(Self::Input);
    /// Pictures that go in, in tokens.
    InputImage = "input_image", "input-image", MillionTokens, Some(Self::Input);
    /// Films that go in, in tokens.
    InputVideo = "input_video", "input-video", MillionTokens, Some(Self::Input);
    /// Sound read from a cache, in tokens.
    CacheReadAudio = "cache_read_audio", "cache-read-audio", MillionTokens, Some(Self::CacheRead);
    /// Pictures read from a cache, in tokens.
    CacheReadImage = "cache_read_image", "cache-read-image", MillionTokens, Some(Self::CacheRead);
    /// Sound that comes out, in tokens.
    OutputAudio = "output_audio", "output-audio", MillionTokens, Some(Self::Output);
    /// Pictures that come out, in tokens.
    OutputImage = "output_image", "output-image", MillionTokens, Some(Self::Output);
    /// Films that come out, in tokens.
    OutputVideo = "output_video", "output-video", MillionTokens, Some(Self::Output);
    /// A picture.
    Image = "image", "image-count", One, None;
    /// A second of a film.
    VideoSecond = "video_second", "video-seconds", One, None;
    /// A second of sound.
    AudioSecond = "audio_second", "audio-seconds", One, None;
    /// A character of a text that is spoken.
    Character = "character", "characters", One, None;
    /// A search unit of a ranking.
    SearchUnit = "search_unit", "search-units", One, None;
    /// A request, whatever is in it.
    Request = "request", "requests", One, None;
}

impl Rate {
    /// The rate of a bucket.
    #[must_use]
    pub fn of_bucket(bucket: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rate| rate.bucket() == bucket)
    }
}

/// Rates, and other ones for long inputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rates {
    /// Dollars for a unit.
    pub of: Vec<(Rate, Usd)>,
    /// For a call with more input tokens than this, all of its tokens cost so much; ascending.
    pub above: Vec<(u64, Vec<(Rate, Usd)>)>,
}

/// What a model costs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Price {
    /// It costs what another one costs: the name of that one. A `*` in it stands for what the `*` in this one's name stands for.
    pub like: Option<String>,
    /// The rates.
    pub rates: Rates,
    /// For a service tier ("batch", "flex", "priority"), where they differ.
    pub tiers: Vec<(String, Rates)>,
    /// Dollars for a picture of a quality and size: "hd/1024x1024", "1024x1024", "hd".
    pub images: Vec<(String, Usd)>,
    /// Dollars for a second of a film of so many lines: "1080p".
    pub video_seconds: Vec<(String, Usd)>,
    /// Dollars for a request to a tool of the vendor, by the tool's name in the usage (`tool-NAME`).
    pub tools: Vec<(String, Usd)>,
}

/// Service tiers that have rates of their own.
pub const TIERS: [&str; 3] = ["batch", "flex", "priority"];
/// Keys of a price that are no rates.
const OTHERS: [&str; 5] = ["like", "above", "images", "video_seconds", "tools"];
/// In a part of `above`: from how many input tokens on.
const TOKENS: &str = "tokens";

impl Price {
    /// A price of rates alone.
    #[must_use]
    pub fn of(rates: Vec<(Rate, Usd)>) -> Self {
        Self { rates: Rates { of: rates, above: Vec::new() }, ..Self::default() }
    }
}

/// What a table of a policy file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Price,
    /// The rates of a service tier.
    Tier,
    /// A part of `above`.
    Above,
}

impl Level {
    fn others(self) -> Vec<&'static str> {
        match self {
            Self::Price => OTHERS.into_iter().chain(TIERS).collect(),
            Self::Tier => vec!["above"],
            Self::Above => vec![TOKENS],
        }
    }
}

/// A key of a table.
enum Key {
    Rate(Rate),
    Other(&'static str),
}

impl<'de> serde::de::DeserializeSeed<'de> for Level {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        let key = String::deserialize(deserializer)?;
        if let Some(rate) = Rate::ALL.iter().find(|rate| rate.key() == key) {
            return Ok(Key::Rate(*rate));
        }
        let others = self.others();
        others.iter().find(|other| **other == key).map(|other| Key::Other(other)).ok_or_else(|| {
            let known = Rate::ALL.iter().map(|rate| rate.key()).chain(others.iter().copied());
            let known: Vec<String> = known.map(|name| format!("`{name}`")).collect();
            D::Error::custom(format!("unknown field `{key}`, expected one of {}", known.join(", ")))
        })
    }
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Table { price, .. } = Table::read(deserializer, Level::Price)?;
        if price.like.is_some() && price != (Self { like: price.like.clone(), ..Self::default() }) {
            return Err(D::Error::custom("`like` stands alone: a price is its own or that of another model"));
        }
        Ok(price)
    }
}

/// A table that is being read.
#[derive(Default)]
struct Table {
    price: Price,
    tokens: u64,
}

impl Table {
    fn read<'de, D: Deserializer<'de>>(deserializer: D, level: Level) -> Result<Self, D::Error> {
        struct Reader(Level);

        impl<'de> Visitor<'de> for Reader {
            type Value = Table;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of rates")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
                let mut table = Table::default();
                while let Some(key) = map.next_key_seed(self.0)? {
                    match key {
                        Key::Rate(rate) => table.price.rates.of.push((rate, map.next_value()?)),
                        Key::Other(other) => table.other(other, &mut map)?,
                    }
                }
                table.price.rates.of.sort_by_key(|(rate, _)| *rate as usize);
                Ok(table)
            }
        }

        deserializer.deserialize_map(Reader(level))
    }

    fn other<'de, A: MapAccess<'de>>(&mut self, key: &'static str, map: &mut A) -> Result<(), A::Error> {
        let price = &mut self.price;
        match key {
            "like" => price.like = Some(map.next_value()?),
            "above" => {
                let parts: Vec<Above> = map.next_value()?;
                price.rates.above = parts.into_iter().map(|part| (part.0.tokens, part.0.price.rates.of)).collect();
                price.rates.above.sort_by_key(|(tokens, _)| *tokens);
            }
            "images" => price.images = map.next_value::<Names>()?.0,
            "video_seconds" => price.video_seconds = map.next_value::<Names>()?.0,
            "tools" => price.tools = map.next_value::<Names>()?.0,
            TOKENS => self.tokens = map.next_value()?,
            tier => price.tiers.push((tier.to_owned(), map.next_value::<Tier>()?.0)),
        }
        Ok(())
    }
}

struct Above(Table);

impl<'de> Deserialize<'de> for Above {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = Table::read(deserializer, Level::Above)?;
        if table.tokens == 0 {
            return Err(D::Error::custom("`tokens` says above how many input tokens these rates hold"));
        }
        Ok(Self(table))
    }
}

struct Tier(Rates);

impl<'de> Deserialize<'de> for Tier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Table::read(deserializer, Level::Tier).map(|table| Self(table.price.rates))
    }
}

/// Amounts by names that are not ours.
struct Names(Vec<(String, Usd)>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = std::collections::BTreeMap::<String, Usd>::deserialize(deserializer)?;
        Ok(Self(names.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Price, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    fn usd(text: &str) -> Usd {
        Usd::parse(text).unwrap()
    }

    #[test]
    fn a_price_is_read_with_its_tiers() {
        let price = read(
            "input = 1.25\noutput = 10\ncache_write_1h = \"2.5\"\n\
             above = [{ tokens = 272000, input = 5 }, { tokens = 200_000, input = 2.5 }]\n\
             batch = { input = 0.625, above = [{ tokens = 200000, input = 1.25 }] }\n\
             images = { \"hd/1024x1024\" = 0.08 }\ntools = { web_search = 0.01 }\n",
        )
        .unwrap();
        let rates = [(Rate::Input, usd("1.25")), (Rate::Output, usd("10")), (Rate::CacheWriteHour, usd("2.5"))];
        assert_eq!(price.rates.of, rates);
        let above = [(200_000, vec![(Rate::Input, usd("2.5"))]), (272_000, vec![(Rate::Input, usd("5"))])];
        assert_eq!(price.rates.above, above);
        let batch =
            Rates { of: vec![(Rate::Input, usd("0.625"))], above: vec![(200_000, vec![(Rate::Input, usd("1.25"))])] };
        assert_eq!(price.tiers, [("batch".to_owned(), batch)]);
        assert_eq!(price.images, [("hd/1024x1024".to_owned(), usd("0.08"))]);
        assert_eq!(price.tools, [("web_search".to_owned(), usd("0.01"))]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, word) in [
            ("input = 1\ninptu = 2", "unknown field `inptu`, expected one of `input`"),
            ("batch = { like = \"x/y\" }", "unknown field `like`"),
            ("above = [{ input = 1 }]", "`tokens` says"),
            ("above = [{ tokens = 1, above = [] }]", "unknown field `above`"),
            ("like = \"a/b\"\ninput = 1", "`like` stands alone"),
            ("input = -1", "not below zero"),
            ("input = \"cheap\"", "write a decimal number"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!(read("input = 1\ninptu = 2").unwrap_err().contains("line 2, column 1"));
    }

    #[test]
    fn every_rate_falls_back_to_what_it_is_a_part_of_and_never_in_a_circle() {
        for rate in Rate::ALL {
            let chain: Vec<Rate> = std::iter::successors(Some(*rate), |rate| rate.instead()).take(9).collect();
            assert!(chain.len() < 5, "{chain:?}");
            assert!(chain.iter().all(|part| part.unit() == rate.unit()), "{chain:?}");
            assert_eq!(Rate::of_bucket(rate.bucket()), Some(*rate));
        }
    }
}
