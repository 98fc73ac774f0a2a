//! Records of the gateway before the store's inbox: redacted, and kept until there is room.

use futures_util::future::BoxFuture;
use throughline_gateway::Offer;
use throughline_redact::Redacted;
use throughline_store::Inbox;
use throughline_trace::{Accepted, Refusal, SpanBatch};

/// A redacted batch and where it is to go.
struct Offered {
    batch: Option<SpanBatch>,
    inbox: Inbox,
}

/// Whatever is redacted, on its way to this inbox.
pub(crate) fn to(inbox: Inbox) -> impl Fn(Redacted) -> Box<dyn Offer> + Send + Sync + 'static {
    move |batch| Box::new(Offered { batch: Some(batch.into_batch()), inbox: inbox.clone() })
}

impl Offer for Offered {
    fn offer(&mut self) -> BoxFuture<'_, Result<Accepted, Refusal>> {
        Box::pin(self.inbox.offer(&mut self.batch))
    }

    fn is_left(&self) -> bool {
        self.batch.is_some()
    }
}
