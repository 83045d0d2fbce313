// SPDX-License-Identifier: Apache-2.0
//! Sockets that another process has opened: the supervisor, which keeps them while workers come and go, or a service manager that
//! speaks systemd's protocol (`LISTEN_FDS`, `sd_listen_fds(3)`). Connections wait in such a socket while nobody accepts; none is
//! refused.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use tokio::net::TcpSocket;

/// Connections that wait in the kernel to be accepted.
const BACKLOG: u32 = 4096;

/// Listening sockets that were handed to this process and have not been taken yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<TcpListener>,
    follows: bool,
}

impl Inherited {
    /// What this process was handed, once; to be called before there are threads, since it changes the environment.
    ///
    /// # Errors
    /// What was handed over is no listening TCP socket.
    pub fn from_env() -> io::Result<Self> {
        let mut handed = ListenFd::from_env();
        let sockets = (0..handed.len()).filter_map(|index| handed.take_tcp_listener(index).transpose());
        let sockets: Vec<_> = sockets.collect::<io::Result<_>>()?;
        Ok(Self { follows: !sockets.is_empty(), sockets })
    }

    /// Whether another process may serve at the same places, and this one is to follow it.
    pub(super) fn follows(&self) -> bool {
        self.follows
    }

    /// Takes the socket of an address; for port 0 the first that has the address, whatever its port.
    pub fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let is_meant = |socket: &TcpListener| {
            let own = socket.local_addr();
            own.is_ok_and(|own| own == address || (address.port() == 0 && own.ip() == address.ip()))
        };
        let index = self.sockets.iter().position(is_meant)?;
        Some(self.sockets.remove(index))
    }

    /// A socket that listens on an address: the one that was handed over, or a new one. Needs a running tokio runtime.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn listen(&mut self, address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
        let socket = self.take(address).map_or_else(|| open(address), Ok)?;
        socket.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(socket)
    }
}

/// A new socket that listens on an address. Needs a running tokio runtime.
///
/// # Errors
/// The address cannot be had.
pub fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_handed_over_is_taken_for_its_address_and_only_once() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let handed = open(any).unwrap();
        let address = handed.local_addr().unwrap();
        let mut inherited = Inherited { sockets: vec![handed], follows: true };
        assert!(inherited.take("127.0.0.2:0".parse().unwrap()).is_none());
        assert_eq!(inherited.listen(address).unwrap().local_addr().unwrap(), address);
        assert_ne!(inherited.listen(any).unwrap().local_addr().unwrap(), address);
        let mut inherited = Inherited { sockets: vec![open(any).unwrap()], follows: true };
        assert!(inherited.take(any).is_some(), "port 0 is whichever was handed over");
    }
}
