//! Whether directives are listened to, where, and whom to believe, as builder and environment say.

use std::sync::Arc;

use http::HeaderValue;
use http::header::AUTHORIZATION;

use crate::decision::HashKey;
use crate::export::ExportThread;
use crate::steering::{ListenSettings, listen};
use crate::telemetry::TelemetryError;
use crate::telemetry_builder::TelemetryBuilder;
use crate::telemetry_otlp::{Environment, OtlpSettings, TlsSettings};
use crate::telemetry_pipeline::Pipeline;

/// The server to listen to.
const URL_VARIABLE: &str = "THROUGHLINE_DIRECTIVES";

/// The key that directives are signed with: `ID:BASE64`, or `@PATH` of a file with that in it.
const KEY_VARIABLE: &str = "THROUGHLINE_DIRECTIVE_KEY";

/// What the builder said.
#[derive(Default)]
pub(crate) struct DirectiveSettings {
    url: Option<String>,
    key: Option<(String, Vec<u8>)>,
}

/// Without the key.
impl std::fmt::Debug for DirectiveSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirectiveSettings")
            .field("is_on", &self.url.is_some())
            .finish_non_exhaustive()
    }
}

impl TelemetryBuilder {
    /// Listens to what the server at this address (`https://host:4319`) tells this process to do:
    /// route weights, retry strategies, degraded answers, handing over, stopping
    /// (`THROUGHLINE_DIRECTIVES`; off when nobody says). What holds is in
    /// [`Steering`](crate::Steering). The connection carries the headers of the exports, the
    /// [key](Self::api_key) among them, and believes the [certificates](Self::certificate) that they do;
    /// without TLS or a key only a server on this machine is
    /// believed, or one that [signs](Self::directive_key).
    pub fn directives(mut self, url: impl Into<String>) -> Self {
        self.directive_settings().url = Some(url.into());
        self
    }

    /// Believes only directives that are signed with this key (`THROUGHLINE_DIRECTIVE_KEY`).
    pub fn directive_key(mut self, id: &str, key: &[u8]) -> Self {
        self.directive_settings().key = Some((id.to_owned(), key.to_vec()));
        self
    }
}

impl DirectiveSettings {
    /// Listens, if anybody wants to; on a thread that is started if there is none.
    ///
    /// # Errors
    /// An address, a key or headers that cannot be used.
    pub(crate) fn listen(
        &self,
        otlp: &OtlpSettings,
        pipeline: &Arc<Pipeline>,
        thread: &mut Option<ExportThread>,
    ) -> Result<(), TelemetryError> {
        let Some(settings) = self.resolve(otlp)? else { return Ok(()) };
        let thread = match thread {
            Some(thread) => thread,
            none => none.insert(ExportThread::start()?),
        };
        listen(settings, pipeline, thread.handle())
    }

    /// Where to listen; `None` when nobody wants to.
    ///
    /// # Errors
    /// An address, a key or headers that cannot be used.
    fn resolve(&self, otlp: &OtlpSettings) -> Result<Option<ListenSettings>, TelemetryError> {
        let environment = otlp.environment;
        let Some(url) = self.url.clone().or_else(|| environment.variable(URL_VARIABLE)) else {
            return Ok(None);
        };
        let key = match &self.key {
            Some((id, key)) => Some(HashKey::new("directive_key", id, key)?),
            None => HashKey::of_variable(KEY_VARIABLE, environment)?,
        };
        let mut headers = otlp.headers.clone();
        if !headers.contains_key(AUTHORIZATION)
            && let Some(mut value) = authorization_of(environment)
        {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        ListenSettings::new(&url, headers, key, TlsSettings::of(None, otlp)?).map(Some)
    }
}

/// The authorization among `OTEL_EXPORTER_OTLP_HEADERS`, whose values are percent-encoded.
fn authorization_of(environment: Environment) -> Option<HeaderValue> {
    let all = environment.variable("OTEL_EXPORTER_OTLP_HEADERS")?;
    let value = all.split(',').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case(AUTHORIZATION.as_str()).then(|| value.trim().to_owned())
    })?;
    HeaderValue::from_bytes(&unescaped(&value)).ok()
}

fn unescaped(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, more @ ..] = rest {
        let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_headers_are_read() {
        assert_eq!(unescaped("Bearer%20tl_%zz%2"), b"Bearer tl_%zz%2");
    }
}
