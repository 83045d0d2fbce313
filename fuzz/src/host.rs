// SPDX-License-Identifier: Apache-2.0
//! What the host itself reads of foreigners: heads of requests, and policies from whoever may write them.

use http::{HeaderName, HeaderValue, Request};
use penstock::config::load;
use penstock::config::place::Sources;
use penstock::head;
use penstock::listener::proxy_protocol::{Header, parse};

/// A head that is accepted has one host, and a path that nobody can read as another.
pub(crate) fn head(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target)) = (first.next(), first.next()) else { return };
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value.trim())) else { continue };
        request = request.header(name, value);
    }
    let Ok(request) = request.body(()) else { return };
    let (mut parts, ()) = request.into_parts();
    let Ok(place) = head::check(&parts) else { return };
    assert!(place.path.starts_with('/') || place.path == "*", "{:?}", place.path);
    let is_clear = place.check_unambiguous().is_ok();
    assert!(!is_clear || !head::has_dot_segment(place.path), "{:?}", place.path);
    head::strip_hop_by_hop(&mut parts.headers);
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        assert!(!parts.headers.contains_key(name), "{name}");
    }
}

/// A policy that is refused is refused for a reason.
pub(crate) fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(problems) = load::parse(Sources::new([("fuzz.toml".to_owned(), text.to_owned())])) {
        assert!(!problems.is_empty());
    }
}

/// A header of the PROXY protocol is found wherever its connection is cut, and what follows it changes nothing.
pub(crate) fn proxy_header(bytes: &[u8]) {
    let read = parse(bytes);
    if let Ok(Header::Whole { length, .. }) = read {
        assert!(length <= bytes.len());
        assert_eq!(parse(&bytes[..length]), read);
        for cut in 0..length {
            assert_eq!(parse(&bytes[..cut]), Ok(Header::Partial), "{cut}");
        }
    }
}
