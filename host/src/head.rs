// SPDX-License-Identifier: Apache-2.0
//! The head of a request, checked before anything is decided on it: one host, one path, no way to frame the body but one.
//!
//! hyper has parsed the bytes; what it lets through and a proxy must not is refused here. The parsed [`Address`] is what
//! routing, auth and filters look at, so that they cannot disagree about what was asked. Also here: which headers belong to
//! one hop and go no further, and the headers that tell an upstream who asked.
//!
//! Not seen here: a request with both `content-length` and `transfer-encoding`. hyper drops the length, reads chunks and
//! closes the connection afterwards (RFC 9112 section 6.1), and only the body itself goes on.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode, Version};

/// Chain of the addresses that a request came through.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Scheme that the caller used.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Host that the caller used.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How often an upstream may decode a path before it looks at it. Once is usual, twice is a known mistake.
const DECODINGS_MAX: usize = 2;

/// Digits of a length that every parser can hold: with one more, some would overflow.
const LENGTH_DIGITS_MAX: usize = 18;

/// Hop-by-hop headers (RFC 9110 section 7.6.1), beside those that `connection` names. `expect` is answered by this hop.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
];

/// Headers that a peer cannot have removed by naming them in `connection`: they are about the message or its sender.
const END_TO_END: [HeaderName; 5] = [HOST, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, http::header::AUTHORIZATION];

/// Whom and what a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address<'a> {
    /// Host in lower case, without the port and a final dot; an IPv6 address has its brackets.
    pub host: Cow<'a, str>,
    /// Port, if there is one.
    pub port: Option<u16>,
    /// Path as it was sent: starts with `/` (or is `*`) and has no dot segments.
    pub path: &'a str,
    /// Query without the `?`.
    pub query: Option<&'a str>,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// `CONNECT`: this is not a forward proxy.
    #[error("CONNECT is not offered; send the request to its path")]
    Connect,
    /// No host at all.
    #[error("the request names no host; send exactly one `host` header")]
    NoHost,
    /// More than one host, or `host` and the target disagree.
    #[error("the request names more than one host; send exactly one `host` header, equal to the target's authority")]
    ManyHosts,
    /// A host that is no host.
    #[error("the `host` header is not a host name with an optional port")]
    Host,
    /// Any `transfer-encoding` but a single `chunked`.
    #[error("`transfer-encoding` must be a single `chunked`")]
    TransferEncoding,
    /// A length that some parsers cannot hold.
    #[error("`content-length` has more than 18 digits")]
    ContentLength,
    /// HTTP/1.0 has no `transfer-encoding`.
    #[error("HTTP/1.0 has no `transfer-encoding`; use HTTP/1.1")]
    TransferEncodingVersion,
    /// A header value with control characters or bytes beyond ASCII.
    #[error("a header value has characters other than visible ASCII, space and tab; encode them")]
    HeaderValue,
    /// A path with dot segments, backslashes, control characters or bytes beyond ASCII.
    #[error(
        "the path has dot segments, backslashes or characters that are not allowed; send it normalised and encoded"
    )]
    Path,
    /// A plain path that is another route's to a parser that is more lenient.
    #[error(
        "the path can be read as one of another route; send it normalised, without empty segments, `;` and encoded `/`"
    )]
    ForeignPath,
    /// A path that other parsers may read as another one: empty segments, encoded separators, parameters.
    #[error("the path has empty segments, `;`, or encoded `\\`, `.` or `%`; send it as it is documented")]
    AmbiguousPath,
}

impl HeadError {
    /// Status of the answer. The connection may go on: framing is not in doubt, except as `framing_in_doubt` says.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Stable code for the log and the answer.
    pub fn code(self) -> &'static str {
        match self {
            Self::Connect => "connect-refused",
            Self::NoHost | Self::ManyHosts | Self::Host => "bad-host",
            Self::TransferEncoding | Self::TransferEncodingVersion | Self::ContentLength => "bad-framing",
            Self::HeaderValue => "bad-header",
            Self::Path | Self::AmbiguousPath | Self::ForeignPath => "bad-path",
        }
    }

    /// Whether the answer must close the connection (`connection: close`), since what follows may not be a request.
    pub fn framing_in_doubt(self) -> bool {
        matches!(
            self,
            Self::TransferEncoding
                | Self::TransferEncodingVersion
                | Self::ContentLength
                | Self::NoHost
                | Self::ManyHosts
                | Self::Host
        )
    }
}

/// Checks a head and says whom and what it asks for.
pub fn check(parts: &Parts) -> Result<Address<'_>, HeadError> {
    if parts.method == Method::CONNECT {
        return Err(HeadError::Connect);
    }
    check_transfer_encoding(parts)?;
    if parts.headers.get(CONTENT_LENGTH).is_some_and(|length| length.len() > LENGTH_DIGITS_MAX) {
        return Err(HeadError::ContentLength);
    }
    // Every byte is looked at, whatever the one before says: so the compiler looks at many at a time.
    let is_all_text = |value: &HeaderValue| value.as_bytes().iter().fold(true, |all, &byte| all & is_text(byte));
    if !parts.headers.values().all(is_all_text) {
        return Err(HeadError::HeaderValue);
    }
    let (host, port) = host(parts)?;
    let path = parts.uri.path();
    let query = parts.uri.query();
    let in_form = path.starts_with('/') || (path == "*" && parts.method == Method::OPTIONS);
    let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !in_form || !visible(path) || !query.is_none_or(visible) || path.contains('\\') || has_dot_segment(path) {
        return Err(HeadError::Path);
    }
    Ok(Address { host, port, path, query })
}

impl Address<'_> {
    /// The stricter rule for paths that decide something by themselves (AI operations, the admin API): nothing that
    /// another parser could read as another path. Plain HTTP routes pass such paths on as they are.
    ///
    /// An encoded slash within a segment is let through, since SDKs send names of models so (`org/model`, names of AWS
    /// resources); where it stands, a plain one must be harmless, too.
    pub fn check_unambiguous(&self) -> Result<(), HeadError> {
        let path = self.path.as_bytes();
        let encoded = |index: usize| {
            let code = path.get(index + 1..index + 3).map(<[u8]>::to_ascii_lowercase);
            matches!(code.as_deref(), None | Some(b"5c" | b"2e" | b"25" | b"3b" | b"00"))
        };
        let with_slashes = match self.path.contains('%') {
            true => Cow::Owned(self.path.replace("%2F", "/").replace("%2f", "/")),
            false => Cow::Borrowed(self.path),
        };
        let ambiguous = path.iter().enumerate().any(|(index, &byte)| match byte {
            b';' => true,
            b'%' => encoded(index),
            _ => false,
        });
        let ends_otherwise = with_slashes.ends_with('/') && !self.path.ends_with('/');
        if ambiguous || ends_otherwise || with_slashes.contains("//") || has_dot_segment(&with_slashes) {
            return Err(HeadError::AmbiguousPath);
        }
        Ok(())
    }
}

impl Address<'_> {
    /// What more lenient parsers than ours may take the path for: with encoded bytes decoded, empty segments and parameters left
    /// out, dots resolved. Plain HTTP routes pass paths on as they are, and nobody may get to another route's so. Almost
    /// every path has but one reading, and then there is nothing here.
    #[must_use]
    pub fn other_readings(&self) -> Vec<String> {
        if !self.path.bytes().any(|byte| byte == b'%' || byte == b';') && !self.path.contains("//") {
            return Vec::new();
        }
        let mut readings = vec![resolved(self.path)];
        let mut path = Cow::Borrowed(self.path);
        for _ in 0..DECODINGS_MAX {
            let decoded = percent_decoded(&path);
            if decoded == *path {
                break;
            }
            readings.push(resolved(&decoded));
            path = Cow::Owned(decoded);
        }
        readings
    }
}

/// Without what some parsers leave out, and with dots resolved.
fn resolved(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split(['/', '\\']) {
        let segment = segment.split(';').next().unwrap_or_default();
        match segment.trim_matches(|letter: char| letter.is_ascii_control() || letter == ' ') {
            "" | "." => {}
            ".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    kept.iter().fold(String::with_capacity(path.len() + 1), |whole, segment| whole + "/" + segment)
}

/// With every `%XX` decoded once; bytes that are no UTF-8 become the replacement character.
fn percent_decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = path.get(at + 1..at + 3).filter(|_| byte == b'%');
        let code = code.filter(|code| code.bytes().all(|digit| digit.is_ascii_hexdigit()));
        decoded.push(code.and_then(|code| u8::from_str_radix(code, 16).ok()).unwrap_or(byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Whether a path has a segment `.` or `..`, plainly or percent-encoded.
pub fn has_dot_segment(path: &str) -> bool {
    fn is_dots(segment: &str) -> bool {
        let mut rest = segment;
        let mut dots = 0;
        while !rest.is_empty() {
            rest = match rest.as_bytes() {
                [b'.', ..] => &rest[1..],
                [b'%', b'2', b'e' | b'E', ..] => &rest[3..],
                // What follows a `;` are parameters to some parsers, so that `..;x` is `..` there.
                [b';', ..] => "",
                _ => return false,
            };
            dots += usize::from(!rest.is_empty() || !segment.contains(';'));
        }
        (1..=2).contains(&dots)
    }
    // Almost every path has neither; one scan says so.
    path.bytes().any(|byte| byte == b'.' || byte == b'%') && path.split('/').any(is_dots)
}

/// Removes what belongs to this hop only: in both directions, before a message goes on. `te: trailers` stays, since a gRPC
/// server insists on it; so does `trailer`, which announces what passes.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let trailers = headers.get_all(TE).iter().any(|value| has_token(value, "trailers"));
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name| !END_TO_END.contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// The protocol that an HTTP/1.1 request (or a 101 answer) wants to go on with: `upgrade` with `connection: upgrade`
/// (RFC 9110 section 7.8). Ask before [`strip_hop_by_hop`].
pub fn upgrade_of(headers: &HeaderMap) -> Option<&str> {
    let wanted = headers.get_all(CONNECTION).iter().any(|value| has_token(value, "upgrade"));
    let protocol = headers.get(UPGRADE)?.to_str().ok()?.trim();
    (wanted && !protocol.is_empty()).then_some(protocol)
}

/// Tells an upstream of a plain HTTP route who asked: appends the caller's address to `x-forwarded-for` and sets
/// `x-forwarded-proto` and `x-forwarded-host`. Call it after [`strip_hop_by_hop`], so that a caller cannot have them removed.
pub fn forwarded(headers: &mut HeaderMap, peer: IpAddr, tls: bool, address: &Address<'_>) {
    let mut chain = String::new();
    for value in headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()) {
        chain.push_str(value);
        chain.push_str(", ");
    }
    chain.push_str(&peer.to_canonical().to_string());
    let host = match address.port {
        Some(port) => Cow::Owned(format!("{}:{port}", address.host)),
        None => Cow::Borrowed(address.host.as_ref()),
    };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(if tls { "https" } else { "http" }));
    for (name, value) in [(X_FORWARDED_FOR, chain.as_str()), (X_FORWARDED_HOST, &host)] {
        // Both are made of checked ASCII, so that this cannot fail; if it did, nothing of the caller's would remain.
        match HeaderValue::from_str(value) {
            Ok(value) => drop(headers.insert(name, value)),
            Err(_) => drop(headers.remove(name)),
        }
    }
}

fn check_transfer_encoding(parts: &Parts) -> Result<(), HeadError> {
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if parts.version < Version::HTTP_11 {
        return Err(HeadError::TransferEncodingVersion);
    }
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(HeadError::TransferEncoding);
    }
    Ok(())
}

/// The one host: `host` and the target's authority, which must be equal if there are both.
fn host(parts: &Parts) -> Result<(Cow<'_, str>, Option<u16>), HeadError> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err(HeadError::ManyHosts);
    }
    let header = header.map(|value| value.to_str().map_err(|_| HeadError::Host)).transpose()?;
    let authority = parts.uri.authority().map(Authority::as_str);
    let text = match (header, authority) {
        (Some(header), Some(authority)) if !header.eq_ignore_ascii_case(authority) => return Err(HeadError::ManyHosts),
        (None, Some(_)) if parts.version < Version::HTTP_2 => return Err(HeadError::NoHost),
        (Some(text), _) | (None, Some(text)) => text,
        (None, None) => return Err(HeadError::NoHost),
    };
    split_host(text).ok_or(HeadError::Host)
}

/// Host and port of an authority without a user part.
fn split_host(text: &str) -> Option<(Cow<'_, str>, Option<u16>)> {
    let (host, port) = match text.rfind(':') {
        Some(at) if !text[at..].contains(']') => (&text[..at], Some(&text[at + 1..])),
        _ => (text, None),
    };
    let port = match port {
        // `host:` is allowed by RFC 3986 section 3.2.3.
        None | Some("") => None,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port.parse().ok()?),
        Some(_) => return None,
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_name(host),
    };
    if !valid {
        return None;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let lower = !host.bytes().any(|byte| byte.is_ascii_uppercase());
    Some((if lower { Cow::Borrowed(host) } else { Cow::Owned(host.to_ascii_lowercase()) }, port))
}

/// A registered name or an IPv4 address: letters, digits, `-`, `_` and single dots.
fn is_name(host: &str) -> bool {
    let labels = host.strip_suffix('.').unwrap_or(host);
    host.len() <= 255
        && labels.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~')
}

fn has_token(value: &HeaderValue, token: &str) -> bool {
    value.to_str().is_ok_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, uri: &str, version: Version, headers: &[(&str, &[u8])]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(uri).version(version);
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
        }
        request.body(()).unwrap().into_parts().0
    }

    fn get(uri: &str, headers: &[(&str, &[u8])]) -> Parts {
        parts("GET", uri, Version::HTTP_11, headers)
    }

    #[test]
    fn a_proper_head_gives_one_address() {
        let cases: [(&str, &[u8], &str, Option<u16>); 6] = [
            ("/a", b"Example.COM:8080", "example.com", Some(8080)),
            ("/a", b"example.com.", "example.com", None),
            ("/a", b"example.com:", "example.com", None),
            ("/a", b"127.0.0.1:1", "127.0.0.1", Some(1)),
            ("/a", b"[::1]:9", "[::1]", Some(9)),
            ("http://example.com/a", b"example.com", "example.com", None),
        ];
        for (uri, host, expected, port) in cases {
            let parts = get(uri, &[("host", host)]);
            let address = check(&parts).unwrap_or_else(|error| panic!("{host:?}: {error}"));
            assert_eq!((address.host.as_ref(), address.port, address.path), (expected, port, "/a"));
        }
        let over_http2 = parts("GET", "https://example.com/a?b", Version::HTTP_2, &[]);
        assert_eq!(check(&over_http2).unwrap().query, Some("b"));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let host = ("host", b"x".as_slice());
        let cases = [
            (parts("CONNECT", "x:1", Version::HTTP_11, &[host]), HeadError::Connect),
            (get("/", &[]), HeadError::NoHost),
            (get("http://x/", &[]), HeadError::NoHost),
            (get("/", &[host, host]), HeadError::ManyHosts),
            (get("http://y/", &[host]), HeadError::ManyHosts),
            (parts("GET", "http://y/", Version::HTTP_2, &[host]), HeadError::ManyHosts),
            (get("/", &[("host", b"")]), HeadError::Host),
            (get("/", &[("host", b"x/?")]), HeadError::Host),
            (get("/", &[("host", b"a@x")]), HeadError::Host),
            (get("/", &[("host", b"x, y")]), HeadError::Host),
            (get("/", &[("host", b"x:99999")]), HeadError::Host),
            (get("/", &[("host", b"x:+1")]), HeadError::Host),
            (get("/", &[("host", b"x..y")]), HeadError::Host),
            (get("/", &[("host", b"[::1")]), HeadError::Host),
            (get("/", &[host, ("transfer-encoding", b"gzip, chunked")]), HeadError::TransferEncoding),
            (get("/", &[host, ("transfer-encoding", b",chunked")]), HeadError::TransferEncoding),
            (
                get("/", &[host, ("transfer-encoding", b"chunked"), ("transfer-encoding", b"chunked")]),
                HeadError::TransferEncoding,
            ),
            (
                parts("GET", "/", Version::HTTP_10, &[host, ("transfer-encoding", b"chunked")]),
                HeadError::TransferEncodingVersion,
            ),
            (get("/", &[host, ("x", b"caf\xe9")]), HeadError::HeaderValue),
            (get("/", &[host, ("content-length", b"9999999999999999999")]), HeadError::ContentLength),
            (get("/a/../b", &[host]), HeadError::Path),
            (get("/a/%2e%2E", &[host]), HeadError::Path),
            (get("/a/..;x/b", &[host]), HeadError::Path),
            (get("/a/.%2e;/b", &[host]), HeadError::Path),
            (get("/.", &[host]), HeadError::Path),
            (get("*", &[host]), HeadError::Path),
        ];
        for (parts, expected) in cases {
            assert_eq!(check(&parts), Err(expected), "{} {:?}", parts.uri, parts.headers);
        }
        assert!(check(&get("/a/...", &[host])).is_ok());
        assert!(check(&get("/a/.well-known/b..c", &[host])).is_ok());
    }

    #[test]
    fn ambiguous_paths_are_refused_where_a_path_decides() {
        let strict = |path: &str| {
            let parts = get(path, &[("host", b"x")]);
            check(&parts).unwrap().check_unambiguous()
        };
        for path in ["/a//b", "//a", "/a%5Cb", "/a;x=y", "/a%252f", "/a%", "/a%0", "/a%00", "/a%2eb"] {
            assert_eq!(strict(path), Err(HeadError::AmbiguousPath), "{path}");
        }
        for path in ["/a/%2fb", "/a%2F/b", "/a%2f%2fb", "/a%2f", "/a%2f..%2fb", "/a%2F..", "/..%2fa", "/a/.%2Fb"] {
            assert_eq!(strict(path), Err(HeadError::AmbiguousPath), "{path}");
        }
        for path in ["/", "/v1/models/a:b@c", "/v1/models/a%20b", "/a/", "/model/a%2Fb%2fc/converse"] {
            assert_eq!(strict(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn a_path_tells_what_lenient_parsers_take_it_for() {
        let readings = |path: &str| check(&get(path, &[("host", b"x")])).unwrap().other_readings();
        assert!(readings("/a/b.c/d-e_f").is_empty(), "a plain path has one reading");
        let cases = [
            ("//a/x", "/a/x"),
            ("/%61/x", "/a/x"),
            ("/%2561", "/a"),
            ("/a;p=1/x", "/a/x"),
            ("/;/a", "/a"),
            ("/%2fa%2Fx", "/a/x"),
            ("/b/..%2fa/x", "/a/x"),
            ("/%5ca", "/a"),
            ("/a%00/x", "/a/x"),
            ("/a%20/x", "/a/x"),
        ];
        for (path, expected) in cases {
            assert!(readings(path).iter().any(|reading| reading == expected), "{path}: {:?}", readings(path));
        }
        assert_eq!(readings("/caf%C3%A9"), ["/caf%C3%A9", "/café"]);
        assert_eq!(readings("/%zz%"), ["/%zz%"]);
    }

    #[test]
    fn hop_by_hop_headers_stay_here_and_end_to_end_ones_pass() {
        let mut headers = get(
            "/",
            &[
                ("connection", b"close, X-Private, Authorization"),
                ("connection", b"te"),
                ("x-private", b"1"),
                ("authorization", b"a"),
                ("keep-alive", b"timeout=5"),
                ("te", b"gzip, trailers"),
                ("transfer-encoding", b"chunked"),
                ("upgrade", b"h2c"),
                ("proxy-authorization", b"p"),
                ("trailer", b"x"),
                ("x-kept", b"1"),
            ],
        )
        .headers;
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, [("authorization", "a"), ("te", "trailers"), ("trailer", "x"), ("x-kept", "1")]);
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        let both = get("/", &[("connection", b"keep-alive, Upgrade"), ("upgrade", b"websocket")]).headers;
        assert_eq!(upgrade_of(&both), Some("websocket"));
        assert_eq!(upgrade_of(&get("/", &[("upgrade", b"websocket")]).headers), None);
        assert_eq!(upgrade_of(&get("/", &[("connection", b"upgrade")]).headers), None);
    }

    #[test]
    fn the_callers_address_is_appended_and_the_rest_is_replaced() {
        let parts = get("/", &[("host", b"A:1"), ("x-forwarded-for", b"9.9.9.9"), ("x-forwarded-proto", b"https")]);
        let address = check(&parts).unwrap();
        let mut headers = parts.headers.clone();
        forwarded(&mut headers, "::ffff:10.0.0.1".parse().unwrap(), false, &address);
        assert_eq!(headers[X_FORWARDED_FOR], "9.9.9.9, 10.0.0.1");
        assert_eq!(headers[X_FORWARDED_PROTO], "http");
        assert_eq!(headers[X_FORWARDED_HOST], "a:1");
    }
}
