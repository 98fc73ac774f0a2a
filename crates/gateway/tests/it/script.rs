//! A provider that answers what a script says, to the byte: cuts, stalls, garbage. It speaks raw
//! HTTP, so that nothing between the script and the wire puts anything right.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// One thing that the provider does.
#[derive(Debug, Clone)]
pub(crate) enum Do {
    /// Sends these bytes.
    Send(String),
    /// Sends bytes that are no text.
    Raw(Vec<u8>),
    /// Says nothing more, and keeps the connection.
    Stall,
    /// Waits until the test says go.
    Wait(Arc<Notify>),
    /// Breaks the connection.
    Cut,
}

/// What the provider does with one request.
pub(crate) type Answer = Vec<Do>;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Came {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }
}

/// The provider. Each request takes the next answer of the script; the last one is repeated.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) url: String,
    came: Arc<Mutex<Vec<Came>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    connections: Arc<AtomicUsize>,
}

impl Script {
    pub(crate) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let (script, listener) = Self::bound("http", answers).await;
        let serving = script.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move { serving.converse(socket).await });
            }
        });
        script
    }

    /// The same over TLS, and the certificate that one has to believe, PEM.
    pub(crate) async fn start_tls(answers: impl IntoIterator<Item = Answer>) -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let made = made.expect("a certificate");
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], made.signing_key.into())
            .expect("a server");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let (script, listener) = Self::bound("https", answers).await;
        let serving = script.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (serving, acceptor) = (serving.clone(), acceptor.clone());
                tokio::spawn(async move {
                    if let Ok(socket) = acceptor.accept(socket).await {
                        serving.converse(socket).await;
                    }
                });
            }
        });
        (script, made.cert.pem())
    }

    async fn bound(scheme: &str, answers: impl IntoIterator<Item = Answer>) -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let host = if scheme == "https" { "localhost" } else { "127.0.0.1" };
        let script = Self {
            url: format!("{scheme}://{host}:{port}/v1"),
            came: Arc::default(),
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
            connections: Arc::default(),
        };
        (script, listener)
    }

    /// Connections on which something was said.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// An address at which nobody listens.
    pub(crate) async fn nobody() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        format!("http://{}/v1", listener.local_addr().expect("an address"))
    }

    /// The requests so far.
    pub(crate) fn came(&self) -> Vec<Came> {
        self.came.lock().expect("the requests").clone()
    }

    async fn converse(&self, mut socket: impl AsyncRead + AsyncWrite + Unpin) {
        let mut is_new = true;
        loop {
            let Some(came) = read(&mut socket).await else { return };
            if std::mem::take(&mut is_new) {
                self.connections.fetch_add(1, Ordering::Relaxed);
            }
            self.came.lock().expect("the requests").push(came);
            let answer = {
                let mut answers = self.answers.lock().expect("the script");
                match answers.len() {
                    0 => return,
                    1 => answers[0].clone(),
                    _ => answers.pop_front().expect("an answer"),
                }
            };
            for step in answer {
                match step {
                    Do::Send(text) => {
                        if socket.write_all(text.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                    Do::Raw(bytes) => {
                        if socket.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                    Do::Stall => std::future::pending::<()>().await,
                    Do::Wait(notify) => notify.notified().await,
                    Do::Cut => return,
                }
            }
        }
    }
}

async fn read(socket: &mut (impl AsyncRead + Unpin)) -> Option<Came> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let came = Came { head, body: bytes[end + 4..].to_vec() };
            let length = came.header("content-length").and_then(|text| text.parse().ok());
            let length: usize = length.unwrap_or(0);
            if came.body.len() >= length {
                return Some(came);
            }
        }
        match socket.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
        }
    }
}

/// A whole answer.
pub(crate) fn whole(status: &str, headers: &str, body: &str) -> Answer {
    vec![Do::Send(format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    ))]
}

/// A chat completion that says a text.
pub(crate) fn says(text: &str) -> Answer {
    whole("200 OK", "", &completion(text))
}

/// The body of one.
pub(crate) fn completion(text: &str) -> String {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        "strange": {"x": 1},
    })
    .to_string()
}

/// An error in OpenAI's form.
pub(crate) fn error(status: &str, headers: &str, code: &str) -> Answer {
    let body =
        json!({"error": {"message": "no", "type": "some_error", "param": null, "code": code}});
    whole(status, headers, &body.to_string())
}

/// The head of a stream, which ends with the connection.
pub(crate) const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

/// An event with a piece of text.
pub(crate) fn piece(text: &str) -> String {
    let chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}], "usage": null,
    });
    format!("data: {chunk}\n\n")
}

/// The event that brings the role alone.
pub(crate) fn opening() -> String {
    let chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}],
        "usage": null,
    });
    format!("data: {chunk}\n\n")
}

/// The events that end a stream: the reason, the usage, the mark.
pub(crate) fn ending() -> String {
    let stop = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": null,
    });
    let usage = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06",
        "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    });
    format!("data: {stop}\n\ndata: {usage}\n\ndata: [DONE]\n\n")
}

/// A good stream of these pieces.
pub(crate) fn streams(pieces: &[&str]) -> Answer {
    let text: String = pieces.iter().map(|text| piece(text)).collect();
    vec![Do::Send(format!("{STREAM}{}{text}{}", opening(), ending())), Do::Cut]
}
