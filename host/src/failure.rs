// SPDX-License-Identifier: Apache-2.0
//! Every way in which a request can fail: one table of stable code, status, whose fault it is, and what to do next.
//!
//! A [`Failure`] becomes an answer in the caller's dialect; the log gets the code. Neither ever holds a key.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use penstock_dialects::ir::{Fault, FaultClass};

use crate::plugin::types::CallError;
use crate::upstream::{BodyError, SendError, Verdict};

/// Who has to act so that the request can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Who asked.
    Caller,
    /// The vendor or service that was asked.
    Upstream,
    /// The author of a plugin.
    Plugin,
    /// Whoever runs this gateway.
    Operator,
}

impl Whose {
    /// Name in logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Upstream => "upstream",
            Self::Plugin => "plugin",
            Self::Operator => "operator",
        }
    }
}

macro_rules! failures {
    ($($(#[$doc:meta])* $kind:ident = $code:literal, $status:literal, $class:ident, $whose:ident;)*) => {
        /// Kinds of failure; the rows of the table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// Stable code, for logs, metrics and the `penstock-failure` header.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$kind => $code,)* }
            }

            /// The class under which the caller's dialect reports it.
            #[must_use]
            pub fn class(self) -> FaultClass {
                match self { $(Self::$kind => FaultClass::$class,)* }
            }

            /// Whose fault it is.
            #[must_use]
            pub fn whose(self) -> Whose {
                match self { $(Self::$kind => Whose::$whose,)* }
            }

            fn status(self) -> u16 {
                match self { $(Self::$kind => $status,)* }
            }
        }
    };
}

failures! {
    /// The head of the request is not acceptable.
    BadHead = "bad-head", 400, InvalidRequest, Caller;
    /// The body cannot be read.
    BadBody = "bad-body", 400, InvalidRequest, Caller;
    /// The body did not come in time.
    BodyTimeout = "body-timeout", 408, InvalidRequest, Caller;
    /// The body is over `limits.body_bytes_max`.
    BodyTooLarge = "body-too-large", 413, InvalidRequest, Caller;
    /// The body is compressed, or not JSON by its own account.
    BodyUnsupported = "body-unsupported", 415, InvalidRequest, Caller;
    /// No route matches.
    NoRoute = "no-route", 404, ModelNotFound, Caller;
    /// The path is of no dialect that this gateway speaks.
    UnknownOperation = "unknown-operation", 404, ModelNotFound, Caller;
    /// The model is neither an alias nor served by a vendor.
    UnknownModel = "unknown-model", 404, ModelNotFound, Caller;
    /// The credential is missing or wrong.
    Unauthenticated = "unauthenticated", 401, Authentication, Caller;
    /// The credential does not allow this.
    Forbidden = "forbidden", 403, Permission, Caller;
    /// Who asks cannot be found out now: whoever knows it is away.
    AuthAway = "auth-away", 503, Overloaded, Operator;
    /// A limit refuses the call for now.
    Limited = "limited", 429, RateLimit, Caller;
    /// A strict route, and a part of the request has no place at the vendor.
    NotCarried = "not-carried", 400, Unsupported, Caller;
    /// No target can serve this call.
    Unsupported = "unsupported", 400, Unsupported, Caller;
    /// The shared state is away, and the policy says that calls with a limit do not go on without it.
    StateAway = "state-away", 503, Overloaded, Operator;
    /// There is no room for another budget, or to remember what calls use while the shared state is away.
    StateFull = "state-full", 503, Overloaded, Operator;
    /// The gateway has more to do than it can (`limits.shed_delay_ms`, `limits.requests_max`), or no descriptor left.
    Overloaded = "overloaded", 503, Overloaded, Operator;
    /// Routing left no target.
    NoTarget = "no-target", 503, Overloaded, Operator;
    /// The vendor refused; status and class are the vendor's.
    Refused = "upstream-refused", 502, VendorBug, Upstream;
    /// No connection to the upstream.
    Unreachable = "upstream-unreachable", 502, Overloaded, Upstream;
    /// The proxy on the way to the upstream makes no connection.
    ProxyFailed = "proxy-failed", 502, Overloaded, Operator;
    /// The upstream did not answer in time.
    UpstreamTimeout = "upstream-timeout", 504, Timeout, Upstream;
    /// The upstream cut its answer short.
    Cut = "upstream-cut", 502, VendorBug, Upstream;
    /// The upstream's answer cannot be understood, or is over a limit.
    BadAnswer = "upstream-bad-answer", 502, VendorBug, Upstream;
    /// A plugin broke, and its kind or the policy says that the call must not go on without it.
    PluginBroken = "plugin-broken", 503, Overloaded, Plugin;
    /// The adapter of every target broke.
    AdapterBroken = "adapter-broken", 502, VendorBug, Plugin;
    /// The caller has no job of this id here.
    UnknownJob = "unknown-job", 404, ModelNotFound, Caller;
    /// The job has no answer, or not yet.
    JobWithoutAnswer = "job-without-answer", 409, InvalidRequest, Caller;
    /// The key of a request was used before, for another one.
    KeyReused = "idempotency-key-reused", 422, InvalidRequest, Caller;
    /// The policy does not allow a report to this URL.
    WebhookRefused = "webhook-refused", 400, InvalidRequest, Caller;
    /// The store of jobs is full (`jobs.max`, `jobs.bytes_max`).
    JobsFull = "jobs-full", 503, Overloaded, Operator;
    /// The store of jobs cannot be written or read.
    JobsBroken = "jobs-broken", 503, Overloaded, Operator;
    /// The gateway ended while a request of the job was on its way, and nobody knows what has become of that.
    JobInterrupted = "job-interrupted", 502, VendorBug, Operator;
    /// The exchange took longer than `timeouts.total_ms`, or a job than `jobs.deadline_s`.
    TotalTimeout = "total-timeout", 504, Timeout, Operator;
    /// The vendor gives the gateway no short-lived credential.
    NoCredential = "no-credential", 502, VendorBug, Operator;
    /// The policy is inconsistent in a way that only a request shows.
    Misconfigured = "misconfigured", 500, VendorBug, Operator;
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The row of the table.
    pub kind: Kind,
    /// What the caller reads.
    pub fault: Fault,
    /// What only the operator's log says: addresses, the words of a library. Never a key.
    pub cause: Option<String>,
}

impl Failure {
    /// A failure of this kind; `message` says what happened and what to do next.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, fault: Fault::new(kind.class(), message), cause: None }
    }

    /// A failure of this kind in the words of somebody else.
    #[must_use]
    pub fn of_fault(kind: Kind, fault: Fault) -> Self {
        Self { kind, fault, cause: None }
    }

    /// The same failure, with a cause for the log.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Nobody serves this model.
    #[must_use]
    pub fn unknown_model(model: &str) -> Self {
        let message = format!("no vendor serves the model {model:?}; GET the models to see what there is");
        Self::new(Kind::UnknownModel, message)
    }

    /// A refusal of the vendor, as its adapter has classified it.
    #[must_use]
    pub fn refused(fault: Fault) -> Self {
        Self::of_fault(Kind::Refused, fault)
    }

    /// Why an upstream gave no answer. The caller reads what kind of thing happened; where, is the operator's business.
    #[must_use]
    pub fn unanswered(error: &SendError, upstream: &str) -> Self {
        let (kind, text) = match error {
            SendError::RequestBody(_) => (Kind::BadBody, "the body of the request broke off".to_owned()),
            SendError::ConnectTimeout(limit) => {
                (Kind::UpstreamTimeout, format!("{upstream} took no connection within {} ms", limit.as_millis()))
            }
            SendError::FirstByteTimeout(limit) => {
                (Kind::UpstreamTimeout, format!("{upstream} gave no answer within {} ms", limit.as_millis()))
            }
            SendError::Proxy(_) => (
                Kind::ProxyFailed,
                format!("the proxy on the way to {upstream} made no connection; tell the operator if it persists"),
            ),
            SendError::Exhausted(_) => {
                (Kind::Overloaded, "the gateway can open no more connections now; try again".to_owned())
            }
            SendError::Protocol(_) => (Kind::BadAnswer, format!("{upstream} gave an answer that is no HTTP")),
            _ => (Kind::Unreachable, format!("{upstream} cannot be reached; try again, or name another model")),
        };
        Self::new(kind, text).because(error)
    }

    /// An answer that broke off.
    #[must_use]
    pub fn cut(error: &BodyError) -> Self {
        let (kind, text) = match error {
            BodyError::Idle(limit) => {
                (Kind::UpstreamTimeout, format!("the upstream fell silent for {} ms in its answer", limit.as_millis()))
            }
            BodyError::Cut(_) => (Kind::Cut, "the upstream broke off before its answer was complete".to_owned()),
        };
        Self::new(kind, text).because(error)
    }

    /// What a policy plugin of some kind said, or that it broke: policy plugins fail closed.
    #[must_use]
    pub fn of_policy(error: CallError, refusal: Kind) -> Self {
        match error {
            CallError::Fault(fault) => {
                let kind = match fault.class {
                    FaultClass::Authentication => Kind::Unauthenticated,
                    FaultClass::Permission | FaultClass::Billing => Kind::Forbidden,
                    FaultClass::RateLimit | FaultClass::Quota => Kind::Limited,
                    FaultClass::ModelNotFound => Kind::UnknownModel,
                    FaultClass::Overloaded | FaultClass::Timeout if refusal == Kind::Unauthenticated => Kind::AuthAway,
                    _ => refusal,
                };
                Self::of_fault(kind, fault)
            }
            CallError::Broken { ref plugin, .. } => {
                let text =
                    format!("the plugin {plugin} could not decide on this call; tell the operator if it persists");
                Self::new(Kind::PluginBroken, text).because(&error)
            }
        }
    }

    /// What an adapter said, or that it broke.
    #[must_use]
    pub fn of_adapter(error: CallError) -> Self {
        match error {
            CallError::Fault(fault) if fault.class == FaultClass::Unsupported => {
                Self::of_fault(Kind::Unsupported, fault)
            }
            CallError::Fault(fault) => Self::refused(fault),
            CallError::Broken { ref plugin, .. } => {
                let text =
                    format!("the adapter of {plugin} broke on this call; another model or a later try may do better");
                Self::new(Kind::AdapterBroken, text).because(&error)
            }
        }
    }

    /// The same failure with a time to wait.
    #[must_use]
    pub fn retry_after(mut self, ms: Option<u64>) -> Self {
        self.fault.retry_after_ms = ms;
        self
    }

    /// The HTTP status that the caller reads.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        let status = if self.kind == Kind::Refused { self.fault.class.status() } else { self.kind.status() };
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether the same target may do better a moment later, and after which wait at least: what it has stated, else none. One
    /// that was asked for too much and does not say until when will not; one that has begun to answer has charged for it.
    #[must_use]
    pub fn passes(&self) -> Option<Option<u64>> {
        let stated = self.fault.retry_after_ms;
        let passes = match (self.kind, self.fault.class) {
            (Kind::Unreachable | Kind::ProxyFailed, _) => true,
            (Kind::Refused, FaultClass::Overloaded | FaultClass::Timeout | FaultClass::VendorBug) => true,
            (Kind::Refused, FaultClass::RateLimit | FaultClass::Quota) => stated.is_some(),
            _ => false,
        };
        passes.then_some(stated)
    }

    /// Whether this says that the target is not well: that it cannot be reached, is late, is down, or gives half answers. What
    /// is the caller's fault says nothing of it, nor does what is wrong with a key.
    fn blames_the_target(&self) -> bool {
        match self.kind {
            Kind::Unreachable | Kind::ProxyFailed | Kind::UpstreamTimeout | Kind::Cut | Kind::BadAnswer => true,
            Kind::Refused => {
                matches!(self.fault.class, FaultClass::Overloaded | FaultClass::Timeout | FaultClass::VendorBug)
            }
            _ => false,
        }
    }

    /// What this says of the target.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (self.fault.class, self.fault.retry_after_ms) {
            (FaultClass::RateLimit | FaultClass::Quota, Some(ms)) if self.kind == Kind::Refused => {
                Verdict::Later(Duration::from_millis(ms))
            }
            _ if self.blames_the_target() => Verdict::Ill,
            _ => Verdict::Neutral,
        }
    }

    /// Whether the request would fail at this target however often it is asked.
    #[must_use]
    pub fn is_about_the_request(&self) -> bool {
        self.kind == Kind::Refused && self.fault.class == FaultClass::InvalidRequest
    }

    /// Whether another target may do better.
    #[must_use]
    pub fn is_worth_another_target(&self) -> bool {
        match self.kind {
            Kind::Unreachable | Kind::ProxyFailed | Kind::UpstreamTimeout | Kind::Cut | Kind::BadAnswer => true,
            // Another target may have a connection left that is open.
            Kind::Overloaded => true,
            Kind::AdapterBroken | Kind::Unsupported | Kind::NotCarried | Kind::NoCredential => true,
            Kind::Refused => !matches!(self.fault.class, FaultClass::InvalidRequest | FaultClass::ContentFilter),
            _ => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.kind.code(), self.fault.message)?;
        self.cause.as_ref().map_or(Ok(()), |cause| write!(out, " ({cause})"))
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_code_of_its_own_and_an_error_status() {
        let mut codes: Vec<_> = Kind::ALL.iter().map(|kind| kind.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!(Failure::new(*kind, "x").status().as_u16() >= 400, "{}", kind.code());
        }
    }

    #[test]
    fn a_failure_is_counted_against_whoever_has_to_act() {
        let refused = |class, wait| Failure::refused(Fault { retry_after_ms: wait, ..Fault::new(class, "x") });
        let later = Verdict::Later(Duration::from_secs(1));
        let cases = [
            (refused(FaultClass::InvalidRequest, None), Verdict::Neutral, None),
            (refused(FaultClass::ContentFilter, None), Verdict::Neutral, None),
            (refused(FaultClass::ContextTooLong, None), Verdict::Neutral, None),
            (refused(FaultClass::Authentication, None), Verdict::Neutral, None),
            (refused(FaultClass::RateLimit, None), Verdict::Neutral, None),
            (refused(FaultClass::RateLimit, Some(1000)), later, Some(Some(1000))),
            (refused(FaultClass::Overloaded, None), Verdict::Ill, Some(None)),
            (Failure::new(Kind::Unreachable, "x"), Verdict::Ill, Some(None)),
            (Failure::new(Kind::ProxyFailed, "x"), Verdict::Ill, Some(None)),
            (Failure::new(Kind::UpstreamTimeout, "x"), Verdict::Ill, None),
            (Failure::new(Kind::Cut, "x"), Verdict::Ill, None),
            (Failure::new(Kind::AdapterBroken, "x"), Verdict::Neutral, None),
            (Failure::new(Kind::TotalTimeout, "x"), Verdict::Neutral, None),
            (Failure::unanswered(&SendError::Exhausted("x".into()), "v"), Verdict::Neutral, None),
        ];
        for (failure, verdict, passes) in cases {
            assert_eq!((failure.verdict(), failure.passes()), (verdict, passes), "{failure:?}");
        }
    }

    #[test]
    fn a_broken_policy_plugin_fails_closed() {
        let broken = CallError::Broken { plugin: "gate".into(), reason: crate::plugin::types::Broken::Memory };
        let failure = Failure::of_policy(broken, Kind::Unauthenticated);
        assert_eq!((failure.kind, failure.status().as_u16()), (Kind::PluginBroken, 503));
    }
}
