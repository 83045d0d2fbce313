// SPDX-License-Identifier: Apache-2.0
//! Why a request got no answer. The texts are for operators: they name addresses, never a header, a path or a body.

use std::error::Error;
use std::time::Duration;

use rustix::io::Errno;

use super::body::BodyError;

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The name could not be resolved or no connection could be made.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The proxy on the way cannot be reached, or makes no connection.
    #[error("{0}")]
    Proxy(String),
    /// The TLS handshake failed.
    #[error("TLS handshake failed: {0}")]
    Tls(String),
    /// Connecting, TLS included, took too long.
    #[error("no connection within {} ms", .0.as_millis())]
    ConnectTimeout(Duration),
    /// The head of the answer did not come in time.
    #[error("no answer within {} ms", .0.as_millis())]
    FirstByteTimeout(Duration),
    /// The connection or the stream ended before the head of the answer came.
    #[error("connection lost before the answer: {0}")]
    Reset(String),
    /// The answer is not HTTP, or the request cannot be sent as it is.
    #[error("not a valid exchange: {0}")]
    Protocol(String),
    /// A pooled connection was gone, or the upstream refused the stream (RFC 9113 section 8.7), before anything was processed.
    #[error("the request was not taken: {0}")]
    Unsent(String),
    /// This process has no descriptor left for a connection, or the system no memory; not the upstream's fault.
    #[error("no connection can be opened here: {0}")]
    Exhausted(String),
    /// The caller's body broke while it was being sent; not the upstream's fault.
    #[error("the caller's request: {0}")]
    RequestBody(BodyError),
}

/// Errors of a connect that say that there is none to be had here (connect(2), socket(2)).
const OURS: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];

impl SendError {
    /// Whether the upstream has certainly processed nothing, so that any request may be tried again.
    pub fn before_sent(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Proxy(_) | Self::Tls(_) | Self::ConnectTimeout(_) => true,
            Self::Unsent(_) | Self::Exhausted(_) => true,
            Self::FirstByteTimeout(_) | Self::Reset(_) | Self::Protocol(_) | Self::RequestBody(_) => false,
        }
    }

    /// Whether the upstream is to blame.
    pub fn is_upstreams(&self) -> bool {
        !matches!(self, Self::RequestBody(_) | Self::Exhausted(_))
    }

    /// Why no connection could be made.
    pub(super) fn unconnected(error: &(dyn Error + 'static)) -> Self {
        let is_ours = |error: &std::io::Error| {
            error.raw_os_error().map(Errno::from_raw_os_error).is_some_and(|errno| OURS.contains(&errno))
        };
        let ours = chain(error).filter_map(|cause| cause.downcast_ref()).find(|error| is_ours(error));
        ours.map_or_else(|| Self::Connect(cause(error)), |error| Self::Exhausted(error.to_string()))
    }

    /// The reason in an error of the pooled client.
    pub(super) fn classify(error: &(dyn Error + 'static)) -> Self {
        for cause in chain(error) {
            if let Some(error) = cause.downcast_ref::<Self>() {
                return error.clone();
            }
            if let Some(error) = cause.downcast_ref::<BodyError>() {
                return Self::RequestBody(error.clone());
            }
            if let Some(error) = cause.downcast_ref::<h2::Error>() {
                return http2(error);
            }
            if let Some(error) = cause.downcast_ref::<hyper::Error>() {
                if error.is_canceled() {
                    return Self::Unsent(String::from("the pooled connection was closed"));
                }
                if error.is_parse() || error.is_parse_too_large() {
                    return Self::Protocol(error.to_string());
                }
            }
        }
        let protocol = chain(error).filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(hyper::Error::is_user);
        if protocol { Self::Protocol(cause(error)) } else { Self::Reset(cause(error)) }
    }
}

fn http2(error: &h2::Error) -> SendError {
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => SendError::Unsent(String::from("stream refused")),
        Some(h2::Reason::HTTP_1_1_REQUIRED | h2::Reason::PROTOCOL_ERROR | h2::Reason::FRAME_SIZE_ERROR) => {
            SendError::Protocol(http2_text(error))
        }
        _ => SendError::Reset(http2_text(error)),
    }
}

/// What an HTTP/2 error says, without the debug data of a GOAWAY, which is the peer's own text.
fn http2_text(error: &h2::Error) -> String {
    match (error.reason(), error.get_io()) {
        (Some(reason), _) if error.is_go_away() => format!("HTTP/2 connection closed: {reason}"),
        (Some(reason), _) => format!("HTTP/2 stream reset: {reason}"),
        (None, Some(io)) => io.kind().to_string(),
        (None, None) => String::from("HTTP/2 error"),
    }
}

/// The innermost reason of an error, in words that repeat nothing the peer sent.
pub(super) fn cause(error: &(dyn Error + 'static)) -> String {
    let mut text = String::from("closed");
    for cause in chain(error) {
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            return http2_text(error);
        }
        text = match cause.downcast_ref::<std::io::Error>() {
            // An I/O error of our own may wrap what matters.
            Some(io) if io.get_ref().is_none() => io.kind().to_string(),
            _ => cause.to_string(),
        };
    }
    text
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
