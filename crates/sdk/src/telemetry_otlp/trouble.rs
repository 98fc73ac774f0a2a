//! Tells people when exports do not arrive, why, and when they do again: once each, not at every
//! attempt. The exporters' own words, once a second, are "network error". A receiver that asks for a
//! pause is no trouble, unless it asks for so many that an export is given up.

use std::collections::BTreeMap;
use std::error::Error;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode, Uri};
#[cfg(feature = "grpc")]
use tonic_types::StatusExt as _;

use crate::http_client::without_userinfo;

/// The target of what is told. It goes to local logs alone: as a record it would be sent to the
/// receiver that cannot be reached.
pub(crate) const EXPORT_TARGET: &str = "throughline::export";

/// What keeps the exports of one telemetry from arriving, each with how many exporters it keeps.
#[derive(Debug, Clone, Default)]
pub(super) struct Troubles(Arc<Mutex<BTreeMap<String, u32>>>);

impl Troubles {
    /// The trouble of one more exporter: none so far.
    pub(super) fn of_another(&self) -> Trouble {
        Trouble { all: self.clone(), own: Arc::default() }
    }

    /// One exporter has this; whether it is the first.
    fn begins(&self, text: &str) -> bool {
        let mut all = locked(&self.0);
        let exporters = all.entry(text.to_owned()).or_default();
        *exporters += 1;
        *exporters == 1
    }

    /// One exporter has it no longer; whether it was the last.
    fn ends(&self, text: &str) -> bool {
        let mut all = locked(&self.0);
        let Some(exporters) = all.get_mut(text) else { return false };
        *exporters -= 1;
        let is_last = *exporters == 0;
        if is_last {
            all.remove(text);
        }
        is_last
    }
}

/// What keeps the exports of one exporter from arriving.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble {
    all: Troubles,
    own: Arc<Mutex<Own>>,
}

#[derive(Debug, Default)]
struct Own {
    /// What keeps them from arriving.
    keeps: Option<String>,
    /// What will, if the export under way is given up: its receiver is there, and asked for a pause.
    pauses: Option<String>,
}

impl Trouble {
    /// An attempt to send to this address begins.
    pub(super) fn attempt(&self, to: &Uri) -> Attempt<'_> {
        // The receiver is the same for every signal, whatever the path of each.
        let receiver = match (to.scheme_str(), to.authority()) {
            (Some(scheme), Some(authority)) => format!("{scheme}://{authority}"),
            _ => to.to_string(),
        };
        let path = to.path().to_owned();
        Attempt { trouble: self, to: without_userinfo(&receiver), path, is_over: false }
    }

    /// What the last attempt came to: nothing keeps the exports, or this does.
    fn is_now(&self, now: Option<String>) {
        let mut own = locked(&self.own);
        own.pauses = None;
        if own.keeps == now {
            return;
        }
        let is_new = now.as_deref().is_some_and(|text| self.all.begins(text));
        let before = mem::replace(&mut own.keeps, now.clone());
        drop(own);
        let is_gone = before.is_some_and(|text| self.all.ends(&text));
        match now {
            Some(text) if is_new => tracing::warn!(
                target: EXPORT_TARGET,
                "telemetry does not arrive: {text}; it is tried again, and counted when it is lost"
            ),
            None if is_gone => tracing::info!(target: EXPORT_TARGET, "telemetry arrives again"),
            _ => {}
        }
    }

    /// The export under way is not tried again: what its receiver asked to wait for was too much.
    pub(super) fn given_up(&self) {
        let pauses = locked(&self.own).pauses.take();
        if pauses.is_some() {
            self.is_now(pauses);
        }
    }
}

/// An attempt under way. One that is given up before an answer came had none in time.
pub(super) struct Attempt<'t> {
    trouble: &'t Trouble,
    to: String,
    path: String,
    is_over: bool,
}

impl Attempt<'_> {
    /// The receiver took it.
    pub(super) fn arrived(mut self) {
        self.is_over = true;
        self.trouble.is_now(None);
    }

    /// No answer came, for this reason.
    pub(super) fn unreached(mut self, error: &(dyn Error + 'static)) {
        self.is_over = true;
        self.trouble.is_now(Some(format!("cannot reach {}: {}", self.to, causes(error))));
    }

    /// The receiver answered this status of HTTP, with these headers.
    pub(super) fn refused(mut self, status: StatusCode, headers: &HeaderMap) {
        self.is_over = true;
        let is_busy =
            matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        if is_busy && headers.contains_key(RETRY_AFTER) {
            return self.pauses(&status.to_string());
        }
        let (path, advice) = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ("", KEY_ADVICE),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => (
                self.path.as_str(),
                "; set the address of an OTLP receiver, to which the path of the signal is added",
            ),
            _ => ("", ""),
        };
        self.trouble.is_now(Some(format!("{}{path} answered {status}{advice}", self.to)));
    }

    /// The receiver answered this status of gRPC, or the connection failed.
    #[cfg(feature = "grpc")]
    pub(super) fn failed(mut self, status: &tonic::Status) {
        use tonic::Code;
        if let Some(error) = Error::source(status) {
            return self.unreached(error);
        }
        self.is_over = true;
        let is_busy = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
        if is_busy && status.get_details_retry_info().is_some() {
            return self.pauses(&format!("{:?}", status.code()));
        }
        let advice = match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => KEY_ADVICE,
            Code::Unimplemented => "; set the address of an OTLP receiver",
            _ => "",
        };
        self.trouble.is_now(Some(format!("{} answered {:?}{advice}", self.to, status.code())));
    }

    /// The receiver is there and asked for a pause.
    fn pauses(&self, answered: &str) {
        let text = format!(
            "{} is busy: it answered {answered} and asked to wait, for longer than an export does",
            self.to
        );
        locked(&self.trouble.own).pauses = Some(text);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.trouble.is_now(Some(format!("{} did not answer in time", self.to)));
        }
    }
}

/// What helps a client that is not let in.
const KEY_ADVICE: &str =
    "; set its key with TelemetryBuilder::api_key, or OTEL_EXPORTER_OTLP_HEADERS";

/// What an error comes from, the outermost first: without its own words, which say that a request
/// failed.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut all: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Some say what they come from themselves.
        if !all.iter().any(|before| before.contains(&text)) {
            all.push(text);
        }
        next = cause.source();
    }
    if all.is_empty() { error.to_string() } else { all.join(": ") }
}

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
