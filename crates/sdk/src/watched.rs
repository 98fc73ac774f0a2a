//! A span whose outcome is told once, whatever becomes of its future.

use std::sync::atomic::{AtomicBool, Ordering};

use throughline_trace::keys;

use crate::metrics::{Operation, Outcome};
use crate::resilient::attempt::FaultReport;
use crate::span::ActiveSpan;

/// A span that says `cancelled` when it is dropped before its end was told.
pub(crate) struct Watched {
    pub(crate) span: ActiveSpan,
    /// The operation to count, if it is one.
    counted: Option<&'static str>,
    is_told: AtomicBool,
}

impl Watched {
    pub(crate) fn new(span: ActiveSpan, counted: Option<&'static str>) -> Self {
        Self { span, counted, is_told: AtomicBool::new(false) }
    }

    /// Writes the outcome, and what it failed with if it did.
    pub(crate) fn end(&self, outcome: Outcome, failure: Option<&FaultReport>) {
        if let Some(report) = failure {
            self.span.fail(report.error_type, report.message.clone());
            if let Some(code) = &report.code {
                self.span.set(keys::ERROR_CODE, code.clone());
            }
        }
        self.tell(outcome);
    }

    /// Writes the outcome; what was told first counts.
    pub(crate) fn tell(&self, outcome: Outcome) {
        if self.is_told.swap(true, Ordering::Relaxed) {
            return;
        }
        self.span.outcome(outcome);
        if let Some(operation) = self.counted {
            let _attached = self.span.context().attach();
            Operation { operation, outcome, status_code: None, model_name: None, is_cached: false }
                .record();
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let is_panic = std::thread::panicking();
        self.tell(if is_panic { Outcome::Error } else { Outcome::Cancelled });
    }
}
