//! Requests of spans.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status, span, status,
};
use serde::de::MapAccess;

use super::{Message, Slot};

impl Message for ExportTraceServiceRequest {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "resourceSpans" => slot.list(&mut self.resource_spans),
            _ => slot.skip(),
        }
    }
}

impl Message for ResourceSpans {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "resource" => slot.message_into(&mut self.resource),
            "scopeSpans" => slot.list(&mut self.scope_spans),
            "schemaUrl" => slot.text(&mut self.schema_url),
            _ => slot.skip(),
        }
    }
}

impl Message for ScopeSpans {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "scope" => slot.message_into(&mut self.scope),
            "spans" => slot.list(&mut self.spans),
            "schemaUrl" => slot.text(&mut self.schema_url),
            _ => slot.skip(),
        }
    }
}

impl Message for Span {
    const IS_ITEM: bool = true;

    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "traceId" => slot.hex(&mut self.trace_id),
            "spanId" => slot.hex(&mut self.span_id),
            "traceState" => slot.text(&mut self.trace_state),
            "parentSpanId" => slot.hex(&mut self.parent_span_id),
            "flags" => slot.number(&mut self.flags),
            "name" => slot.text(&mut self.name),
            "kind" => slot.enumeration(&mut self.kind, |name| {
                span::SpanKind::from_str_name(name).map(|value| value as i32)
            }),
            "startTimeUnixNano" => slot.number(&mut self.start_time_unix_nano),
            "endTimeUnixNano" => slot.number(&mut self.end_time_unix_nano),
            "attributes" => slot.list(&mut self.attributes),
            "droppedAttributesCount" => slot.number(&mut self.dropped_attributes_count),
            "events" => slot.list(&mut self.events),
            "droppedEventsCount" => slot.number(&mut self.dropped_events_count),
            "links" => slot.list(&mut self.links),
            "droppedLinksCount" => slot.number(&mut self.dropped_links_count),
            "status" => slot.message_into(&mut self.status),
            _ => slot.skip(),
        }
    }
}

impl Message for span::Event {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "timeUnixNano" => slot.number(&mut self.time_unix_nano),
            "name" => slot.text(&mut self.name),
            "attributes" => slot.list(&mut self.attributes),
            "droppedAttributesCount" => slot.number(&mut self.dropped_attributes_count),
            _ => slot.skip(),
        }
    }
}

impl Message for span::Link {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "traceId" => slot.hex(&mut self.trace_id),
            "spanId" => slot.hex(&mut self.span_id),
            "traceState" => slot.text(&mut self.trace_state),
            "attributes" => slot.list(&mut self.attributes),
            "droppedAttributesCount" => slot.number(&mut self.dropped_attributes_count),
            "flags" => slot.number(&mut self.flags),
            _ => slot.skip(),
        }
    }
}

impl Message for Status {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "message" => slot.text(&mut self.message),
            "code" => slot.enumeration(&mut self.code, |name| {
                status::StatusCode::from_str_name(name).map(|value| value as i32)
            }),
            _ => slot.skip(),
        }
    }
}
