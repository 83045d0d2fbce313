// SPDX-License-Identifier: Apache-2.0
//! A listening socket: of the network, or a file. Who comes by a file has no address; such callers are processes of this machine,
//! and pass for what is known of those: 127.0.0.1.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

use crate::wire::Wire;

/// The address of whoever comes by a Unix socket.
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A listening socket.
#[derive(Debug)]
pub(super) enum Door {
    Network(TcpListener),
    File { listener: UnixListener, _file: OwnFile },
}

/// The file of a Unix socket. Dropping it removes the file, unless another socket has taken its place.
#[derive(Debug)]
pub(super) struct OwnFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl Door {
    /// Makes a Unix socket with these permissions. What a process has left there that is gone is replaced, and what one serves there that
    /// this one `follows`; anything else is an error.
    pub(super) fn file(path: &Path, mode: u32, follows: bool) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
            }
            Ok(_) if !follows && std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves there"));
            }
            _ => {}
        }
        // Made aside, so that nobody can connect before its permissions are what they must be, and then put in place at once.
        let aside = path.with_file_name(format!(".penstock-{}.sock", std::process::id()));
        let _ = fs::remove_file(&aside);
        let listener = UnixListener::bind(&aside)?;
        let placed = fs::set_permissions(&aside, fs::Permissions::from_mode(mode))
            .and_then(|()| fs::rename(&aside, path))
            .and_then(|()| fs::symlink_metadata(path));
        if placed.is_err() {
            let _ = fs::remove_file(&aside);
        }
        let placed = placed?;
        let device_and_inode = (placed.dev(), placed.ino());
        Ok(Self::File { listener, _file: OwnFile { path: path.to_owned(), device_and_inode } })
    }

    /// Its address; the one that stands for a Unix socket.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Network(listener) => listener.local_addr(),
            Self::File { .. } => Ok(LOCAL),
        }
    }

    /// The next caller, and the address that it comes from.
    pub(super) async fn accept(&self) -> io::Result<(Wire, SocketAddr)> {
        match self {
            Self::Network(listener) => listener.accept().await.map(|(stream, from)| (Wire::Tcp(stream), from)),
            Self::File { listener, .. } => listener.accept().await.map(|(stream, _)| (Wire::Unix(stream), LOCAL)),
        }
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let there = fs::symlink_metadata(&self.path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == self.device_and_inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
