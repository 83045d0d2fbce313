// SPDX-License-Identifier: Apache-2.0
//! What operators can say of a vendor that is compatible with OpenAI in its own way: the configuration of the adapter for
//! such vendors. What it means for requests and answers is in the dialect (`openai_chat::ways`); this is its written form.

use std::collections::BTreeMap;

use penstock_dialects::ir::FaultClass;
use penstock_dialects::openai_chat::Style;
use penstock_dialects::openai_chat::ways::{
    self, AnswerWays, Back, FaultWays, Form, MemberWays, Thinking, Turns, UsageWays, Ways,
};
use penstock_sdk_macros::Config;
use serde_json::Value;

use crate::config::Issue;

type Texts = BTreeMap<String, String>;
type Values = BTreeMap<String, Value>;

/// The vendor's ways. What is left out is as at OpenAI.
#[derive(Debug, Config)]
pub struct Options {
    /// Which operations the vendor has where `paths` says nothing.
    #[config(default)]
    pub surface: Surface,
    /// Paths below the base URL, by operation; "" for an operation that the vendor does not have.
    #[config(default)]
    pub paths: Texts,
    /// What the vendor is asked in when a conversation has to be translated.
    #[config(default)]
    pub translate_by: TranslateBy,
    /// Where the key goes.
    #[config(default)]
    pub auth: Auth,
    /// A short-lived token that is got with the key, and goes where the key would.
    pub token: Option<Token>,
    /// Further headers, the same for each request.
    #[config(default)]
    pub headers: Texts,
    /// Headers of the caller that go to the vendor.
    #[config(default)]
    pub forward: Vec<String>,
    /// Query parameters, the same for each request.
    #[config(default)]
    pub query: Texts,
    /// Members of a chat request that this vendor calls otherwise: OpenAI's name = the vendor's name.
    #[config(default)]
    pub rename: Texts,
    /// Members that this vendor refuses. They are removed, and the caller is told.
    #[config(default)]
    pub drop: Vec<String>,
    /// Members that are set if the caller leaves them out.
    #[config(default)]
    pub default: Values,
    /// Numbers that must lie between two bounds; the nearer bound takes the place of one that does not.
    #[config(default)]
    pub clamp: BTreeMap<String, [f64; 2]>,
    /// Values that this vendor does not know: member, value (of an object its `type`) = what stands for it, "" for nothing.
    #[config(default)]
    pub values: BTreeMap<String, Values>,
    /// The same for other operations, by their names (`responses` and `completions` are some here).
    #[config(default)]
    pub operations: BTreeMap<String, Members>,
    /// Roles that have another name: OpenAI's name = the vendor's name.
    #[config(default)]
    pub roles: Texts,
    /// Members of messages that the vendor refuses.
    #[config(default)]
    pub drop_in_messages: Vec<String>,
    /// Whether a content that is a list of texts is sent as one text.
    #[config(default = false)]
    pub flat_text: bool,
    /// Whether turns of one role that follow one another are sent as one.
    #[config(default = false)]
    pub alternate: bool,
    /// Which ids of tool calls the vendor admits.
    #[config(default)]
    pub tool_ids: ToolIds,
    /// Thinking.
    #[config(default)]
    pub reasoning: Reasoning,
    /// Keywords of JSON Schema that the vendor refuses; `strict` means the member of a tool, too.
    #[config(default)]
    pub without_keywords: Vec<String>,
    /// How the vendor is asked for an answer that satisfies a schema.
    #[config(default)]
    pub structured: Structured,
    /// Whether the vendor tells the usage of a stream if `stream_options.include_usage` asks for it. Asked for in
    /// translated calls only: in a relayed one the caller would get a chunk that it did not ask for.
    #[config(default = true)]
    pub stream_usage: bool,
    /// Whether the vendor answers conversations only as a stream.
    #[config(default = false)]
    pub forced_stream: bool,
    /// Whether each chunk of a stream repeats the text so far.
    #[config(default = false)]
    pub cumulative: bool,
    /// Whether the vendor understands `cache_control` marks.
    #[config(default = false)]
    pub cache_marks: bool,
    /// Whether the vendor understands `top_k`.
    #[config(default = false)]
    pub top_k: bool,
    /// Finish reasons: the vendor's word = the canonical one.
    #[config(default)]
    pub finish: Texts,
    /// Where tokens are counted, if it cannot be known from the answer.
    pub usage: Option<Usage>,
    /// How errors are told.
    #[config(default)]
    pub faults: Faults,
}

/// Which operations a vendor has by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Config)]
pub enum Surface {
    /// `chat` and `embeddings`.
    #[default]
    Basic,
    /// Those of OpenAI.
    Openai,
}

/// What a vendor is asked in when a conversation has to be translated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Config)]
pub enum TranslateBy {
    /// Chat Completions.
    #[default]
    Chat,
    /// Responses.
    Responses,
}

/// Where the key goes.
#[derive(Debug, Config)]
pub struct Auth {
    /// Header, in lower case.
    #[config(default = "authorization", min = 1)]
    pub header: String,
    /// What stands before the key in the header.
    #[config(default = "Bearer ")]
    pub prefix: String,
    /// Query parameter, instead of a header.
    #[config(min = 1)]
    pub query: Option<String>,
}

impl Default for Auth {
    fn default() -> Self {
        Self { header: "authorization".to_owned(), prefix: "Bearer ".to_owned(), query: None }
    }
}

/// A short-lived token that is got with the key.
#[derive(Debug, Config)]
pub struct Token {
    /// Name of the endpoint in the policy; "" for the base URL.
    #[config(default)]
    pub endpoint: String,
    /// Path below it, for a GET.
    pub path: String,
    /// What stands before the key in the header `authorization`.
    #[config(default = "Bearer ")]
    pub prefix: String,
    /// JSON pointer to the token in the answer.
    #[config(default = "/token")]
    pub at: String,
    /// JSON pointer to the time until which it is valid, in seconds since 1970.
    #[config(default = "/expires_at")]
    pub expires_at: String,
    /// Seconds for which it is valid if the answer does not say.
    #[config(default = 1500)]
    pub lasts: u64,
}

/// Changes to the members of a request of another operation.
#[derive(Debug, Config)]
pub struct Members {
    /// As above.
    #[config(default)]
    pub rename: Texts,
    /// As above.
    #[config(default)]
    pub drop: Vec<String>,
    /// As above.
    #[config(default)]
    pub default: Values,
    /// As above.
    #[config(default)]
    pub clamp: BTreeMap<String, [f64; 2]>,
    /// As above.
    #[config(default)]
    pub values: BTreeMap<String, Values>,
}

/// The dialect's choices, by the names that operators write.
macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident = $of:path {
        $(#[$first_doc:meta])* $first:ident: $first_of:ident, $($(#[$variant_doc:meta])* $variant:ident: $variant_of:ident,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, Config)]
        pub enum $name {
            $(#[$first_doc])*
            #[default]
            $first,
            $($(#[$variant_doc])* $variant,)*
        }

        impl From<$name> for $of {
            fn from(choice: $name) -> Self {
                match choice {
                    $name::$first => Self::$first_of,
                    $($name::$variant => Self::$variant_of,)*
                }
            }
        }
    )*};
}

choices! {
    /// The member that says how much to think.
    Ask = Form {
        /// `reasoning_effort`.
        ReasoningEffort: Effort,
        /// `thinking: {"type": "enabled"}`.
        Thinking: Switch,
        /// `enable_thinking` and `thinking_budget`.
        EnableThinking: Flag,
        /// `reasoning: {"effort", "max_tokens", "enabled"}`.
        Reasoning: Object,
        /// `chat_template_kwargs: {"enable_thinking"}`.
        ChatTemplateKwargs: Template,
        /// The vendor cannot be told.
        None: Unsaid,
    }
    /// The member of a message in which reasoning goes back to the vendor.
    ReturnedIn = Back {
        /// `reasoning_content`.
        ReasoningContent: Content,
        /// `reasoning`.
        Reasoning: Reasoning,
        /// `reasoning_details`.
        ReasoningDetails: Details,
        /// A part of the content, of type `thinking`.
        Content: Part,
        /// It does not go back.
        None: Nowhere,
    }
    /// On which turns of the model the vendor demands its reasoning back; " " stands for what the caller has not kept.
    MustReturn = ways::MustReturn {
        /// On none.
        Never: Never,
        /// On those that call tools.
        ToolCalls: ToolCalls,
        /// On all.
        Always: Always,
    }
    /// Which ids of tool calls the vendor admits.
    ToolIds = ways::ToolIds {
        /// Any.
        Any: Any,
        /// Letters, digits, `_` and `-`.
        Plain: Plain,
        /// Exactly nine letters and digits.
        Nine: Nine,
    }
    /// How the vendor is asked for an answer that satisfies a schema.
    Structured = ways::Structured {
        /// By the schema.
        Schema: Schema,
        /// By `json_object`, and the schema among the instructions.
        Object: Object,
        /// Only by instructions.
        Instructions: Instructions,
    }
}

/// Thinking.
#[derive(Debug, Default, Config)]
pub struct Reasoning {
    /// The member that says how much to think.
    #[config(default)]
    pub ask: Ask,
    /// Whether `reasoning_effort` is understood beside it.
    #[config(default = false)]
    pub effort_beside: bool,
    /// The member of a message in which reasoning goes back to the vendor.
    #[config(default)]
    pub back: ReturnedIn,
    /// On which turns of the model the vendor demands it.
    #[config(default)]
    pub must_return: MustReturn,
}

/// Where tokens are counted, as JSON pointers; those without a value count nothing.
#[derive(Debug, Config)]
pub struct Usage {
    /// The usage object.
    #[config(default = "/usage")]
    pub at: String,
    /// Input tokens in it.
    #[config(default = "/prompt_tokens")]
    pub input: String,
    /// Output tokens.
    #[config(default = "/completion_tokens")]
    pub output: String,
    /// Input tokens read from a cache.
    #[config(default)]
    pub cached: String,
    /// Tokens spent on reasoning.
    #[config(default)]
    pub reasoning: String,
    /// Whether cached tokens are not part of the input tokens.
    #[config(default = false)]
    pub cached_outside: bool,
    /// Whether reasoning tokens are not part of the output tokens.
    #[config(default = false)]
    pub reasoning_outside: bool,
}

/// How errors are told.
#[derive(Debug, Default, Config)]
pub struct Faults {
    /// What holds of a 2xx answer that is no error: JSON pointer = the value that is there, if there is one.
    #[config(default)]
    pub success: Values,
    /// JSON pointer to the code.
    #[config(default)]
    pub code: String,
    /// JSON pointer to the message.
    #[config(default)]
    pub message: String,
    /// Class by code: "rate-limit", "billing" …
    #[config(default)]
    pub classes: Texts,
}

/// Operations with a path of their own, and where OpenAI has it. `responses` and `completions` are conversations in other
/// dialects; `count_tokens` is that of Responses.
const PATHS: [(&str, &str); 16] = [
    ("chat", "/chat/completions"),
    ("responses", "/responses"),
    ("completions", "/completions"),
    ("count_tokens", "/responses/input_tokens"),
    ("embeddings", "/embeddings"),
    ("rerank", "/rerank"),
    ("images", "/images/generations"),
    ("image_edits", "/images/edits"),
    ("videos", "/videos"),
    ("speech", "/audio/speech"),
    ("transcription", "/audio/transcriptions"),
    ("translation", "/audio/translations"),
    ("moderations", "/moderations"),
    ("files", "/files"),
    ("batches", "/batches"),
    ("realtime", "/realtime"),
];

impl Surface {
    fn has(self, operation: &str) -> bool {
        match self {
            Self::Basic => matches!(operation, "chat" | "embeddings"),
            Self::Openai => operation != "rerank",
        }
    }
}

impl Options {
    /// What is wrong beyond the types.
    #[must_use]
    pub fn issues(&self) -> Vec<Issue> {
        let mut issues = Vec::new();
        let known = |name: &String| PATHS.iter().any(|(known, _)| known == name);
        for (name, path) in &self.paths {
            if !known(name) {
                let names: Vec<_> = PATHS.iter().map(|(name, _)| *name).collect();
                issues.push(Issue::new(format!("paths.{name}"), format!("unknown; known here: {}", names.join(", "))));
            } else if !path.is_empty() && !path.starts_with('/') {
                issues.push(Issue::new(format!("paths.{name}"), "a path begins with a slash; \"\" for none"));
            }
        }
        for name in self.operations.keys().filter(|name| !known(name) || *name == "chat") {
            let text = "no further operation; what is about chat stands outside of this table";
            issues.push(Issue::new(format!("operations.{name}"), text));
        }
        let clamps = self.operations.iter().map(|(name, members)| (format!("operations.{name}."), &members.clamp));
        for (place, clamp) in clamps.chain([(String::new(), &self.clamp)]) {
            for (name, _) in clamp.iter().filter(|(_, [low, high])| low > high) {
                issues.push(Issue::new(format!("{place}clamp.{name}"), "the first bound is the lower one"));
            }
        }
        let headers = self.headers.keys().map(|name| (format!("headers.{name}"), name));
        let forward = self.forward.iter().enumerate().map(|(at, name)| (format!("forward[{at}]"), name));
        for (place, _) in headers.chain(forward).filter(|(_, name)| **name != name.to_ascii_lowercase()) {
            issues.push(Issue::new(place, "write the name in lower case"));
        }
        for (code, class) in self.faults.classes.iter().filter(|(_, class)| fault_class(class).is_none()) {
            let names: Vec<_> = FaultClass::ALL.iter().map(|class| class.name()).collect();
            let text = format!("{class:?} is no class; known are {}", names.join(", "));
            issues.push(Issue::new(format!("faults.classes.{code}"), text));
        }
        issues
    }

    /// OpenAI's path of an operation and the vendor's, if the vendor has it.
    #[must_use]
    pub fn path(&self, operation: &str) -> Option<(&'static str, &str)> {
        let (_, ours) = PATHS.iter().find(|(known, _)| *known == operation)?;
        let by_itself = Some(*ours).filter(|_| self.surface.has(operation));
        let theirs = self.paths.get(operation).map(String::as_str).or(by_itself)?;
        (!theirs.is_empty()).then_some((*ours, theirs))
    }

    /// Dialects and operations that this vendor does not have.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let is_missing = |place: &str| self.path(place).is_none();
        let converses = ["chat", "responses", "completions"].iter().any(|place| !is_missing(place));
        // Tokens are estimated where the vendor does not count them.
        let conversation = ["chat", "count_tokens"].into_iter().filter(|_| !converses);
        let others = PATHS.iter().map(|(operation, _)| *operation);
        let others = others.filter(|name| !matches!(*name, "chat" | "responses" | "completions" | "count_tokens"));
        let dialects =
            [("openai-responses", "responses"), ("stored", "responses"), ("openai-completions", "completions")];
        conversation
            .chain(others.filter(|name| is_missing(name)))
            .chain(dialects.into_iter().filter(|(_, place)| is_missing(place)).map(|(name, _)| name))
            .collect()
    }

    /// How a translated request is written.
    #[must_use]
    pub fn style(&self) -> Style {
        let (thinking, back) = (self.thinking(), self.reasoning.back.into());
        Style { cache_marks: self.cache_marks, top_k: self.top_k, thinking, back, ..Style::default() }
    }

    /// What a chat request has to be.
    #[must_use]
    pub fn ways(&self) -> Ways {
        let turns = Turns {
            roles: self.roles.clone(),
            drop: self.drop_in_messages.clone(),
            flat_text: self.flat_text,
            alternate: self.alternate,
            tool_ids: self.tool_ids.into(),
            must_return: self.reasoning.must_return.into(),
            returned_in: if matches!(self.reasoning.back, ReturnedIn::Reasoning) {
                "reasoning"
            } else {
                "reasoning_content"
            },
        };
        let members = MemberWays {
            rename: self.rename.clone(),
            drop: self.drop.clone(),
            default: self.default.clone(),
            clamp: self.clamp.clone(),
            values: self.values.clone(),
        };
        let without_keywords = self.without_keywords.clone();
        Ways { members, turns, thinking: self.thinking(), without_keywords, structured: self.structured.into() }
    }

    /// What the members of a request of another operation have to be.
    #[must_use]
    pub fn other_ways(&self) -> BTreeMap<String, MemberWays> {
        let members = |members: &Members| MemberWays {
            rename: members.rename.clone(),
            drop: members.drop.clone(),
            default: members.default.clone(),
            clamp: members.clamp.clone(),
            values: members.values.clone(),
        };
        self.operations.iter().map(|(name, of)| (name.clone(), members(of))).collect()
    }

    /// How answers are to be read.
    #[must_use]
    pub fn answer_ways(&self) -> AnswerWays {
        let usage = self.usage.as_ref().map(|usage| UsageWays {
            at: usage.at.clone(),
            input: usage.input.clone(),
            output: usage.output.clone(),
            cached: usage.cached.clone(),
            reasoning: usage.reasoning.clone(),
            cached_outside: usage.cached_outside,
            reasoning_outside: usage.reasoning_outside,
        });
        let Faults { success, code, message, classes } = &self.faults;
        let classes = classes.iter().filter_map(|(code, class)| Some((code.clone(), fault_class(class)?))).collect();
        let faults = FaultWays { success: success.clone(), code: code.clone(), message: message.clone(), classes };
        AnswerWays { finish: self.finish.clone(), usage, faults, cumulative: self.cumulative }
    }

    fn thinking(&self) -> Thinking {
        Thinking { form: self.reasoning.ask.into(), effort_beside: self.reasoning.effort_beside }
    }
}

fn fault_class(name: &str) -> Option<FaultClass> {
    FaultClass::ALL.iter().copied().find(|class| class.name() == name)
}
