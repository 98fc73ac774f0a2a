//! Log records, and those among them that are decisions.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1 as otlp;
use throughline_trace::{LogRecord, Resource, Scope, Severity, SpanId, TraceId, keys};

use super::{Converter, decisions};
use crate::report::{Problem, quote};

/// Where exporters put the event name before log records had a field for it.
const EVENT_NAME_ATTRIBUTE: &str = "event.name";

impl Converter<'_> {
    /// Takes in the log records and decisions of a request.
    pub(crate) fn logs(&mut self, request: ExportLogsServiceRequest) {
        for group in request.resource_logs {
            let resource = self.resource_message(group.resource, group.schema_url);
            for group in group.scope_logs {
                let scope = self.scope_message(group.scope, group.schema_url);
                for record in group.log_records {
                    self.begin_item();
                    let record = self.log_record(record, &resource, &scope);
                    self.log_or_decision(record);
                }
            }
        }
    }

    fn log_or_decision(&mut self, mut record: LogRecord) {
        let (mut decision, mut no_decision) = (None, None);
        if record.event_name == keys::DECISION_EVENT {
            match decisions::Draft::read(&record, self.limits.max_attributes) {
                Ok(draft) => decision = Some(draft),
                Err(reason) => {
                    self.mend(Problem::Decision);
                    no_decision = Some(reason);
                }
            }
        }
        if let Some(draft) = decision {
            if draft.has_unreadable_fields() {
                self.mend(Problem::DecisionField);
            }
            if draft.has_left_out() {
                self.mend(Problem::ManyAttributes);
            }
            // Sent once for all records of the resource, kept with each decision.
            let instance = record.resource.attributes.str(keys::SERVICE_INSTANCE_ID);
            let copied = record.resource.service().len() + instance.map_or(0, str::len);
            if self.allowance.charge(copied).is_err() {
                return;
            }
            let mut decision = draft.finish(record, self.batch.received_unix_nano);
            self.notes.mark(&mut decision.attributes);
            let id = decision.decision_id;
            if !self.fits(&decision, || format!("decision {id}")) {
                return;
            }
            if !self.notes.is_empty() {
                self.report.mended(&self.notes, || format!("decision {id}"));
            }
            self.batch.decisions.push(decision);
            return;
        }
        self.notes.mark(&mut record.attributes);
        let of_service = || format!("log record of {}", quote(record.resource.service()));
        if !self.fits(&record, of_service) {
            return;
        }
        if !self.notes.is_empty() {
            let service = quote(record.resource.service());
            self.report.mended(&self.notes, || match no_decision {
                Some(reason) => {
                    format!("{} of {service} kept as a log record, {reason}", keys::DECISION_EVENT)
                }
                None => format!("log record of {service}"),
            });
        }
        self.batch.logs.push(record);
    }

    fn log_record(
        &mut self,
        record: otlp::LogRecord,
        resource: &Arc<Resource>,
        scope: &Arc<Scope>,
    ) -> LogRecord {
        let (time_unix_nano, observed_unix_nano) =
            self.log_times(record.time_unix_nano, record.observed_time_unix_nano);
        let trace_id = self.optional_trace_id(&record.trace_id);
        let span_id = self.optional_span_id(&record.span_id);
        let body = self.value(record.body);
        let body = self.within_limit("body", body);
        let (mut attributes, beyond) = self.attributes(record.attributes);
        let mut event_name = self.name(record.event_name);
        if event_name.is_empty()
            && let Some(name) = attributes.str(EVENT_NAME_ATTRIBUTE)
        {
            event_name = name.to_owned();
            attributes.remove(EVENT_NAME_ATTRIBUTE);
        }
        LogRecord {
            time_unix_nano,
            observed_unix_nano,
            trace_id,
            span_id,
            severity: Severity::from_i32(record.severity_number),
            severity_text: self.name(record.severity_text),
            event_name,
            body,
            attributes,
            dropped_attributes_count: record.dropped_attributes_count.saturating_add(beyond),
            resource: Arc::clone(resource),
            scope: Arc::clone(scope),
        }
    }

    /// A record need not say when it happened, or when it was seen; one that says neither is noted.
    fn log_times(&mut self, time: u64, observed: u64) -> (u64, u64) {
        let received = self.batch.received_unix_nano;
        if time == 0 && observed == 0 {
            self.mend(Problem::NoTime);
            return (received, received);
        }
        let observed = if observed == 0 { received } else { observed };
        let time = if time == 0 { observed } else { time };
        self.check_time(time);
        (time, observed)
    }

    fn optional_trace_id(&mut self, id: &[u8]) -> Option<TraceId> {
        if !id.is_empty() && id.len() != TraceId::BYTES {
            self.mend_id(Problem::TraceId, id);
        }
        TraceId::from_slice(id).ok()
    }

    fn optional_span_id(&mut self, id: &[u8]) -> Option<SpanId> {
        if !id.is_empty() && id.len() != SpanId::BYTES {
            self.mend_id(Problem::SpanId, id);
        }
        SpanId::from_slice(id).ok()
    }
}
