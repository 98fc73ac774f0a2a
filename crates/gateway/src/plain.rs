//! Connections over plain HTTP/1, straight to a provider, that are kept for the next request.
//!
//! `hyper-util`'s client serves every kind of connection, and each request pays for it: keys that are hashed,
//! futures in boxes, addresses that are read again. What is in one's own house, without TLS and proxy, is
//! one kind, for which a list does. It keeps to the same rules: a request that a kept connection did not
//! begin to send goes out on another one, and connections that nobody asks for are closed after some time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::Instant;
use tower_service::Service as _;

use crate::way::no_connection_within;

type Sender = SendRequest<Full<Bytes>>;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlainError {
    /// There is no connection to be had.
    #[error("client error (Connect): {0}")]
    Connect(String),
    /// The connection broke before the answer.
    #[error("client error (SendRequest)")]
    Send(#[source] hyper::Error),
}

/// How connections are made and kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IdleLimits {
    /// How long a connection is waited for, with the search for the address.
    pub(crate) connect_timeout: Duration,
    /// How long a connection without requests is kept.
    pub(crate) idle_timeout: Duration,
    /// Connections without requests that are kept for one provider.
    pub(crate) max_idle: usize,
    /// Bytes that the head of an answer may take.
    pub(crate) max_buffer_bytes: usize,
}

/// The connections of one way. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct PlainClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: HttpConnector,
    limits: IdleLimits,
    held: Mutex<Held>,
}

/// Connections without requests, those of each provider in the order in which they became so.
#[derive(Debug, Default)]
struct Held {
    providers: Vec<(Authority, Vec<Idle>)>,
    /// Whether somebody looks for those that nobody asks for.
    is_swept: bool,
}

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since: Instant,
}

impl PlainClient {
    pub(crate) fn new(connector: HttpConnector, limits: IdleLimits) -> Self {
        Self(Arc::new(Inner { connector, limits, held: Mutex::default() }))
    }

    /// Sends a request with a whole address.
    pub(crate) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, PlainError> {
        let address = std::mem::take(request.uri_mut());
        let Some(to) = address.authority().cloned() else {
            return Err(PlainError::Connect(format!(
                "expected a host in the address, got {address}"
            )));
        };
        let host = HeaderValue::from_str(to.as_str())
            .map_err(|error| PlainError::Connect(format!("the host {to}: {error}")))?;
        request.headers_mut().insert(HOST, host);
        let path = address.path_and_query().cloned();
        *request.uri_mut() = path.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
        loop {
            let (mut sender, is_kept) = match self.0.take(&to) {
                Some(sender) => (sender, true),
                None => (self.0.open(address.clone()).await?, false),
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    Inner::give_back(&self.0, to, sender);
                    return Ok(response);
                }
                Err(mut error) => match error.take_message() {
                    // The provider closed it while nobody asked.
                    Some(unsent) if is_kept => request = unsent,
                    _ => return Err(PlainError::Send(error.into_error())),
                },
            }
        }
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last and is still good.
    fn take(&self, to: &Authority) -> Option<Sender> {
        let mut held = self.held();
        let (_, idle) = held.providers.iter_mut().find(|(authority, _)| authority == to)?;
        while let Some(Idle { sender, since }) = idle.pop() {
            if sender.is_ready() && since.elapsed() < self.limits.idle_timeout {
                return Some(sender);
            }
        }
        None
    }

    async fn open(&self, address: Uri) -> Result<Sender, PlainError> {
        let limit = self.limits.connect_timeout;
        let stream = tokio::time::timeout(limit, self.connector.clone().call(address)).await;
        let stream =
            stream.map_err(|_| PlainError::Connect(no_connection_within(limit).to_string()))?;
        let stream = stream.map_err(|error| PlainError::Connect(crate::fault::causes(&error)))?;
        let handshake = Builder::new().max_buf_size(self.limits.max_buffer_bytes).handshake(stream);
        let (sender, connection) = handshake.await.map_err(PlainError::Send)?;
        tokio::spawn(async move {
            // Whoever waits for an answer is told what went wrong.
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// Keeps a connection for others, once its answer has come to its end.
    fn give_back(this: &Arc<Self>, to: Authority, mut sender: Sender) {
        if sender.is_ready() {
            this.keep(to, sender);
            return;
        }
        let this = Arc::downgrade(this);
        tokio::spawn(async move {
            let is_good = sender.ready().await.is_ok();
            if let Some(this) = this.upgrade().filter(|_| is_good) {
                this.keep(to, sender);
            }
        });
    }

    fn keep(self: &Arc<Self>, to: Authority, sender: Sender) {
        let idle = Idle { sender, since: Instant::now() };
        let mut held = self.held();
        match held.providers.iter_mut().find(|(authority, _)| *authority == to) {
            Some((_, all)) if all.len() < self.limits.max_idle => all.push(idle),
            Some(_) => {}
            None => held.providers.push((to, vec![idle])),
        }
        if !std::mem::replace(&mut held.is_swept, true) {
            tokio::spawn(Self::sweep(Arc::downgrade(self)));
        }
    }

    /// Closes what nobody has asked for, until there is nothing left.
    async fn sweep(of: Weak<Self>) {
        loop {
            let Some(idle_timeout) = of.upgrade().map(|this| this.limits.idle_timeout) else {
                return;
            };
            tokio::time::sleep(idle_timeout).await;
            let Some(this) = of.upgrade() else { return };
            let mut held = this.held();
            for (_, idle) in &mut held.providers {
                idle.retain(|one| !one.sender.is_closed() && one.since.elapsed() < idle_timeout);
            }
            held.providers.retain(|(_, idle)| !idle.is_empty());
            if held.providers.is_empty() {
                held.is_swept = false;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    /// A provider that answers on each connection so many times and then closes it. Answers its address,
    /// and what it says: heads of requests with the number of their connection, and an empty text when
    /// the client closes one.
    async fn provider(answers: usize) -> (String, UnboundedReceiver<(usize, String)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/v1/x?y=1", listener.local_addr().unwrap());
        let (says, said) = unbounded_channel();
        tokio::spawn(async move {
            for number in 0.. {
                let (mut socket, _) = listener.accept().await.unwrap();
                let says = says.clone();
                tokio::spawn(async move {
                    for _ in 0..answers {
                        let mut head = String::new();
                        while !head.ends_with("\r\n\r\n") {
                            let Ok(byte) = socket.read_u8().await else { break };
                            head.push(char::from(byte));
                        }
                        let is_over = head.is_empty();
                        says.send((number, head)).unwrap();
                        if is_over {
                            return;
                        }
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        socket.write_all(answer).await.unwrap();
                    }
                });
            }
        });
        (address, said)
    }

    fn client(idle_timeout: Duration) -> PlainClient {
        let limits = IdleLimits {
            connect_timeout: Duration::from_secs(60),
            idle_timeout,
            max_idle: 2,
            max_buffer_bytes: 16 << 10,
        };
        PlainClient::new(HttpConnector::new(), limits)
    }

    async fn ask(client: &PlainClient, address: &str) -> Bytes {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = address.parse().unwrap();
        let answer = client.send(request).await.unwrap();
        answer.into_body().collect().await.unwrap().to_bytes()
    }

    /// The connections that wait for a request, all or those that are good.
    fn idle(client: &PlainClient, is_counted: impl Fn(&Sender) -> bool) -> usize {
        let held = client.0.held();
        let all = held.providers.iter().flat_map(|(_, idle)| idle);
        all.filter(|one| is_counted(&one.sender)).count()
    }

    #[tokio::test]
    async fn one_connection_serves_one_request_after_the_other() {
        let (address, mut said) = provider(9).await;
        let client = client(Duration::from_secs(60));
        for _ in 0..3 {
            assert_eq!(ask(&client, &address).await, "ok");
            while idle(&client, Sender::is_ready) == 0 {
                tokio::task::yield_now().await;
            }
            let (number, head) = said.recv().await.unwrap();
            assert_eq!(number, 0);
            let host = address.trim_start_matches("http://").trim_end_matches("/v1/x?y=1");
            assert!(head.starts_with("GET /v1/x?y=1 HTTP/1.1\r\n"), "{head}");
            assert!(head.contains(&format!("host: {host}\r\n")), "{head}");
        }
    }

    #[tokio::test]
    async fn one_that_the_provider_closed_is_not_used_again() {
        let (address, mut said) = provider(1).await;
        let client = client(Duration::from_secs(60));
        for number in 0..3 {
            assert_eq!(ask(&client, &address).await, "ok");
            assert_eq!(said.recv().await.unwrap().0, number);
            while idle(&client, |sender| !sender.is_closed()) > 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn one_that_nobody_asks_for_is_closed() {
        let (address, mut said) = provider(9).await;
        let client = client(Duration::from_millis(5));
        assert_eq!(ask(&client, &address).await, "ok");
        assert_eq!(said.recv().await.unwrap().0, 0);
        let closed = tokio::time::timeout(Duration::from_secs(20), said.recv()).await;
        assert_eq!(closed.expect("closed by itself"), Some((0, String::new())));
        while idle(&client, |_| true) > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn no_more_are_kept_than_are_meant_to_be() {
        let (address, _said) = provider(9).await;
        let client = client(Duration::from_secs(60));
        let all = (0..4).map(|_| ask(&client, &address));
        assert_eq!(futures_util::future::join_all(all).await.len(), 4);
        while idle(&client, Sender::is_ready) < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(idle(&client, |_| true), 2);
    }

    #[tokio::test]
    async fn who_cannot_be_reached_is_told_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let mut request = Request::new(Full::default());
        *request.uri_mut() = nobody.parse().unwrap();
        let error = client(Duration::from_secs(60)).send(request).await.unwrap_err();
        assert!(matches!(error, PlainError::Connect(_)), "{error}");
        assert!(error.to_string().contains("Connection refused"), "{error}");
        let error = client(Duration::from_secs(60)).send(Request::default()).await.unwrap_err();
        assert!(error.to_string().contains("expected a host"), "{error}");
    }
}
