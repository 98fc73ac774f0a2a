//! Texts that wait for their embedding: asked for in batches, and written down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use throughline_act::{EMBEDDING_BATCH_TEXTS, Embeddings};
use throughline_store::{Governance, TextHash};

use super::{RoundError, now_unix_nano};

/// Texts that wait at most; the oldest go, and are told.
const MAX_WAITING: usize = 5_000;

/// What waits, and who is asked.
pub(super) struct Queue {
    embeddings: Embeddings,
    governance: Governance,
    waiting: VecDeque<(TextHash, String)>,
    /// Texts of the next request. It is halved where texts are refused: the endpoint does not say which one it was.
    batch: usize,
}

impl Queue {
    pub(super) fn new(embeddings: Embeddings, governance: Governance) -> Self {
        let (waiting, batch) = (VecDeque::new(), EMBEDDING_BATCH_TEXTS);
        Self { embeddings, governance, waiting, batch }
    }

    pub(super) fn model(&self) -> &str {
        self.embeddings.model()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Has those of the texts wait that have no embedding and do not wait yet.
    pub(super) fn add(&mut self, missing: Vec<TextHash>, mut texts: BTreeMap<TextHash, String>) {
        let waiting: BTreeSet<TextHash> = self.waiting.iter().map(|(hash, _)| *hash).collect();
        for hash in missing.into_iter().filter(|hash| !waiting.contains(hash)) {
            self.waiting.extend(texts.remove(&hash).map(|text| (hash, text)));
        }
        let too_many = self.waiting.len().saturating_sub(MAX_WAITING);
        if too_many > 0 {
            self.waiting.drain(..too_many);
            tracing::warn!(
                texts = too_many,
                "more is asked of agents than act.embeddings.requests_per_minute lets through; these have no embedding"
            );
        }
    }

    /// Asks for the next of what waits, at the pace that is allowed. `false` where the others would fare no better now:
    /// they go on waiting.
    pub(super) async fn ask(&mut self) -> Result<bool, RoundError> {
        let many = self.waiting.len().min(self.batch);
        let texts: Vec<&str> =
            self.waiting.iter().take(many).map(|(_, text)| text.as_str()).collect();
        let made = match self.embeddings.embed(&texts).await {
            Ok(made) => made,
            Err(error) if !error.are_texts_refused() => {
                tracing::warn!(%error, texts = many, "no embeddings; it will be tried again");
                return Ok(false);
            }
            Err(error) if many > 1 => {
                tracing::debug!(%error, texts = many, "no embeddings; half as many are tried");
                self.batch = many / 2;
                return Ok(true);
            }
            Err(error) => {
                tracing::warn!(%error, "a text is refused, and has no embedding");
                self.waiting.pop_front();
                return Ok(true);
            }
        };
        let hashes = self.waiting.iter().take(many).map(|(hash, _)| *hash);
        let made: Vec<(TextHash, Vec<f32>)> = hashes.zip(made).collect();
        let governance = self.governance.clone();
        let write = move || governance.write_embeddings(now_unix_nano(), &[], &made);
        // What cannot be written waits on.
        tokio::task::spawn_blocking(write).await??;
        self.waiting.drain(..many);
        self.batch = EMBEDDING_BATCH_TEXTS;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use axum::Json;
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use axum::routing::post;
    use prometheus_client::registry::Registry;
    use serde_json::{Value, json};
    use throughline_act::EmbeddingsConfig;

    use super::*;

    /// One of an endpoint that refuses texts about whales, and so many texts, of which these are about whales.
    async fn queue(
        governance: &Governance,
        status: StatusCode,
        (texts, whales): (u8, &[u8]),
    ) -> (Queue, Vec<TextHash>) {
        let answer = move |Json(body): Json<Value>| {
            let texts = body["input"].as_array().expect("texts").clone();
            let is_refused = texts.iter().any(|text| *text == "whale");
            let rows = (0..texts.len()).map(|at| json!({"index": at, "embedding": [1.0, 0.5]}));
            std::future::ready(match is_refused {
                true => status.into_response(),
                false => Json(json!({"data": rows.collect::<Vec<_>>()})).into_response(),
            })
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let app = axum::Router::new().route("/embeddings", post(answer));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let config = EmbeddingsConfig {
            url,
            model: "small".to_owned(),
            api_key_env: None,
            api_key_file: None,
            requests_per_minute: Some(6_000),
            timeout_ms: None,
        };
        let embeddings = Embeddings::of(&config, &mut Registry::default()).expect("an endpoint");
        let mut queue = Queue::new(embeddings, governance.clone());
        let hashes: Vec<TextHash> = (0..texts).map(|at| [at; 16]).collect();
        let text = |at: u8| if whales.contains(&at) { "whale" } else { "herring" }.to_owned();
        queue.add(hashes.clone(), (0..texts).map(|at| ([at; 16], text(at))).collect());
        (queue, hashes)
    }

    #[tokio::test]
    async fn a_text_that_is_refused_holds_no_other_up() {
        for status in [400, 413, 422] {
            let status = StatusCode::from_u16(status).expect("a status");
            let dir = tempfile::tempdir().expect("a directory");
            let governance = Governance::open(dir.path()).expect("opened");
            let (mut queue, hashes) = queue(&governance, status, (100, &[10, 99])).await;
            let mut asked = 0;
            while !queue.is_empty() && asked < 50 {
                assert!(queue.ask().await.expect("written"));
                asked += 1;
            }
            let missing = governance.without_embedding(&hashes).expect("read");
            assert_eq!((missing, queue.is_empty()), (vec![[10; 16], [99; 16]], true), "{status}");
        }
    }

    #[tokio::test]
    async fn a_key_that_is_refused_is_no_text_that_is() {
        for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
            let dir = tempfile::tempdir().expect("a directory");
            let governance = Governance::open(dir.path()).expect("opened");
            let (mut queue, _) = queue(&governance, status, (3, &[1])).await;
            assert!(!queue.ask().await.expect("told"));
            assert_eq!((queue.waiting.len(), queue.batch), (3, EMBEDDING_BATCH_TEXTS));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_written_waits_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let governance = Governance::open(dir.path()).expect("opened");
        let (mut queue, hashes) = queue(&governance, StatusCode::OK, (3, &[])).await;
        let database = rusqlite::Connection::open(dir.path().join("govern.db")).expect("opened");
        let rename = |from: &str, to: &str| {
            database.execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}")).expect("renamed");
        };
        rename("embeddings", "elsewhere");
        queue.ask().await.expect_err("there is no such table");
        assert_eq!(queue.waiting.len(), 3);
        rename("elsewhere", "embeddings");
        assert!(queue.ask().await.expect("written") && queue.is_empty());
        assert_eq!(governance.without_embedding(&hashes).expect("read"), [[0; 16]; 0]);
    }
}
