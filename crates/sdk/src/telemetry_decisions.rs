//! How decisions are kept, as builder and environment say: the key of input hashes, the spool, and
//! whether an action may go unrecorded.

use std::path::PathBuf;
use std::sync::Arc;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::logs::LogExporter as _;

use crate::decision::{
    Acknowledgements, Audit, DECISION_SPOOL_MAX_BYTES, Deliver, Delivery, HashKey, Spool,
    SpoolSettings, Undelivered, emit,
};
use crate::export::{Counters, ExportThread};
use crate::recorder::Recorder;
use crate::telemetry::TelemetryError;
use crate::telemetry_builder::TelemetryBuilder;
use crate::telemetry_otlp::{Environment, Heard, OtlpExporters, OtlpSettings, Rejections};
use crate::telemetry_pipeline::{Keeping, Pipeline};

/// The directory of the spool.
const SPOOL_VARIABLE: &str = "THROUGHLINE_DECISION_SPOOL";

/// What the builder said.
#[derive(Debug, Default)]
pub(crate) struct DecisionSettings {
    audit: Audit,
    hash_key: Option<(String, Vec<u8>)>,
    spool: Option<PathBuf>,
    spool_max_bytes: Option<u64>,
}

impl TelemetryBuilder {
    /// The key of input hashes (`THROUGHLINE_INPUT_HASH_KEY=ID:BASE64`, or `@PATH` of a file with
    /// that in it), with a name that is recorded beside each hash. Services whose decisions are to
    /// be compared share it. Without one there is a random key that ends with the process.
    pub fn input_hash_key(mut self, id: &str, key: &[u8]) -> Self {
        self.decisions().hash_key = Some((id.to_owned(), key.to_vec()));
        self
    }

    /// Keeps every decision in this directory until the server has acknowledged it
    /// (`THROUGHLINE_DECISION_SPOOL`): what is not sent when the process ends, however it ends, is
    /// sent by the next one with this directory. Several processes may share it.
    pub fn decision_spool(mut self, directory: impl Into<PathBuf>) -> Self {
        self.decisions().spool = Some(directory.into());
        self
    }

    /// Bytes that the spool takes on disk at most; [`DECISION_SPOOL_MAX_BYTES`] when not said. What
    /// is there is kept, what comes then is refused and counted.
    pub fn decision_spool_max_bytes(mut self, bytes: u64) -> Self {
        self.decisions().spool_max_bytes = Some(bytes);
        self
    }

    /// Whether an action may go ahead when the record of its decision is not durable; it may when
    /// not said ([`DecisionBuilder::record_audited`](crate::DecisionBuilder::record_audited)).
    pub fn audit(mut self, audit: Audit) -> Self {
        self.decisions().audit = audit;
        self
    }
}

/// Where the records of the spool go.
pub(crate) enum Exit<'a> {
    Recorder(&'a Recorder),
    Otlp(&'a OtlpSettings),
}

impl Exit<'_> {
    fn deliver(&self) -> Deliver {
        match self {
            Self::Recorder(recorder) => {
                let recorder = (*recorder).clone();
                Box::new(move |_| {
                    let why = |error: &OTelSdkError| Undelivered::Later(error.to_string());
                    let (exporter, rejections) = (recorder.clone(), Rejections::default());
                    Ok(Box::new(Delivery { exporter, rejections, why }))
                })
            }
            Self::Otlp(settings) => {
                let settings = (*settings).clone();
                Box::new(move |resource| {
                    let text = |error: TelemetryError| error.to_string();
                    let exporters = OtlpExporters::new(settings.clone()).map_err(text)?;
                    let (mut exporter, Heard { answer, rejections, .. }) =
                        exporters.logs().map_err(text)?;
                    exporter.set_resource(resource);
                    let why = move |error: &OTelSdkError| answer.explain(error);
                    Ok(Box::new(Delivery { exporter, rejections, why }))
                })
            }
        }
    }
}

impl DecisionSettings {
    /// The key, from builder, environment, or chance.
    fn key(&self, environment: Environment) -> Result<HashKey, TelemetryError> {
        match &self.hash_key {
            Some((id, key)) => HashKey::new("input_hash_key", id, key),
            None => Ok(HashKey::of_environment(environment)?.unwrap_or_else(HashKey::ephemeral)),
        }
    }

    fn spool(&self, environment: Environment) -> Option<SpoolSettings> {
        let said = environment.variable(SPOOL_VARIABLE).map(PathBuf::from);
        let directory = self.spool.clone().or(said)?;
        let max_bytes = self.spool_max_bytes.unwrap_or(DECISION_SPOOL_MAX_BYTES);
        Some(SpoolSettings { directory, max_bytes })
    }

    /// Opens what decisions need. The spool wants a thread for its sender, which is started if there
    /// is none.
    ///
    /// # Errors
    /// A key that cannot be used, or a directory that cannot be written.
    pub(crate) fn keeping(
        &self,
        environment: Environment,
        acknowledgements: Acknowledgements,
        exit: &Exit<'_>,
        resource: &Resource,
        counters: &Arc<Counters>,
        thread: &mut Option<ExportThread>,
    ) -> Result<Keeping, TelemetryError> {
        let wanted = environment.is_wanted("OTEL_LOGS_EXPORTER");
        let spool = match self.spool(environment).filter(|_| wanted) {
            None => None,
            Some(settings) => {
                let thread = match thread {
                    Some(thread) => thread,
                    none => none.insert(ExportThread::start()?),
                };
                let counters = Arc::clone(counters);
                let (handle, deliver) = (thread.handle(), exit.deliver());
                let spool = Spool::open(&settings, resource, counters, handle, deliver);
                Some(spool.map_err(|error| TelemetryError::Setting {
                    name: "decision_spool".to_owned(),
                    expected: "a directory that can be written",
                    got: format!("{} ({error})", settings.directory.display()),
                })?)
            }
        };
        let hash_key = self.key(environment)?;
        Ok(Keeping { audit: self.audit, hash_key, spool, acknowledgements })
    }
}

/// Starts the writer of the pipeline's spool.
///
/// # Errors
/// When the system refuses another thread.
pub(crate) fn start_spool(pipeline: &Arc<Pipeline>) -> Result<(), TelemetryError> {
    let Some(spool) = pipeline.spool() else { return Ok(()) };
    // The pipeline owns the thread.
    let weak = Arc::downgrade(pipeline);
    spool.start(Box::new(move |record| {
        if let Some(pipeline) = weak.upgrade() {
            emit(&pipeline, record);
        }
    }))?;
    Ok(())
}
