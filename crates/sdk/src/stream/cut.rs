//! A streamed answer that was cut, and the way on from there (requirement R3.2).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll, ready};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use futures_util::future::BoxFuture;
use throughline_llm::{ChatRequest, StreamReader};

use super::numbers::SseNumbers;
use crate::chat::{ChatError, ChatModel, ChatStream};

/// How long one attempt to go on may take until the answer's headers have come.
const RESUME_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause before the second attempt in a row to go on; before each further one it is twice as long.
const RESUME_PAUSE: Duration = Duration::from_millis(250);

/// Where a streamed answer broke off, for its model to go on
/// ([`ChatModel::resume`](crate::ChatModel::resume)). The clients of this crate put one into the error
/// that the stream ends with; what wraps a model or its stream passes it on.
#[derive(Debug, Clone)]
pub struct CutStream {
    /// The provider's id of the answer; empty when it told none.
    pub(crate) response_id: String,
    /// The last event id that the stream had named.
    pub(crate) last_event_id: Option<String>,
    /// The number that the last event gave itself.
    pub(crate) sequence_number: Option<u64>,
    /// What has been read of the answer so far, for the events that follow.
    pub(crate) reader: StreamReader,
    pub(crate) numbers: SseNumbers,
    /// Which of its models each router and fallback on the way asked, the innermost first.
    pub(crate) asked: Vec<usize>,
}

impl CutStream {
    /// What a router or fallback says of a cut that did not come from one of its streams.
    pub(crate) fn not_from_here(model: &str) -> ChatError {
        let message = format!("expected a stream of {model} that was cut here, got another");
        ChatError::new(throughline_trace::ErrorType::InvalidRequest, message)
    }

    /// Which of the models of the outermost router or fallback on the way was asked; it is off then.
    pub(crate) fn take_asked(&mut self) -> Option<usize> {
        self.asked.pop()
    }
}

/// Where a stream was cut, as a part of the error that it ended with. Errors that say the same are
/// equal whether one of them can be gone on from or not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cut(pub(crate) Option<Box<CutStream>>);

impl PartialEq for Cut {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Cut {}

impl ChatStream {
    /// The stream of the model with this index, of those that a router or fallback has.
    pub(crate) fn told_by(self, model: usize) -> Self {
        self.through(|chunks| {
            chunks.map_err(move |mut error| {
                if let Some(cut) = &mut error.cut.0 {
                    cut.asked.push(model);
                }
                error
            })
        })
    }
}

/// Goes on with a stream that was cut.
pub(crate) struct Resuming {
    model: Arc<dyn ChatModel>,
    request: Arc<ChatRequest>,
    left: u32,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    cut: CutStream,
    /// What the stream was cut with.
    cause: ChatError,
    pause: Duration,
    opening: BoxFuture<'static, Result<ChatStream, ChatError>>,
}

impl Resuming {
    /// For a stream of `model` that may be gone on with so many times.
    pub(crate) fn new(model: Arc<dyn ChatModel>, request: Arc<ChatRequest>, attempts: u32) -> Self {
        Self { model, request, left: attempts, under_way: None }
    }

    /// Begins to go on, if there is an attempt left.
    pub(crate) fn begin(&mut self, cut: CutStream, cause: ChatError) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let opening = self.open(cut.clone(), Duration::ZERO);
        self.under_way = Some(UnderWay { cut, cause, pause: RESUME_PAUSE, opening });
        true
    }

    fn open(
        &self,
        cut: CutStream,
        pause: Duration,
    ) -> BoxFuture<'static, Result<ChatStream, ChatError>> {
        let (model, request) = (Arc::clone(&self.model), Arc::clone(&self.request));
        Box::pin(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let resumed = model.resume((*request).clone(), cut);
            tokio::time::timeout(RESUME_TIMEOUT, resumed).await.unwrap_or_else(|_| {
                let kind = throughline_trace::ErrorType::Timeout;
                let secs = RESUME_TIMEOUT.as_secs();
                Err(ChatError::new(kind, format!("no answer within {secs} s")))
            })
        })
    }

    /// The stream that goes on, or with what it broke for good; pending at once when none is under
    /// way.
    pub(crate) fn poll(&mut self, poller: &mut Poller<'_>) -> Poll<Result<ChatStream, ChatError>> {
        loop {
            let Some(under_way) = &mut self.under_way else { return Poll::Pending };
            let opened = ready!(Pin::new(&mut under_way.opening).poll(poller));
            let Some(mut under_way) = self.under_way.take() else { return Poll::Pending };
            match opened {
                Ok(stream) => return Poll::Ready(Ok(stream)),
                Err(error) if self.left == 0 || !is_passing(&error) => {
                    let mut cause = under_way.cause;
                    cause.message = format!("{}; it could not go on: {error}", cause.message);
                    return Poll::Ready(Err(cause));
                }
                Err(_) => {
                    self.left -= 1;
                    under_way.opening = self.open(under_way.cut.clone(), under_way.pause);
                    under_way.pause *= 2;
                    self.under_way = Some(under_way);
                }
            }
        }
    }

    /// Whether an attempt is under way.
    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }
}

/// Whether it may be better the next time.
fn is_passing(error: &ChatError) -> bool {
    throughline_resilience::ErrorSet::RETRYABLE.contains(error.error_type)
}
