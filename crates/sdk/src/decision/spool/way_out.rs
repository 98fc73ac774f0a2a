//! How records of a spool leave: a way out for the records of one process, and what it says of those
//! that did not arrive.

use futures_util::future::BoxFuture;
use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, SdkLogRecord};

use crate::telemetry_otlp::Rejections;
use crate::tracer::SCOPE;

/// Why records did not arrive, by what helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Undelivered {
    /// The receiver is away or busy: time.
    Later(String),
    /// The receiver takes nothing of ours as things are, whatever it says: credentials or address are
    /// wrong, and somebody has to repair them.
    Denied(String),
    /// The receiver will never take what these records say.
    Refused(String),
    /// The receiver failed at it: it may be broken, or these records break it.
    Broken(String),
}

impl Undelivered {
    /// What went wrong, for people.
    pub(crate) fn problem(&self) -> &str {
        match self {
            Self::Later(problem)
            | Self::Denied(problem)
            | Self::Refused(problem)
            | Self::Broken(problem) => problem,
        }
    }
}

/// Where the records of one process go.
pub(crate) trait WayOut: Send + Sync {
    /// Sends records; they have arrived when it says so.
    fn send(&self, records: Vec<SdkLogRecord>) -> BoxFuture<'_, Result<(), Undelivered>>;
}

/// Makes the way out for the records of a process with this resource.
pub(crate) type Deliver = Box<dyn Fn(&Resource) -> Result<Box<dyn WayOut>, String> + Send>;

/// A log exporter as a way out, and what its errors mean.
pub(crate) struct Delivery<E, W> {
    pub(crate) exporter: E,
    pub(crate) rejections: Rejections,
    pub(crate) why: W,
}

impl<E, W> WayOut for Delivery<E, W>
where
    E: LogExporter,
    W: Fn(&OTelSdkError) -> Undelivered + Send + Sync,
{
    fn send(&self, records: Vec<SdkLogRecord>) -> BoxFuture<'_, Result<(), Undelivered>> {
        Box::pin(async move {
            let scope: &InstrumentationScope = &SCOPE;
            let batch: Vec<_> = records.iter().map(|record| (record, scope)).collect();
            let sent = self.exporter.export(LogBatch::new(&batch)).await;
            sent.map_err(|error| (self.why)(&error))?;
            // Which ones it says to nobody but a person. Who sends them again one by one finds them;
            // those that were taken are known by their ids.
            match self.rejections.take() {
                0 => Ok(()),
                rejected => Err(Undelivered::Refused(format!(
                    "the receiver rejected {rejected} of {} decisions",
                    records.len()
                ))),
            }
        })
    }
}
