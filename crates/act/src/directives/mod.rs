//! The server's side of docs/directives.md: directives are given once, and heard by every agent that
//! is meant.
//!
//! The place where they wait is `govern.db`; a listener has nothing but a place in it. So a slow
//! listener costs no memory, and one that comes back after a restart goes on where it was.

pub(crate) mod stream;

use std::sync::Arc;

use throughline_store::Governance;
use throughline_trace::Directive;
use tokio::sync::{Semaphore, watch};

use crate::metrics::ActMetrics;
use crate::sign::DirectiveKey;

/// Agents that may listen at once; a further one is told to come back.
pub(crate) const MAX_LISTENERS: usize = 512;

/// Longest time for which a directive may hold, seconds: whoever wants more says it again.
pub const LONGEST_DIRECTIVE_TTL_S: u64 = 30 * 24 * 3_600;

/// How long expired directives and their answers are kept, nanoseconds: a week.
const KEEP_EXPIRED_NANOS: u64 = 7 * 24 * 3_600 * 1_000_000_000;

/// Asks `govern.db` without holding up the runtime.
pub(crate) async fn ask<T: Send + 'static>(
    governance: &Governance,
    question: impl FnOnce(&Governance) -> Result<T, throughline_store::ControlError> + Send + 'static,
) -> Result<T, String> {
    let governance = governance.clone();
    match tokio::task::spawn_blocking(move || question(&governance)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(error) => Err(format!("the question ended: {error}")),
    }
}

/// Where directives are given and heard; cheap to clone.
#[derive(Debug, Clone)]
pub struct Board {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    governance: Governance,
    key: Option<DirectiveKey>,
    /// The place of the last directive.
    last: watch::Sender<u64>,
    listeners: Arc<Semaphore>,
    metrics: ActMetrics,
}

impl Board {
    pub(crate) fn new(
        governance: Governance,
        key: Option<DirectiveKey>,
        metrics: ActMetrics,
    ) -> Self {
        let (last, _) = watch::channel(0);
        let listeners = Arc::new(Semaphore::new(MAX_LISTENERS));
        Self { inner: Arc::new(Inner { governance, key, last, listeners, metrics }) }
    }

    /// Gives a directive; one whose id is known stays what it is. Answers its place, and whether it
    /// is new.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn issue(&self, directive: Directive) -> Result<(u64, bool), String> {
        let issued =
            ask(&self.inner.governance, move |governance| governance.issue_directive(&directive));
        let (place, is_new) = issued.await?;
        self.tell(place);
        Ok((place, is_new))
    }

    /// Looks whether another process gave directives.
    pub(crate) async fn look(&self) {
        match ask(&self.inner.governance, Governance::last_directive_place).await {
            Ok(place) => self.tell(place),
            Err(error) => tracing::warn!(error, "cannot look for new directives"),
        }
    }

    /// Forgets what expired long ago.
    pub(crate) async fn forget(&self, now_unix_nano: u64) {
        let before = now_unix_nano.saturating_sub(KEEP_EXPIRED_NANOS);
        let gone =
            ask(&self.inner.governance, move |governance| governance.forget_directives(before));
        match gone.await {
            Ok(0) => {}
            Ok(directives) => tracing::debug!(directives, "forgot expired directives"),
            Err(error) => tracing::warn!(error, "cannot forget expired directives"),
        }
    }

    fn tell(&self, place: u64) {
        self.inner.last.send_if_modified(|last| {
            let is_further = place > *last;
            *last = place.max(*last);
            is_further
        });
    }

    /// The JSON as agents get it.
    fn to_text(&self, directive: &Directive) -> String {
        match &self.inner.key {
            Some(key) => key.signed(directive).to_string(),
            None => directive.to_json().to_string(),
        }
    }
}
