// SPDX-License-Identifier: Apache-2.0
//! A short-lived credential that is fetched when it is needed and kept until it expires or is refused. One caller fetches,
//! the others wait for it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::keys::Secret;

/// A credential is fetched again so long before it expires, or at half of its life if that is shorter.
const MARGIN: Duration = Duration::from_secs(60);

/// The place of one credential.
#[derive(Default)]
pub struct Credential(Mutex<Option<Held>>);

struct Held {
    secret: Arc<Secret>,
    until: Instant,
}

impl Credential {
    /// The credential, fetched by `fetch` if there is none that is valid. `fetch` tells how long the new one is.
    ///
    /// # Errors
    /// What `fetch` says; nothing is kept then.
    pub async fn get<E>(&self, fetch: impl Future<Output = Result<(Secret, Duration), E>>) -> Result<Arc<Secret>, E> {
        let mut place = self.0.lock().await;
        if let Some(held) = place.as_ref().filter(|held| Instant::now() < held.until) {
            return Ok(Arc::clone(&held.secret));
        }
        let (secret, lasts) = fetch.await?;
        let secret = Arc::new(secret);
        let until = Instant::now() + lasts.saturating_sub(MARGIN.min(lasts / 2));
        *place = Some(Held { secret: Arc::clone(&secret), until });
        Ok(secret)
    }

    /// The credential that is there, valid or not.
    pub async fn held(&self) -> Option<Arc<Secret>> {
        self.0.lock().await.as_ref().map(|held| Arc::clone(&held.secret))
    }

    /// Forgets a credential that was refused, unless another one has taken its place.
    pub async fn forget(&self, refused: &Arc<Secret>) {
        let mut place = self.0.lock().await;
        if place.as_ref().is_some_and(|held| Arc::ptr_eq(&held.secret, refused)) {
            *place = None;
        }
    }
}

impl Credential {
    /// Forgets whatever is there: a vendor has said inside an answer that it is not valid.
    pub async fn clear(&self) {
        *self.0.lock().await = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fetched(credential: &Credential, text: &str, lasts: u64) -> Arc<Secret> {
        let fetch = async { Ok::<_, ()>((Secret::new(text.into()), Duration::from_secs(lasts))) };
        credential.get(fetch).await.expect("a credential")
    }

    #[tokio::test]
    async fn a_credential_is_fetched_once_and_again_when_it_was_refused_or_has_expired() {
        let credential = Credential::default();
        let first = fetched(&credential, "one", 3600).await;
        assert_eq!(fetched(&credential, "two", 3600).await.expose(), b"one");
        credential.forget(&Arc::new(Secret::new(b"one".to_vec()))).await;
        assert_eq!(fetched(&credential, "two", 3600).await.expose(), b"one", "only the refused one is forgotten");
        credential.forget(&first).await;
        assert_eq!(fetched(&credential, "two", 0).await.expose(), b"two");
        assert_eq!(fetched(&credential, "three", 3600).await.expose(), b"three", "one that lasts no time is not kept");
        let failed = credential.get(async { Err::<(Secret, Duration), _>("refused") });
        assert!(failed.await.is_ok(), "the third one is still there");
    }
}
