// SPDX-License-Identifier: Apache-2.0
//! What a call may come to, before anybody has been asked: what limits reserve for it.

use penstock_dialects::codec::Operation;
use penstock_dialects::ir::Usage;
use penstock_prices::cost::{self, Made};
use serde_json::Value;

use crate::inbound::Inbound;
use crate::plugin::types::Counted;
use crate::routes::Target;

/// Bytes of a body for each token of input, until the vendor tells.
const TOKEN_BYTES: usize = 4;
/// Where callers say how many tokens an answer may have, in one dialect or another.
const TOKENS_MAX: [&str; 3] = ["max_completion_tokens", "max_output_tokens", "max_tokens"];
/// The same within another member.
const NESTED: [(&str, &str); 2] = [("generationConfig", "maxOutputTokens"), ("inferenceConfig", "maxTokens")];
/// Length of a film of which nothing is said, in seconds.
const FILM_SECONDS: u64 = 5;

/// What a call may come to. Costs are in 10^-9 US dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Tokens of input.
    pub input: u64,
    /// Tokens of output at most.
    pub output: u64,
    /// What the input costs.
    pub input_cost: u64,
    /// What the output costs at most.
    pub output_cost: u64,
}

impl Estimate {
    /// What a request may come to at the dearest of its targets. `output_tokens` holds where the caller does not say how long an
    /// answer may be.
    #[must_use]
    pub fn of(inbound: &Inbound<'_>, targets: &[Target], output_tokens: u64) -> Self {
        let input = Self::input_of(inbound);
        let answers = number(inbound, "n").or_else(|| number(inbound, "num_images")).unwrap_or(1).max(1);
        let made = inbound.made();
        let mut output = 0;
        let more = match inbound.asked.operation {
            Operation::Chat => {
                output = tokens_max(inbound).unwrap_or(output_tokens).saturating_mul(answers);
                Vec::new()
            }
            Operation::Images | Operation::ImageEdits => vec![("image-count".to_owned(), answers)],
            Operation::Videos => {
                let seconds = number(inbound, "seconds").or_else(|| number(inbound, "duration"));
                vec![("video-seconds".to_owned(), seconds.unwrap_or(FILM_SECONDS))]
            }
            _ => Vec::new(),
        };
        let whole = Usage { input, output, more, ..Usage::default() };
        let alone = Usage { input, ..Usage::default() };
        let mut dearest = (0, 0);
        for price in targets.iter().filter_map(|target| target.price.as_deref()) {
            let nano = |usage: &Usage, made: &Made| cost::by(price, usage, made).nano();
            let found = (nano(&whole, &made), nano(&alone, &made));
            dearest = dearest.max(found);
        }
        let (all, input_cost) = dearest;
        Self { input, output, input_cost, output_cost: all.saturating_sub(input_cost) }
    }

    /// Tokens of a request.
    #[must_use]
    pub fn input_of(inbound: &Inbound<'_>) -> u64 {
        (inbound.body.len() / TOKEN_BYTES) as u64
    }

    /// What is reserved of a limit. So that a caller who allows a long answer is not refused for ever, the output takes no
    /// more than all that the limit has.
    #[must_use]
    pub fn of_limit(self, counted: Counted, limit: u64) -> u64 {
        let (input, output) = match counted {
            Counted::Requests => (1, 0),
            Counted::Tokens => (self.input, self.output),
            Counted::InputTokens => (self.input, 0),
            Counted::OutputTokens => (0, self.output),
            Counted::Cost => (self.input_cost, self.output_cost),
        };
        input + output.min(limit.saturating_sub(input))
    }
}

fn tokens_max(inbound: &Inbound<'_>) -> Option<u64> {
    let plain = TOKENS_MAX.iter().find_map(|name| number(inbound, name));
    plain.or_else(|| {
        NESTED.iter().find_map(|(outer, inner)| {
            let json: Value = serde_json::from_str(inbound.content.member(outer)?).ok()?;
            json.get(inner)?.as_u64()
        })
    })
}

/// A number, which a form or a careless caller writes as text.
fn number(inbound: &Inbound<'_>, name: &str) -> Option<u64> {
    let text = match inbound.content.member(name) {
        Some(json) => json.trim().trim_matches('"').to_owned(),
        None => inbound.content.text(name)?,
    };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_is_reserved_as_far_as_the_limit_has_it() {
        let estimate = Estimate { input: 10, output: 100, input_cost: 7, output_cost: 70 };
        let cases = [
            (Counted::Tokens, 1000, 110),
            (Counted::Tokens, 50, 50),
            (Counted::Tokens, 5, 10),
            (Counted::InputTokens, 5, 10),
            (Counted::OutputTokens, 60, 60),
            (Counted::Cost, 1000, 77),
            (Counted::Cost, 20, 20),
            (Counted::Requests, 9, 1),
        ];
        for (counted, limit, reserved) in cases {
            assert_eq!(estimate.of_limit(counted, limit), reserved, "{counted:?} {limit}");
        }
    }
}
