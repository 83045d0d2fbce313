// SPDX-License-Identifier: Apache-2.0
//! News for whoever listens: changes, and requests that have ended, without bodies. Nobody waits for a reader: one that is
//! too slow loses news and is told how many.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::broadcast::{self, error::RecvError};

/// News that a reader may be behind.
const BEHIND_MAX: usize = 1024;
/// Readers at a time.
const READERS_MAX: usize = 16;
/// Changes that a new reader is told of.
const RECENT_MAX: usize = 32;

/// Something that has happened.
#[derive(Debug)]
pub struct News {
    /// Its number; they grow.
    pub number: u64,
    /// `change`, `request`, `generation` or `cluster`.
    pub kind: &'static str,
    /// What has happened.
    pub what: Value,
}

/// Where news come from.
pub struct Feed {
    sender: broadcast::Sender<Arc<News>>,
    readers: Arc<AtomicUsize>,
    next: AtomicU64,
    recent: Mutex<VecDeque<Arc<News>>>,
}

impl Feed {
    pub(super) fn new() -> Self {
        let (sender, _) = broadcast::channel(BEHIND_MAX);
        Self { sender, readers: Arc::default(), next: AtomicU64::new(1), recent: Mutex::default() }
    }

    /// Tells of a request, if anybody listens. As long as nobody does, this is one load of a number.
    pub fn request(&self, what: impl FnOnce() -> Value) {
        if self.readers.load(Ordering::Relaxed) > 0 {
            self.tell("request", what());
        }
    }

    /// Tells of a change, which those who come later are told of, too. Not for the request path: it takes a lock.
    pub fn change(&self, kind: &'static str, what: Value) {
        let news = self.tell(kind, what);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_back(news);
        while recent.len() > RECENT_MAX {
            recent.pop_front();
        }
    }

    /// A new reader, with the changes before it; none if there are too many readers.
    #[must_use]
    pub fn read(&self) -> Option<Reader> {
        let readers = Arc::clone(&self.readers);
        let room = |readers: usize| (readers < READERS_MAX).then_some(readers + 1);
        readers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        let receiver = self.sender.subscribe();
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        Some(Reader { recent, receiver, readers, last: 0 })
    }

    fn tell(&self, kind: &'static str, what: Value) -> Arc<News> {
        let news = Arc::new(News { number: self.next.fetch_add(1, Ordering::Relaxed), kind, what });
        let _ = self.sender.send(Arc::clone(&news)); // an error means that nobody listens
        news
    }
}

/// What a reader hears.
#[derive(Debug)]
pub enum Heard {
    /// Something has happened.
    News(Arc<News>),
    /// The reader was too slow, and has lost so many.
    Lost(u64),
}

/// Somebody who listens.
pub struct Reader {
    recent: VecDeque<Arc<News>>,
    receiver: broadcast::Receiver<Arc<News>>,
    readers: Arc<AtomicUsize>,
    last: u64,
}

impl Reader {
    /// The next news; none when there will be no more. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Heard> {
        if let Some(news) = self.recent.pop_front() {
            self.last = self.last.max(news.number);
            return Some(Heard::News(news));
        }
        loop {
            match self.receiver.recv().await {
                Ok(news) if news.number <= self.last => {} // told already, as one of the recent ones
                Ok(news) => return Some(Heard::News(news)),
                Err(RecvError::Lagged(lost)) => return Some(Heard::Lost(lost)),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn a_slow_reader_loses_news_and_is_told_how_many() {
        let feed = Feed::new();
        feed.request(|| panic!("nobody listens"));
        feed.change("change", json!(0));
        let mut reader = feed.read().unwrap();
        let is = |heard: Option<Heard>, wanted: Value| matches!(heard, Some(Heard::News(news)) if news.what == wanted);
        assert!(is(reader.next().await, json!(0)), "what happened before is told");
        feed.request(|| json!(1));
        assert!(is(reader.next().await, json!(1)));
        for number in 0..BEHIND_MAX + 7 {
            feed.request(|| json!(number));
        }
        assert!(matches!(reader.next().await, Some(Heard::Lost(7))));
        assert!(is(reader.next().await, json!(7)));
    }

    #[test]
    fn there_are_only_so_many_readers() {
        let feed = Feed::new();
        let readers: Vec<_> = (0..READERS_MAX).map(|_| feed.read().unwrap()).collect();
        assert!(feed.read().is_none());
        drop(readers);
        assert!(feed.read().is_some());
    }
}
