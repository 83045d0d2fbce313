// SPDX-License-Identifier: Apache-2.0
//! Money without rounding: a whole number of 10^-15 US dollars. That is fine enough for a price of one token that is written
//! with nine decimals for a million of them, and a `u128` holds more of them than there is money.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Decimals of a dollar that are kept.
const DECIMALS: u32 = 15;
/// A dollar.
const DOLLAR: u128 = 10_u128.pow(DECIMALS);
/// Integers below this are floats, too.
const EXACT: u128 = 1 << 53;
/// Digits that a number in a file may have: those that every reader of TOML and JSON gives back unchanged.
const DIGITS_MAX: usize = 15;

/// An amount of US dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(u128);

/// Why a text is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAmount {
    /// It is no decimal number, or below zero.
    #[error("write a decimal number that is not below zero, such as 0.25")]
    NoNumber,
    /// It has decimals that would be lost.
    #[error("an amount has at most fifteen decimals")]
    TooFine,
    /// Nobody charges that much.
    #[error("the amount is too large")]
    TooLarge,
}

impl Usd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// A decimal number of dollars, with or without exponent: `0.25`, `1.25e-06`.
    ///
    /// # Errors
    /// Why it is none; it is never rounded.
    pub fn parse(text: &str) -> Result<Self, NoAmount> {
        let (digits, exponent) = split(text)?;
        let shift = exponent.saturating_add(i64::from(DECIMALS));
        let ten = |power: i64| u32::try_from(power).ok().and_then(|power| 10_u128.checked_pow(power));
        if digits == 0 {
            return Ok(Self::ZERO);
        }
        if shift >= 0 {
            let amount = ten(shift).and_then(|factor| digits.checked_mul(factor));
            return amount.map(Self).ok_or(NoAmount::TooLarge);
        }
        let divisor = ten(-shift).filter(|divisor| digits.is_multiple_of(*divisor)).ok_or(NoAmount::TooFine)?;
        Ok(Self(digits / divisor))
    }

    /// As [`Usd::parse`], but rounded to what is kept: for amounts that others have computed in floating point.
    ///
    /// # Errors
    /// Why it is no amount.
    pub fn parse_rounded(text: &str) -> Result<Self, NoAmount> {
        let (mut digits, mut exponent) = split(text)?;
        let mut rest = 0;
        if digits == 0 {
            return Ok(Self::ZERO);
        }
        while exponent < -i64::from(DECIMALS) && digits > 0 {
            rest = digits % 10;
            digits /= 10;
            exponent += 1;
        }
        if exponent < -i64::from(DECIMALS) {
            return Ok(Self::ZERO); // not even a half of what is kept
        }
        let shift = u32::try_from(exponent + i64::from(DECIMALS)).map_err(|_| NoAmount::TooLarge)?;
        let amount = 10_u128.checked_pow(shift).and_then(|factor| digits.checked_mul(factor));
        amount.map(|amount| Self(amount + u128::from(rest >= 5))).ok_or(NoAmount::TooLarge)
    }

    /// This many 10^-`decimals` dollars; what is finer than what is kept is cut off.
    #[must_use]
    pub fn of(count: u128, decimals: u32) -> Self {
        let fine = decimals.saturating_sub(DECIMALS);
        let coarse = DECIMALS.saturating_sub(decimals);
        Self(count.saturating_mul(10_u128.saturating_pow(coarse)) / 10_u128.saturating_pow(fine))
    }

    /// So many times the amount.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(u128::from(count)))
    }

    /// The millionth part; what is finer than what is kept is rounded.
    #[must_use]
    pub fn per_million(self) -> Self {
        Self(self.0.saturating_add(500_000) / 1_000_000)
    }

    /// Rounded to so many decimals.
    #[must_use]
    pub fn rounded(self, decimals: u32) -> Self {
        let unit = 10_u128.saturating_pow(DECIMALS.saturating_sub(decimals));
        Self(self.0.saturating_add(unit / 2) / unit * unit)
    }

    /// As so many 10^-9 dollars; what is finer is counted whole.
    #[must_use]
    pub fn nano(self) -> u64 {
        u64::try_from(self.0.div_ceil(DOLLAR / 1_000_000_000)).unwrap_or(u64::MAX)
    }

    /// For metrics and logs, whose numbers are floating point.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a metric has the precision of a float")]
    pub fn to_f64(self) -> f64 {
        // Two integers that floats have exactly divide into the nearest float, which prints as the same text (IEEE 754). Most
        // amounts are small once the zeros at their end are off; the text of another one is parsed.
        let (mut amount, mut dollar) = (self.0, DOLLAR);
        while amount >= EXACT && amount % 10 == 0 && dollar > 1 {
            (amount, dollar) = (amount / 10, dollar / 10);
        }
        if amount < EXACT {
            return amount as f64 / dollar as f64;
        }
        self.to_string().parse().unwrap_or(self.0 as f64 / DOLLAR as f64)
    }
}

impl Add for Usd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Self::add)
    }
}

impl fmt::Display for Usd {
    /// Decimals as far as there are some, never an exponent: `0.000971`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dollars, rest) = (self.0 / DOLLAR, self.0 % DOLLAR);
        if rest == 0 {
            return write!(f, "{dollars}");
        }
        let decimals = format!("{rest:015}");
        write!(f, "{dollars}.{}", decimals.trim_end_matches('0'))
    }
}

impl<'de> Deserialize<'de> for Usd {
    /// From a number or a text. A number of at most fifteen digits comes through a float unchanged; one with more must be
    /// written as a text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;

        impl Visitor<'_> for Amount {
            type Value = Usd;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of US dollars")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Usd, E> {
                Usd::parse(text).map_err(E::custom)
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Usd, E> {
                // The shortest text that reads as this float is what was written, unless that had too many digits.
                let text = format!("{number:e}");
                let digits = text.bytes().take_while(|byte| *byte != b'e').filter(u8::is_ascii_digit).count();
                if digits > DIGITS_MAX {
                    return Err(E::custom("write a number of more than fifteen digits in quotes"));
                }
                self.visit_str(&text)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Usd, E> {
                Ok(Usd(u128::from(number).saturating_mul(DOLLAR)))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Usd, E> {
                u64::try_from(number)
                    .map_err(|_| E::custom(NoAmount::NoNumber))
                    .and_then(|number| self.visit_u64(number))
            }
        }

        deserializer.deserialize_any(Amount)
    }
}

/// The digits of a decimal number as a whole number, and the power of ten that it is to be multiplied with.
fn split(text: &str) -> Result<(u128, i64), NoAmount> {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i64>().map_err(|_| NoAmount::NoNumber)?),
        None => (text, 0),
    };
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + decimals.len() == 0 || !all_digits(whole) || !all_digits(decimals) {
        return Err(NoAmount::NoNumber);
    }
    let decimals = decimals.trim_end_matches('0');
    let digits = whole
        .bytes()
        .chain(decimals.bytes())
        .try_fold(0_u128, |sum, digit| sum.checked_mul(10)?.checked_add(u128::from(digit - b'0')));
    let places = i64::try_from(decimals.len()).map_err(|_| NoAmount::TooFine)?;
    Ok((digits.ok_or(NoAmount::TooLarge)?, exponent.saturating_sub(places)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_without_loss() {
        let cases = [
            ("0", "0"),
            ("0.0", "0"),
            ("12", "12"),
            ("1.25", "1.25"),
            ("1.25e-06", "0.00000125"),
            ("2.5E+1", "25"),
            ("0.000000000000001", "0.000000000000001"),
            ("0.1000", "0.1"),
            (".5", "0.5"),
        ];
        for (written, shown) in cases {
            assert_eq!(Usd::parse(written).unwrap().to_string(), shown, "{written}");
        }
        for (wrong, why) in [
            ("", NoAmount::NoNumber),
            (".", NoAmount::NoNumber),
            ("-1", NoAmount::NoNumber),
            ("1,5", NoAmount::NoNumber),
            ("NaN", NoAmount::NoNumber),
            ("1e", NoAmount::NoNumber),
            ("1e-16", NoAmount::TooFine),
            ("1e99", NoAmount::TooLarge),
            ("1e-99", NoAmount::TooFine),
        ] {
            assert_eq!(Usd::parse(wrong), Err(why), "{wrong}");
        }
    }

    #[test]
    fn what_others_computed_in_floats_is_rounded() {
        let cases = [
            ("0.0006690000000000001", "0.000669"),
            ("1.4e-07", "0.00000014"),
            ("4.9e-16", "0"),
            ("0.0000000000000015", "0.000000000000002"),
            ("1e-400", "0"),
            ("3", "3"),
        ];
        for (written, shown) in cases {
            assert_eq!(Usd::parse_rounded(written).unwrap().to_string(), shown, "{written}");
        }
    }

    #[test]
    fn a_number_in_a_file_is_what_was_written_there() {
        #[derive(serde::Deserialize)]
        struct File {
            prices: Vec<Usd>,
        }
        let read = |text: &str| toml::from_str::<File>(text).map(|file| file.prices);
        let prices = read("prices = [0.1, 3, 1.142857142857, \"0.000000000000001\", 1e-7, 0.30000000000001]").unwrap();
        let shown: Vec<String> = prices.iter().map(Usd::to_string).collect();
        let written = ["0.1", "3", "1.142857142857", "0.000000000000001", "0.0000001", "0.30000000000001"];
        assert_eq!(shown, written);
        for wrong in
            ["prices = [-1]", "prices = [-0.5]", "prices = [1.2345678901234567]", "prices = [true]", "prices = [inf]"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn arithmetic_is_exact_and_saturates() {
        let price = Usd::parse("0.15").unwrap();
        assert_eq!(price.times(3).per_million().to_string(), "0.00000045");
        assert_eq!((price + price).to_string(), "0.3");
        assert_eq!([price; 4].into_iter().sum::<Usd>().to_string(), "0.6");
        assert_eq!(Usd(u128::MAX).times(2), Usd(u128::MAX));
        assert_eq!(Usd::of(1_170_600, 10).to_string(), "0.00011706");
        assert_eq!(Usd::parse("0.08800004").unwrap().rounded(4).to_string(), "0.088");
        assert!((Usd::parse("0.000971").unwrap().to_f64() - 0.000_971).abs() < f64::EPSILON);
    }
}
