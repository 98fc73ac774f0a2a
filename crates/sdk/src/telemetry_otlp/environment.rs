//! The standard variables, and that they may be left unread.

use throughline_llm::prices::PriceTable;

use crate::content::ContentCapture;
use crate::telemetry::TelemetryError;

/// The `OTEL_*` variables, unless they are not to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Environment {
    is_read: bool,
}

impl Environment {
    /// With `false`, as if no variable were set.
    pub(crate) fn new(is_read: bool) -> Self {
        Self { is_read }
    }

    pub(crate) fn is_read(self) -> bool {
        self.is_read
    }

    /// A variable that is set and not empty (OpenTelemetry treats empty as unset).
    pub(crate) fn variable(self, name: &str) -> Option<String> {
        if !self.is_read {
            return None;
        }
        std::env::var(name).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Whether `OTEL_SDK_DISABLED` says that there is to be no telemetry.
    pub(crate) fn is_disabled(self) -> bool {
        self.variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"))
    }

    /// Whether a signal is to be exported: `OTEL_TRACES_EXPORTER=none` and its like say no.
    pub(crate) fn is_wanted(self, name: &str) -> bool {
        self.variable(name).is_none_or(|text| text != "none")
    }

    /// A number of items above 0.
    ///
    /// # Errors
    /// [`TelemetryError::Setting`] when the variable says something else.
    pub(crate) fn items(self, name: &str) -> Result<Option<usize>, TelemetryError> {
        let Some(text) = self.variable(name) else { return Ok(None) };
        match text.parse() {
            Ok(items) if items > 0 => Ok(Some(items)),
            _ => Err(TelemetryError::Setting {
                name: name.to_owned(),
                expected: "a number of items above 0",
                got: text,
            }),
        }
    }

    /// The built-in prices, with those of the file that `THROUGHLINE_PRICES` names laid over them.
    ///
    /// # Errors
    /// [`TelemetryError::Prices`] when the file cannot be read or is no price table.
    pub(crate) fn prices(self) -> Result<PriceTable, TelemetryError> {
        let builtin = PriceTable::builtin();
        match self.variable("THROUGHLINE_PRICES") {
            Some(path) => Ok(builtin.with(PriceTable::from_file(path)?)),
            None => Ok(builtin.clone()),
        }
    }

    /// Whether `OTEL_SEMCONV_STABILITY_OPT_IN` asks for the newest GenAI names.
    pub(crate) fn wants_latest_genai(self) -> bool {
        self.variable("OTEL_SEMCONV_STABILITY_OPT_IN").is_some_and(|text| {
            text.split(',').any(|word| word.trim() == "gen_ai_latest_experimental")
        })
    }

    /// Where prompts and answers go: onto spans, when nobody says.
    ///
    /// # Errors
    /// [`TelemetryError::Setting`] for a word that the variable does not know: a secret must not be
    /// recorded because of a misspelling.
    pub(crate) fn content_capture(self) -> Result<ContentCapture, TelemetryError> {
        let name = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
        let Some(text) = self.variable(name) else { return Ok(ContentCapture::SPANS) };
        ContentCapture::from_text(&text).ok_or_else(|| TelemetryError::Setting {
            name: name.to_owned(),
            expected: "true, false, SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT or NO_CONTENT",
            got: text,
        })
    }

    /// A variable that is true or false, if it is set.
    ///
    /// # Errors
    /// [`TelemetryError::Setting`] when it says something else.
    pub(crate) fn truth(self, name: &str) -> Result<Option<bool>, TelemetryError> {
        let Some(text) = self.variable(name) else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => Err(TelemetryError::Setting {
                name: name.to_owned(),
                expected: "true or false",
                got: text,
            }),
        }
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self::new(true)
    }
}
