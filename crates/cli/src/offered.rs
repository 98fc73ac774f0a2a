//! Records of the gateway before the store's inbox: redacted, and kept until there is room.

use futures_util::future::BoxFuture;
use throughline_gateway::Offer;
use throughline_redact::Redacted;
use throughline_store::Inbox;
use throughline_trace::{Accepted, Refusal, SpanBatch};

/// A redacted batch and where it is to go.
pub(crate) struct Offered {
    batch: Option<SpanBatch>,
    inbox: Inbox,
}

impl Offered {
    /// A batch for this inbox.
    pub(crate) fn new(batch: Redacted, inbox: Inbox) -> Self {
        Self { batch: Some(batch.into_batch()), inbox }
    }
}

impl Offer for Offered {
    fn offer(&mut self) -> BoxFuture<'_, Result<Accepted, Refusal>> {
        Box::pin(self.inbox.offer(&mut self.batch))
    }

    fn is_left(&self) -> bool {
        self.batch.is_some()
    }
}
