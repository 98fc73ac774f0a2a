//! Requests of log records.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use serde::de::MapAccess;

use super::{Message, Slot};

impl Message for ExportLogsServiceRequest {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "resourceLogs" => slot.list(&mut self.resource_logs),
            _ => slot.skip(),
        }
    }
}

impl Message for ResourceLogs {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "resource" => slot.message_into(&mut self.resource),
            "scopeLogs" => slot.list(&mut self.scope_logs),
            "schemaUrl" => slot.text(&mut self.schema_url),
            _ => slot.skip(),
        }
    }
}

impl Message for ScopeLogs {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "scope" => slot.message_into(&mut self.scope),
            "logRecords" => slot.list(&mut self.log_records),
            "schemaUrl" => slot.text(&mut self.schema_url),
            _ => slot.skip(),
        }
    }
}

impl Message for LogRecord {
    const IS_ITEM: bool = true;

    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "timeUnixNano" => slot.number(&mut self.time_unix_nano),
            "observedTimeUnixNano" => slot.number(&mut self.observed_time_unix_nano),
            "severityNumber" => slot.enumeration(&mut self.severity_number, |name| {
                SeverityNumber::from_str_name(name).map(|value| value as i32)
            }),
            "severityText" => slot.text(&mut self.severity_text),
            "body" => slot.message_into(&mut self.body),
            "attributes" => slot.list(&mut self.attributes),
            "droppedAttributesCount" => slot.number(&mut self.dropped_attributes_count),
            "flags" => slot.number(&mut self.flags),
            "traceId" => slot.hex(&mut self.trace_id),
            "spanId" => slot.hex(&mut self.span_id),
            "eventName" => slot.text(&mut self.event_name),
            _ => slot.skip(),
        }
    }
}
