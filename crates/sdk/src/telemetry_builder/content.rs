//! What the builder says of content, prices and the names of metrics.

use std::fmt;
use std::sync::Arc;

use throughline_llm::prices::PriceTable;

use super::TelemetryBuilder;
use crate::content::{ContentCapture, Redactor};
#[cfg(doc)]
use crate::telemetry::Telemetry;

impl TelemetryBuilder {
    /// Whether the metrics of model calls have the newest names of the GenAI conventions
    /// (`gen_ai.client.inference.*`) in place of those in the wild (`gen_ai.client.operation.*`,
    /// `gen_ai.client.token.usage`); they do not when nobody says
    /// (`OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental`).
    pub fn latest_gen_ai_names(mut self, wanted: bool) -> Self {
        self.latest_genai = Some(wanted);
        self
    }

    /// Where prompts, answers, tool arguments and results go
    /// (`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`; onto spans): `true` is
    /// [`ContentCapture::SPANS`], `false` [`ContentCapture::NONE`].
    pub fn capture_content(mut self, wanted: impl Into<ContentCapture>) -> Self {
        self.content = Some(wanted.into());
        self
    }

    /// How many bytes of JSON a prompt, an answer or the definitions of tools may have on one span or
    /// in one event; [`CONTENT_MAX_BYTES`](crate::CONTENT_MAX_BYTES) when nobody says. What is longer
    /// is cut: media become their size and SHA-256, long parts keep their beginning, the oldest
    /// messages are left out. `throughline.content.*` says what was cut, from how many bytes, and the
    /// SHA-256 of the original.
    pub fn max_content_bytes(mut self, bytes: usize) -> Self {
        self.max_content_bytes = Some(bytes);
        self
    }

    /// Whether each model call is also the event `gen_ai.client.inference.operation.details`
    /// (`OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT`; when content goes into events).
    pub fn emit_events(mut self, wanted: bool) -> Self {
        self.emits_events = Some(wanted);
        self
    }

    /// Takes out of content what must not be recorded, before it goes anywhere: a function from text
    /// to text, or [`MaskContent`](crate::MaskContent), which leaves nothing but the shape.
    pub fn redact(mut self, redactor: impl Redactor + 'static) -> Self {
        self.redactor = Some(Arc::new(redactor));
        self
    }

    /// What models cost; when nobody says, the built-in prices with those of the file that
    /// `THROUGHLINE_PRICES` names laid over them. [`Telemetry::set_prices`] changes them later.
    pub fn prices(mut self, prices: PriceTable) -> Self {
        self.prices = Some(prices);
        self
    }
}

impl fmt::Debug for TelemetryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetryBuilder")
            .field("service_name", &self.service_name)
            .field("resource", &self.resource)
            .field("otlp", &self.otlp)
            .field("sample_ratio", &self.sample_ratio)
            .field("content", &self.content)
            .field("is_redacted", &self.redactor.is_some())
            .finish_non_exhaustive()
    }
}
