//! The door of the writer.

use throughline_trace::{Accepted, Refusal, SpanBatch};

/// Takes batches for the writer; cheap to clone.
#[derive(Debug, Clone)]
pub struct Inbox {}

impl Inbox {
    /// Makes a batch durable: `Ok` is answered only after the commit that holds it. Never waits
    /// for room: a full inbox refuses at once.
    ///
    /// # Errors
    /// [`Refusal`]: nothing of the batch was kept; it may be sent again.
    pub async fn commit(&self, batch: SpanBatch) -> Result<Accepted, Refusal> {
        let _ = batch;
        Err(Refusal::Storage("the writer is not running".to_owned()))
    }
}
