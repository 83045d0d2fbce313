// SPDX-License-Identifier: Apache-2.0
//! The floor: a proxy that is nothing but hyper's server and the pooled client with the settings of `host/src/upstream`. It streams both ways,
//! and looks at nothing.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::process::Ready;

type Pooled = Client<HttpConnector, Incoming>;

/// Serves for ever.
pub async fn serve(upstream: SocketAddr, listening: oneshot::Sender<Ready>) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(Duration::from_secs(60)));
    let client: Pooled = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(55))
        .pool_max_idle_per_host(256)
        .build(tcp);
    let _ = listening.send(Ready { address: listener.local_addr()?, credentials: Vec::new() });
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let client = client.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| pass(&client, upstream, request));
            // A caller that hangs up is the end of a round.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

async fn pass(
    client: &Pooled,
    upstream: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>, Error> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    // An address and a path that came in a request make a URI.
    *request.uri_mut() = format!("http://{upstream}{path}").parse::<Uri>().unwrap_or_default();
    client.request(request).await
}
