// SPDX-License-Identifier: Apache-2.0
//! What the families of models behind this API take. The API is one, its parameters are not.

use crate::anthropic_messages::Generation;

/// Who has made a model, as far as requests differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Anthropic's Claude.
    Claude(Generation),
    /// Amazon's Nova.
    Nova,
    /// `OpenAI`'s open models.
    OpenAi,
    /// `DeepSeek`.
    DeepSeek,
    /// Mistral.
    Mistral,
    /// Another known maker.
    Other,
    /// A resource whose name does not tell (an application's inference profile, a custom model).
    Unknown,
}

impl Family {
    /// The family of a model by its name: `eu.anthropic.claude-sonnet-4-5-20250929-v1:0`, `amazon.nova-lite-v1:0`,
    /// `arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-…`.
    pub(super) fn of(model: &str) -> Self {
        let has = |word: &str| model.contains(word);
        if has("claude") {
            Self::Claude(Generation::of(model))
        } else if has("amazon.nova") {
            Self::Nova
        } else if has("openai.") {
            Self::OpenAi
        } else if has("deepseek.") {
            Self::DeepSeek
        } else if has("mistral.") {
            Self::Mistral
        } else if MAKERS.iter().any(|maker| has(maker)) {
            Self::Other
        } else {
            Self::Unknown
        }
    }

    /// Whether a cache mark may stand behind a block. Who runs a model that is not known may know that it can.
    pub(super) fn takes_cache_points(self) -> bool {
        matches!(self, Self::Claude(_) | Self::Nova | Self::Unknown)
    }

    /// Whether a cache mark may stand behind a tool.
    pub(super) fn takes_cached_tools(self) -> bool {
        matches!(self, Self::Claude(_) | Self::Unknown)
    }

    /// Whether thoughts that no signature seals are taken back: Claude refuses them, `DeepSeek` refuses all.
    pub(super) fn takes_unsealed_thoughts(self) -> bool {
        !matches!(self, Self::Claude(_) | Self::DeepSeek)
    }

    /// Whether thoughts are taken back at all.
    pub(super) fn takes_thoughts(self) -> bool {
        self != Self::DeepSeek
    }

    /// Whether an answer can be held to a JSON schema.
    pub(super) fn takes_schemas(self) -> bool {
        match self {
            Self::Claude(generation) => !generation.is_claude_before(4, 5),
            Self::Nova => false,
            _ => true,
        }
    }

    /// Whether a tool's arguments can be held to its schema.
    pub(super) fn takes_strict_tools(self) -> bool {
        match self {
            Self::Claude(generation) => !generation.is_claude_before(4, 5),
            Self::Unknown => true,
            _ => false,
        }
    }
}

/// Makers whose models have no ways of their own here.
const MAKERS: &[&str] = &[
    "ai21.",
    "amazon.",
    "cohere.",
    "google.",
    "meta.",
    "minimax.",
    "moonshot",
    "nvidia.",
    "qwen.",
    "stability.",
    "twelvelabs.",
    "writer.",
    "zai.",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_is_read_from_every_way_of_naming_a_model() {
        let cases = [
            ("us.anthropic.claude-haiku-4-5-20251001-v1:0", Family::Claude(Generation::Claude(4, 5))),
            ("anthropic.claude-v2", Family::Claude(Generation::Claude(0, 0))),
            ("arn:aws:bedrock:eu-west-1:1:inference-profile/eu.amazon.nova-pro-v1:0", Family::Nova),
            ("openai.gpt-oss-120b-1:0", Family::OpenAi),
            ("us.deepseek.r1-v1:0", Family::DeepSeek),
            ("mistral.mistral-large-2407-v1:0", Family::Mistral),
            ("us.meta.llama3-3-70b-instruct-v1:0", Family::Other),
            ("amazon.titan-text-express-v1", Family::Other),
            ("arn:aws:bedrock:us-east-1:1:application-inference-profile/a1b2c3", Family::Unknown),
        ];
        for (model, family) in cases {
            let found = Family::of(model);
            match (found, family) {
                (Family::Claude(_), Family::Claude(Generation::Claude(0, 0))) => {}
                _ => assert_eq!(found, family, "{model}"),
            }
        }
    }
}
