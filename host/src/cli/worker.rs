// SPDX-License-Identifier: Apache-2.0
//! What a supervisor and its worker tell each other: words, a line each, over a socket that is the worker's standard input. Its end
//! means that the other one is gone.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// What a supervisor asks of its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Read everything anew.
    Reload,
    /// Let another process open the state directory, and serve on.
    HandOver,
    /// Take no new connections, finish what runs, and end.
    Stop,
}

/// What a worker tells its supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It serves.
    Ready,
    /// Another process may open the state directory.
    HandedOver,
}

/// A word that stands on a line of its own.
pub(super) trait Word: Copy + PartialEq + 'static {
    /// Every word of the kind.
    const ALL: &'static [(Self, &'static str)];
}

impl Word for Order {
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Reload, "reload"), (Self::HandOver, "hand-over"), (Self::Stop, "stop")];
}

impl Word for News {
    const ALL: &'static [(Self, &'static str)] = &[(Self::Ready, "ready"), (Self::HandedOver, "handed-over")];
}

/// One end of the socket.
pub(super) struct Line {
    ear: Ear,
    mouth: Mouth,
}

/// Hears the other end.
pub(super) struct Ear(Lines<BufReader<OwnedReadHalf>>);

/// Speaks to the other end.
pub(super) struct Mouth(OwnedWriteHalf);

impl Line {
    /// The end of a worker. Needs a running tokio runtime.
    ///
    /// # Errors
    /// Standard input is no socket.
    pub(super) fn to_supervisor() -> io::Result<Self> {
        Self::over(StdStream::from(io::stdin().as_fd().try_clone_to_owned()?))
    }

    /// An end. Needs a running tokio runtime.
    ///
    /// # Errors
    /// It is no socket.
    pub(super) fn over(stream: StdStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(stream)?.into_split();
        Ok(Self { ear: Ear(BufReader::new(read).lines()), mouth: Mouth(write) })
    }

    /// Both directions, each by itself.
    pub(super) fn split(self) -> (Ear, Mouth) {
        (self.ear, self.mouth)
    }
}

impl Ear {
    /// The next word; none when the other end is gone. Words that are not known are passed over: the other end may be newer.
    pub(super) async fn hear<W: Word>(&mut self) -> Option<W> {
        loop {
            let line = self.0.next_line().await.ok().flatten()?;
            if let Some((word, _)) = W::ALL.iter().find(|(_, text)| *text == line) {
                return Some(*word);
            }
        }
    }
}

impl Mouth {
    /// Says a word. One who is gone need not hear it.
    pub(super) async fn say<W: Word>(&mut self, word: W) {
        let text = W::ALL.iter().find(|(known, _)| *known == word).map_or("", |(_, text)| text);
        let _ = self.0.write_all(format!("{text}\n").as_bytes()).await; // its end is heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn words_are_heard_in_their_order_and_then_the_end() {
        let (one, other) = StdStream::pair().unwrap();
        let (mut ear, mouth) = Line::over(one).unwrap().split();
        let (other_ear, mut other_mouth) = Line::over(other).unwrap().split();
        other_mouth.say(Order::HandOver).await;
        other_mouth.0.write_all(b"something newer\n").await.unwrap();
        other_mouth.say(Order::Stop).await;
        drop((other_mouth, other_ear));
        assert_eq!(ear.hear().await, Some(Order::HandOver));
        assert_eq!(ear.hear().await, Some(Order::Stop));
        assert_eq!(ear.hear::<Order>().await, None);
        drop(mouth);
    }
}
