// SPDX-License-Identifier: Apache-2.0
//! The connection to a Redis: it connects when it is first used, and again when it is lost; every answer is waited for a
//! limited time. What is asked, and what it means that nobody answers, is the business of those who ask.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_core::Stream;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{Client, Cmd, FromRedisValue, IntoConnectionInfo, ScriptInvocation, TlsCertificates};
use tokio::sync::Notify;

/// Connect, TLS and login included.
const CONNECT: Duration = Duration::from_secs(1);

/// Where a Redis is, and who asks it.
#[derive(Clone)]
pub struct Server {
    /// `redis://host:port/database`, or `rediss://` for TLS.
    pub url: String,
    /// Name to log in with.
    pub user: Option<String>,
    /// Password to log in with.
    pub password: Option<String>,
    /// PEM with the roots of trust for TLS; none for those of the system.
    pub ca: Option<Vec<u8>>,
}

/// The connection.
pub struct Link {
    client: Client,
    manager: ArcSwap<ConnectionManager>,
}

impl Link {
    /// A connection that is not made yet.
    ///
    /// # Errors
    /// What is wrong with the address or the certificates.
    pub fn new(server: &Server) -> Result<Self, String> {
        let told = |error: redis::RedisError| error.to_string();
        let info = server.url.as_str().into_connection_info().map_err(told)?;
        let mut settings = info.redis_settings().clone();
        if let Some(user) = &server.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &server.password {
            settings = settings.set_password(password);
        }
        let info = info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = match &server.ca {
            Some(pem) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
                Client::build_with_tls(info, certificates).map_err(told)?
            }
            None => Client::open(info).map_err(told)?,
        };
        let manager = ArcSwap::from_pointee(manager(&client)?);
        Ok(Self { client, manager })
    }

    /// Runs a script, within a time.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn ask<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>, within: Duration) -> Result<T, String> {
        let mut connection = ConnectionManager::clone(&self.manager.load());
        answered(Box::pin(tokio::time::timeout(within, script.invoke_async(&mut connection))).await, within)
    }

    /// Runs one command, within a time.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn command<T: FromRedisValue>(&self, command: &Cmd, within: Duration) -> Result<T, String> {
        let mut connection = ConnectionManager::clone(&self.manager.load());
        answered(Box::pin(tokio::time::timeout(within, command.query_async(&mut connection))).await, within)
    }

    /// Leaves the connection, which may be to a host that is gone, for a new one.
    pub fn renew(&self) {
        match manager(&self.client) {
            Ok(manager) => self.manager.store(Arc::new(manager)),
            Err(error) => tracing::warn!("no new connection to Redis: {error}"),
        }
    }

    /// Wakes somebody whenever something is published on a channel, by a connection of its own. Comes back when that breaks.
    ///
    /// # Errors
    /// It cannot be subscribed to.
    pub async fn listen(&self, channel: &str, wake: &Notify) -> Result<(), String> {
        let begun = async {
            let mut subscriber = self.client.get_async_pubsub().await?;
            subscriber.subscribe(channel).await?;
            Ok(subscriber)
        };
        let mut subscriber = answered(tokio::time::timeout(CONNECT, begun).await, CONNECT)?;
        wake.notify_one(); // what was published before
        let mut messages = pin!(subscriber.on_message());
        while poll_fn(|context| messages.as_mut().poll_next(context)).await.is_some() {
            wake.notify_one();
        }
        Ok(())
    }
}

/// On the heap above: the future of every request is as large as its largest part, and most have no shared store.
fn answered<T>(
    answer: Result<Result<T, redis::RedisError>, tokio::time::error::Elapsed>,
    within: Duration,
) -> Result<T, String> {
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", within.as_millis())),
    }
}

fn manager(client: &Client) -> Result<ConnectionManager, String> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(None)
        .set_number_of_retries(0);
    ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(|error| error.to_string())
}
