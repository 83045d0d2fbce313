// SPDX-License-Identifier: Apache-2.0
//! Through somebody's proxy to an upstream: HTTP CONNECT (RFC 9110 section 9.3.6) or SOCKS5 (RFC 1928, 1929). The proxy carries
//! bytes; where they go to is still what configuration says, and TLS is with the upstream and not with the proxy.

use std::fmt;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::connector::Network;
use super::fault::{SendError, cause};
use super::socks;
use crate::wire::Wire;

/// Largest head of a proxy's answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// A proxy on the way to upstreams.
pub struct Proxy {
    speaks: Speaks,
    authority: Authority,
    login: Option<Login>,
}

/// What a proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Connect,
    /// SOCKS5, and whether we find out the addresses of names.
    Socks {
        resolve: bool,
    },
}

/// Who we are at a proxy.
struct Login {
    user: Zeroizing<String>,
    password: Zeroizing<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Proxy({self})")
    }
}

impl fmt::Display for Proxy {
    /// Host and port, for logs. Never who we are there.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "proxy {}", self.authority)
    }
}

impl Proxy {
    /// Reads `http://[user:password@]host:port`, or `socks5://` or `socks5h://` instead of `http://`. With `socks5h`, the proxy finds
    /// out the addresses of names. The error says what to write instead and repeats nothing of the text, which may hold a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        const FORM: &str = "write `http://host:port`, `socks5://host:port` or `socks5h://host:port`";
        let uri: Uri = url.parse().map_err(|_| format!("the proxy is not a URL; {FORM}"))?;
        let speaks = match uri.scheme_str() {
            Some("http") => Speaks::Connect,
            Some("socks5") => Speaks::Socks { resolve: true },
            Some("socks5h") => Speaks::Socks { resolve: false },
            _ => return Err(format!("the proxy speaks neither HTTP nor SOCKS5; {FORM}")),
        };
        let whole = uri.authority().map(Authority::as_str).unwrap_or_default();
        let (login, place) = match whole.rsplit_once('@') {
            Some((login, place)) => (Some(Login::parse(login)?), place),
            None => (None, whole),
        };
        let authority: Authority = place.parse().map_err(|_| format!("the proxy has no host; {FORM}"))?;
        if authority.host().is_empty() || authority.port_u16().is_none() {
            return Err(format!("the proxy has no host or no port; {FORM}"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(format!("nothing follows the port of a proxy; {FORM}"));
        }
        let too_long = |word: &str| word.is_empty() || word.len() > socks::WORD_BYTES_MAX;
        if let (Speaks::Socks { .. }, Some(login)) = (speaks, &login)
            && (too_long(&login.user) || too_long(&login.password))
        {
            return Err(format!("user and password of SOCKS5 have 1 to {} bytes", socks::WORD_BYTES_MAX));
        }
        Ok(Self { speaks, authority, login })
    }

    /// SHA-256 over all that it is, to tell one from another. Not for logs.
    pub fn fingerprint(&self) -> [u8; 32] {
        let login = self.login.as_ref().map(|login| [login.user.as_bytes(), login.password.as_bytes()]);
        let mut hash = Sha256::new_with_prefix(format!("{:?} {} {}", self.speaks, self.authority, login.is_some()));
        for part in login.into_iter().flatten() {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// A connection to the host and port of `uri`. The error names the proxy. Dropping the future closes the connection.
    pub(super) async fn connect(&self, network: &mut Network, uri: &Uri) -> Result<Wire, SendError> {
        let fail = |what: String| SendError::Proxy(format!("{self}: {what}"));
        let port = uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 });
        let host = uri.host().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        // What must not be asked for is found out before the proxy is.
        let target = match (self.speaks, bare.parse()) {
            (_, Ok(address)) => socks::Target::Address(SocketAddr::new(address, port)),
            (Speaks::Socks { resolve: true }, Err(_)) => {
                let address = network.find(bare).await.map_err(SendError::Connect)?;
                socks::Target::Address(SocketAddr::new(address, port))
            }
            (_, Err(_)) => socks::Target::Name(bare, port),
        };
        let at = Uri::builder().scheme(Scheme::HTTP).authority(self.authority.clone()).path_and_query("/").build();
        let at = at.map_err(|error| fail(error.to_string()))?;
        let mut proxy = network.connect(at).await.map_err(|error| match error {
            SendError::Exhausted(_) => error,
            error => fail(error.to_string()),
        })?;
        match self.speaks {
            Speaks::Connect => {
                let tunnel = self.ask_to_connect(proxy, &format!("{host}:{port}")).await.map_err(fail)?;
                Ok(Wire::Tunnel(TokioIo::new(tunnel)))
            }
            Speaks::Socks { .. } => {
                let login = self.login.as_ref().map(|login| (login.user.as_str(), login.password.as_str()));
                socks::connect(&mut proxy, login, target).await.map_err(fail)?;
                Ok(Wire::Tcp(proxy))
            }
        }
    }

    async fn ask_to_connect(&self, proxy: TcpStream, target: &str) -> Result<Upgraded, String> {
        let mut request = Request::connect(target).header(HOST, target);
        if let Some(login) = &self.login {
            request = request.header(PROXY_AUTHORIZATION, login.basic()?);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        let connecting = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(proxy)).await;
        let (mut sender, connection) = connecting.map_err(|error| cause(&error))?;
        let asked = async move {
            let mut answer = sender.send_request(request).await.map_err(|error| cause(&error))?;
            if !answer.status().is_success() {
                return Err(format!("it refuses to connect with status {}", answer.status().as_u16()));
            }
            hyper::upgrade::on(&mut answer).await.map_err(|error| cause(&error))
        };
        let (mut asked, connection) = (std::pin::pin!(asked), std::pin::pin!(connection.with_upgrades()));
        tokio::select! {
            tunnel = &mut asked => tunnel,
            // It has ended, or become the tunnel; whoever waits for it knows which.
            _ = connection => asked.await,
        }
    }
}

impl Login {
    fn parse(text: &str) -> Result<Self, String> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let plain = |text: &str| {
            let plain = percent_decode_str(text).decode_utf8().map_err(|_| "user and password must be UTF-8")?;
            Ok::<_, &str>(Zeroizing::new(plain.into_owned()))
        };
        Ok(Self { user: plain(user)?, password: plain(password)? })
    }

    /// RFC 7617.
    fn basic(&self) -> Result<HeaderValue, String> {
        let plain = Zeroizing::new(format!("{}:{}", *self.user, *self.password));
        let coded = Zeroizing::new(format!("Basic {}", BASE64.encode(plain.as_bytes())));
        let mut value = HeaderValue::from_str(&coded).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_proxy_is_refused_and_its_password_is_not_repeated() {
        for bad in [
            "",
            "proxy:3128",
            "https://ann:hunter2@proxy:3128",
            "http://ann:hunter2@proxy",
            "http://ann:hunter2@:3128",
            "http://ann:hunter2@proxy:3128/path",
            "http://ann:hunter2@proxy:3128?hunter2",
            "http://ann:hunter2%ff@proxy:3128",
            "socks4://ann:hunter2@proxy:1080",
            "socks5://ann@proxy:1080",
            "http://ann:hunter2 @proxy:3128",
        ] {
            let error = Proxy::parse(bad).err().unwrap_or_else(|| panic!("{bad} was taken"));
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn no_text_of_a_proxy_holds_who_we_are_there() {
        let proxy = Proxy::parse("http://ann:hunter%402@[::1]:3128").unwrap();
        assert_eq!(
            (proxy.to_string(), format!("{proxy:?}")),
            ("proxy [::1]:3128".into(), "Proxy(proxy [::1]:3128)".into())
        );
        let login = proxy.login.as_ref().unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("ann", "hunter@2"));
        assert_eq!(format!("{:?}", login.basic().unwrap()), "Sensitive");
    }

    #[test]
    fn proxies_that_differ_in_anything_are_different() {
        let urls = [
            "http://a:1",
            "http://a:2",
            "socks5://a:1",
            "socks5h://a:1",
            "http://u:p@a:1",
            "http://u:q@a:1",
            "http://up:@a:1",
            "http://:@a:1",
        ];
        let prints: std::collections::HashSet<_> =
            urls.iter().map(|url| Proxy::parse(url).unwrap().fingerprint()).collect();
        assert_eq!(prints.len(), urls.len());
    }
}
