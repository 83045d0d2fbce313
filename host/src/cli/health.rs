// SPDX-License-Identifier: Apache-2.0
//! `penstock health`: asks a running gateway on this machine whether it is ready, for health checks of containers, whose
//! images have no tool for that.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};

use super::Flags;
use crate::config::load;

/// Each of connecting, sending and answering may take so long.
const WAIT: Duration = Duration::from_secs(2);

/// Success if the gateway of these policies is ready.
///
/// # Errors
/// The policies cannot be read, nobody answers, or the answer is no HTTP.
pub fn health(flags: &Flags) -> anyhow::Result<ExitCode> {
    let policy = load::load(flags.policies.as_deref());
    let policy = policy.map_err(|_| anyhow::anyhow!("the policies are wrong: `penstock check` says how"))?;
    let address = reachable(policy.config.admin.address);
    if address.port() == 0 {
        bail!("admin.address has the port 0, so nobody knows where to ask: give it a port");
    }
    let status = ask(address).with_context(|| format!("http://{address}/readyz"))?;
    Ok(if status == 200 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where to reach a socket that listens there.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The status that `/readyz` answers with.
fn ask(address: SocketAddr) -> io::Result<u16> {
    let mut connection = TcpStream::connect_timeout(&address, WAIT)?;
    connection.set_read_timeout(Some(WAIT))?;
    connection.set_write_timeout(Some(WAIT))?;
    write!(connection, "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_address_for_everyone_is_asked_on_loopback() {
        for (listens, asked) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:2", "[::1]:2"), ("127.0.0.9:3", "127.0.0.9:3")] {
            assert_eq!(reachable(listens.parse().unwrap()), asked.parse().unwrap());
        }
    }

    #[test]
    fn the_status_is_read_and_nonsense_is_an_error() {
        for (answer, expected) in [("HTTP/1.1 503 Not Ready\r\n\r\n", Some(503)), ("hello\r\n", None)] {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (mut connection, _) = listener.accept().unwrap();
                BufReader::new(connection.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
                connection.write_all(answer.as_bytes()).unwrap();
            });
            assert_eq!(ask(address).ok(), expected);
            server.join().unwrap();
        }
    }
}
