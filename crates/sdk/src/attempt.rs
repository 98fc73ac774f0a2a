//! The spans of attempts (requirement R4.3): only an operation that took more than one, or whose
//! only one failed, has them. The first attempt therefore gets its span after the fact, with the
//! time at which it began; until then it runs in the operation's own span.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _};
use opentelemetry::{Context, KeyValue};
use throughline_trace::{ErrorType, SpanRole, keys};

use crate::layer::SdkTracer;
use crate::metrics::Outcome;
use crate::span::{ActiveSpan, span};

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
    /// It was the last.
    No,
}

/// Makes the spans of one operation's attempts.
#[derive(Debug)]
pub(crate) struct AttemptSpans {
    name: Cow<'static, str>,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
    parent: Context,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    index: u32,
    began: SystemTime,
    /// From the second attempt on.
    span: Option<ActiveSpan>,
}

impl AttemptSpans {
    /// Spans of this name below `parent`, all with these attributes.
    pub(crate) fn new(
        name: Cow<'static, str>,
        kind: SpanKind,
        attributes: Vec<KeyValue>,
        parent: Context,
    ) -> Self {
        Self { name, kind, attributes, parent, running: None }
    }

    /// The attempt `index` begins. What it does runs within the span that is returned, or else
    /// within the operation's.
    pub(crate) fn begin(&mut self, index: u32) -> Option<&ActiveSpan> {
        let span = (index > 0).then(|| {
            span(self.name.clone())
                .kind(self.kind.clone())
                .role(SpanRole::Attempt)
                .attributes(self.attributes.iter().cloned())
                .attribute(keys::RETRY_COUNT, i64::from(index))
                .parent(self.parent.clone())
                .start()
        });
        self.running.insert(Running { index, began: SystemTime::now(), span }).span.as_ref()
    }

    /// The attempt succeeded.
    pub(crate) fn succeed(&mut self, status_code: Option<u16>) {
        if let Some(Running { span: Some(span), .. }) = self.running.take() {
            span.set_all(status_attributes(status_code));
        }
    }

    /// The attempt was given up by the caller.
    pub(crate) fn cancel(&mut self) {
        if let Some(Running { span: Some(span), .. }) = self.running.take() {
            span.outcome(Outcome::Cancelled);
        }
    }

    /// The attempt failed.
    pub(crate) fn fail(&mut self, report: &FaultReport, followed: Followed) {
        let Some(Running { index, began, span }) = self.running.take() else { return };
        let attributes = failure_attributes(report, followed);
        match span {
            Some(span) => {
                span.set_all(attributes);
                if let Followed::No = followed {
                    span.fail(report.error_type, report.message.clone());
                }
            }
            None => self.write(index, began, attributes, report, followed),
        }
    }

    /// Writes the span of an attempt that is over.
    fn write(
        &self,
        index: u32,
        began: SystemTime,
        mut attributes: Vec<KeyValue>,
        report: &FaultReport,
        followed: Followed,
    ) {
        attributes.push(KeyValue::new(keys::ROLE, SpanRole::Attempt.as_str()));
        attributes.push(KeyValue::new(keys::RETRY_COUNT, i64::from(index)));
        attributes.extend(self.attributes.iter().cloned());
        if let Followed::No = followed {
            attributes.push(KeyValue::new(keys::ERROR_TYPE, report.error_type.as_str()));
            attributes.push(KeyValue::new(keys::ERROR_MESSAGE, report.message.clone()));
        }
        let builder = SdkTracer
            .span_builder(self.name.clone())
            .with_kind(self.kind.clone())
            .with_start_time(began)
            .with_attributes(attributes);
        let mut span = SdkTracer.build_with_context(builder, &self.parent);
        if let Followed::No = followed {
            let description = match report.error_type {
                ErrorType::Timeout => report.error_type.as_str().to_owned(),
                _ => report.message.clone(),
            };
            span.set_status(Status::error(description));
        }
        span.end();
    }
}

fn status_attributes(status_code: Option<u16>) -> Vec<KeyValue> {
    let both = [keys::STATUS_CODE, keys::HTTP_RESPONSE_STATUS_CODE];
    let status = status_code.map(i64::from);
    status.into_iter().flat_map(|code| both.map(|key| KeyValue::new(key, code))).collect()
}

fn failure_attributes(report: &FaultReport, followed: Followed) -> Vec<KeyValue> {
    let mut attributes = status_attributes(report.status_code);
    match followed {
        Followed::After(pause) => {
            let pause_ms = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
            attributes.push(KeyValue::new(keys::ATTEMPT_ERROR_TYPE, report.error_type.as_str()));
            attributes.push(KeyValue::new(keys::ATTEMPT_MESSAGE, report.message.clone()));
            attributes.push(KeyValue::new(keys::RETRY_DELAY_MS, pause_ms));
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
