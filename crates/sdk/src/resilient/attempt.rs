//! The spans of attempts (requirement R4.3): only an operation that took more than one, or whose
//! only one failed, has them. The first attempt therefore gets its span after the fact, with the
//! time at which it began; until then it runs in the operation's own span.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _};
use opentelemetry::{Context, KeyValue};
use throughline_trace::{ErrorType, SpanRole, keys};

use crate::metrics::Outcome;
use crate::span::{ActiveSpan, span};
use crate::tracer::SdkTracer;

/// What an attempt failed with.
#[derive(Debug, Clone)]
pub(crate) struct FaultReport {
    pub(crate) error_type: ErrorType,
    pub(crate) outcome: Outcome,
    pub(crate) message: String,
    pub(crate) code: Option<String>,
    pub(crate) status_code: Option<u16>,
    pub(crate) retry_after: Option<Duration>,
}

impl FaultReport {
    /// A failure of which only kind and message are known.
    pub(crate) fn new(error_type: ErrorType, message: String) -> Self {
        let outcome = Outcome::of_error(error_type);
        Self { error_type, outcome, message, code: None, status_code: None, retry_after: None }
    }
}

/// Whether a failed attempt is followed by another one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Followed {
    /// It is, after this pause: the attempt's status stays unset and it bears no error attribute.
    After(Duration),
    /// Another copy of it still runs: as with another attempt.
    ByCopy,
    /// It was the last.
    No,
}

/// Which attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who {
    /// Its index, from 0.
    pub(crate) index: u32,
    /// Which of its copies, from 0.
    pub(crate) copy: u32,
}

/// Makes the spans of one operation's attempts.
#[derive(Debug)]
pub(crate) struct AttemptSpans {
    name: Cow<'static, str>,
    operation: Option<&'static str>,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
    parent: Context,
    /// The attempt that runs: usually one, more when it has copies.
    running: Vec<Running>,
    /// The last attempt that had copies.
    copied: Option<u32>,
}

#[derive(Debug)]
struct Running {
    who: Who,
    began: SystemTime,
    /// From the second attempt on.
    span: Option<ActiveSpan>,
}

impl AttemptSpans {
    /// What the operation that is attempted is called: by its name (of a model call the model's), and
    /// as the GenAI conventions have it (`chat`).
    pub(crate) fn operations(&self) -> Vec<&str> {
        let name = self.name.strip_prefix("attempt ").unwrap_or(&self.name);
        std::iter::once(name).chain(self.operation).collect()
    }

    /// Says which operation of the GenAI conventions it is.
    pub(crate) fn of_operation(mut self, operation: &'static str) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Spans of this name below `parent`, all with these attributes.
    pub(crate) fn new(
        name: Cow<'static, str>,
        kind: SpanKind,
        attributes: Vec<KeyValue>,
        parent: Context,
    ) -> Self {
        Self { name, operation: None, kind, attributes, parent, running: Vec::new(), copied: None }
    }

    /// The span of the operation.
    pub(crate) fn parent(&self) -> &Context {
        &self.parent
    }

    /// An attempt begins. What it does runs within the span that is returned, or else within the
    /// operation's.
    pub(crate) fn begin(&mut self, who: Who) -> Option<&ActiveSpan> {
        if who.copy > 0 {
            self.copied = Some(who.index);
        }
        let span = (who.index > 0 || who.copy > 0).then(|| {
            span(self.name.clone())
                .kind(self.kind.clone())
                .role(SpanRole::Attempt)
                .attributes(self.attributes.iter().cloned())
                .attribute(keys::RETRY_COUNT, i64::from(who.index))
                .attributes((who.copy > 0).then(|| hedge_attribute(who)))
                .parent(self.parent.clone())
                .start()
        });
        let running = Running { who, began: SystemTime::now(), span };
        self.running.push(running);
        self.running.last().and_then(|running| running.span.as_ref())
    }

    /// The attempt succeeded, by this copy. All others are given up.
    pub(crate) fn succeed(&mut self, copy: u32, status_code: Option<u16>) {
        match self.take(copy) {
            Some(Running { span: Some(span), .. }) => span.set_all(status_attributes(status_code)),
            Some(Running { who, began, span: None }) if self.has_copies(who) => {
                self.write(who, began, status_attributes(status_code), None);
            }
            _ => {}
        }
        self.cancel();
    }

    /// The attempt was given up by the caller.
    pub(crate) fn cancel(&mut self) {
        for running in std::mem::take(&mut self.running) {
            self.end_cancelled(running);
        }
    }

    /// The copies other than this one are given up: it was faster.
    pub(crate) fn cancel_others(&mut self, copy: u32) {
        let (winner, losers): (Vec<Running>, Vec<Running>) =
            std::mem::take(&mut self.running).into_iter().partition(|one| one.who.copy == copy);
        self.running = winner;
        for loser in losers {
            self.end_cancelled(loser);
        }
    }

    fn end_cancelled(&self, running: Running) {
        match running.span {
            Some(span) => span.outcome(Outcome::Cancelled),
            // The first attempt has a span only when there is more to tell: that it had copies.
            None if self.has_copies(running.who) => {
                let cancelled = KeyValue::new(keys::OUTCOME, Outcome::Cancelled.as_str());
                self.write(running.who, running.began, vec![cancelled], None);
            }
            None => {}
        }
    }

    fn has_copies(&self, who: Who) -> bool {
        self.copied == Some(who.index)
    }

    fn take(&mut self, copy: u32) -> Option<Running> {
        let at = self.running.iter().position(|running| running.who.copy == copy)?;
        Some(self.running.swap_remove(at))
    }

    /// The attempt failed, or a copy of it while another still runs.
    pub(crate) fn fail(&mut self, copy: u32, report: &FaultReport, followed: Followed) {
        let Some(Running { who, began, span }) = self.take(copy) else { return };
        let attributes = failure_attributes(report, followed);
        let last = matches!(followed, Followed::No).then_some(report);
        match span {
            Some(span) => {
                span.set_all(attributes);
                if let Some(report) = last {
                    span.fail(report.error_type, report.message.clone());
                }
            }
            None => self.write(who, began, attributes, last),
        }
        if !matches!(followed, Followed::ByCopy) {
            self.cancel();
        }
    }

    /// Writes the span of an attempt that is over.
    fn write(
        &self,
        who: Who,
        began: SystemTime,
        mut attributes: Vec<KeyValue>,
        failed: Option<&FaultReport>,
    ) {
        attributes.push(KeyValue::new(keys::ROLE, SpanRole::Attempt.as_str()));
        attributes.push(KeyValue::new(keys::RETRY_COUNT, i64::from(who.index)));
        attributes.extend(self.has_copies(who).then(|| hedge_attribute(who)));
        attributes.extend(self.attributes.iter().cloned());
        if let Some(report) = failed {
            attributes.push(KeyValue::new(keys::ERROR_TYPE, report.error_type.as_str()));
            attributes.push(KeyValue::new(keys::ERROR_MESSAGE, report.message.clone()));
        }
        let builder = SdkTracer
            .span_builder(self.name.clone())
            .with_kind(self.kind.clone())
            .with_start_time(began)
            .with_attributes(attributes);
        let mut span = SdkTracer.build_with_context(builder, &self.parent);
        if let Some(report) = failed {
            let description = match report.error_type {
                ErrorType::Timeout => report.error_type.as_str().to_owned(),
                _ => report.message.clone(),
            };
            span.set_status(Status::error(description));
        }
        span.end();
    }
}

fn hedge_attribute(who: Who) -> KeyValue {
    KeyValue::new(keys::HEDGE, i64::from(who.copy))
}

fn status_attributes(status_code: Option<u16>) -> Vec<KeyValue> {
    let both = [keys::STATUS_CODE, keys::HTTP_RESPONSE_STATUS_CODE];
    let status = status_code.map(i64::from);
    status.into_iter().flat_map(|code| both.map(|key| KeyValue::new(key, code))).collect()
}

fn failure_attributes(report: &FaultReport, followed: Followed) -> Vec<KeyValue> {
    let mut attributes = status_attributes(report.status_code);
    match followed {
        Followed::After(_) | Followed::ByCopy => {
            attributes.push(KeyValue::new(keys::ATTEMPT_ERROR_TYPE, report.error_type.as_str()));
            attributes.push(KeyValue::new(keys::ATTEMPT_MESSAGE, report.message.clone()));
            if let Followed::After(pause) = followed {
                let pause_ms = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
                attributes.push(KeyValue::new(keys::RETRY_DELAY_MS, pause_ms));
            }
            if let Some(code) = &report.code {
                attributes.push(KeyValue::new(keys::ATTEMPT_ERROR_CODE, code.clone()));
            }
        }
        Followed::No => {
            if let Some(code) = &report.code {
                attributes.push(KeyValue::new(keys::ERROR_CODE, code.clone()));
            }
        }
    }
    attributes
}
