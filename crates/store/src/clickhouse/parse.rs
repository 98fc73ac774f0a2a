//! Rows that ClickHouse answers, back to what they were made of.

use std::sync::Arc;

use serde_json::Value as Json;
use throughline_trace::{
    Attributes, Event, Link, Resource, Scope, Span, SpanId, SpanKind, Status, StatusCode, TraceId,
    Value,
};

/// Columns that say where a row lies and not what it says.
const PLACE: [&str; 5] = ["day", "segment", "key", "version", "server"];

/// What a row of `spans` says, apart from where it lies: two servers that were sent the same span
/// have rows of which this is equal.
pub(super) fn content(mut row: Json) -> String {
    if let Some(fields) = row.as_object_mut() {
        PLACE.iter().for_each(|name| drop(fields.remove(*name)));
    }
    row.to_string()
}

/// The span of a row. What JSON cannot tell comes back as JSON tells it: bytes as `{"base64": …}`,
/// numbers that are not finite as text; what links and events say beside their attributes, name and
/// time (`tracestate`, flags, counts of what was dropped) is not in the table.
pub(super) fn span(row: &Json) -> Result<Span, String> {
    let trace_id = id::<TraceId>(row, "trace_id")?;
    let parent = match text(row, "parent_span_id") {
        "" => None,
        _ => Some(id::<SpanId>(row, "parent_span_id")?),
    };
    let mut span = Span::new(trace_id, id(row, "span_id")?, parent, text(row, "name"));
    text(row, "trace_state").clone_into(&mut span.trace_state);
    span.flags = count(row, "flags");
    span.kind = (0..=5)
        .map(SpanKind::from_i32)
        .find(|kind| kind.as_str() == text(row, "kind"))
        .unwrap_or_default();
    let code = (0..=2).map(StatusCode::from_i32).find(|code| code.as_str() == text(row, "status"));
    let message = text(row, "status_message").to_owned();
    span.status = Status { code: code.unwrap_or_default(), message };
    span.start_unix_nano = row["start_unix_nano"].as_u64().unwrap_or_default();
    span.end_unix_nano = row["end_unix_nano"].as_u64().unwrap_or_default();
    span.attributes = attributes(tree(row, "attributes")?);
    span.dropped_attributes_count = count(row, "dropped_attributes_count");
    span.events = list(tree(row, "events")?).map(event).collect();
    span.dropped_events_count = count(row, "dropped_events_count");
    span.links = list(tree(row, "links")?).map(link).collect::<Result<_, _>>()?;
    span.dropped_links_count = count(row, "dropped_links_count");
    let mut resource = tree(row, "resource")?;
    span.resource = Arc::new(Resource {
        attributes: attributes(resource["attributes"].take()),
        schema_url: text(&resource, "schema_url").to_owned(),
    });
    span.scope = Arc::new(scope(tree(row, "scope")?));
    Ok(span)
}

/// What the column `scope` tells.
pub(super) fn scope(mut json: Json) -> Scope {
    Scope {
        name: text(&json, "name").to_owned(),
        version: text(&json, "version").to_owned(),
        attributes: attributes(json["attributes"].take()),
        schema_url: text(&json, "schema_url").to_owned(),
    }
}

pub(super) fn text<'a>(row: &'a Json, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_default()
}

pub(super) fn count(row: &Json, name: &str) -> u32 {
    row[name].as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}

pub(super) fn id<T: std::str::FromStr>(row: &Json, name: &str) -> Result<T, String> {
    text(row, name).parse().map_err(|_| {
        format!("expected an id in the column {name} of ClickHouse, got {:?}", text(row, name))
    })
}

/// The JSON that a column holds as text.
pub(super) fn tree(row: &Json, name: &str) -> Result<Json, String> {
    serde_json::from_str(text(row, name))
        .map_err(|error| format!("expected JSON in the column {name} of ClickHouse: {error}"))
}

fn list(json: Json) -> impl Iterator<Item = Json> {
    match json {
        Json::Array(items) => items,
        _ => Vec::new(),
    }
    .into_iter()
}

pub(super) fn attributes(json: Json) -> Attributes {
    match json {
        Json::Object(fields) => {
            fields.into_iter().map(|(key, value)| (key, Value::from_json(value))).collect()
        }
        _ => Attributes::new(),
    }
}

fn event(mut json: Json) -> Event {
    Event {
        time_unix_nano: json["time_unix_nano"].as_u64().unwrap_or_default(),
        name: text(&json, "name").to_owned(),
        attributes: attributes(json["attributes"].take()),
        dropped_attributes_count: 0,
    }
}

fn link(mut json: Json) -> Result<Link, String> {
    Ok(Link {
        trace_id: id(&json, "trace_id")?,
        span_id: id(&json, "span_id")?,
        trace_state: String::new(),
        flags: 0,
        attributes: attributes(json["attributes"].take()),
        dropped_attributes_count: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::rows;
    use crate::layout::{Day, SegmentId};

    #[test]
    fn a_span_comes_back_and_its_place_is_no_part_of_it() {
        let mut span = Span::new(
            TraceId::from_u128(7),
            SpanId::from_u64(3),
            Some(SpanId::from_u64(2)),
            "chat \"ü\"",
        );
        span.kind = SpanKind::Client;
        span.status = Status { code: StatusCode::Error, message: "no".to_owned() };
        (span.start_unix_nano, span.end_unix_nano) = (u64::MAX - 9, u64::MAX - 1);
        let values = Value::Array(vec![Value::Int(1), Value::Double(1.5), Value::Bool(true)]);
        span.attributes = [("a.b", values.clone())].into_iter().collect();
        let of_event = [("x", Value::Double(2.0))].into_iter().collect();
        span.events.push(Event {
            time_unix_nano: 5,
            name: "seen".to_owned(),
            attributes: of_event,
            dropped_attributes_count: 0,
        });
        span.links.push(Link {
            trace_id: TraceId::from_u128(8),
            span_id: SpanId::from_u64(9),
            trace_state: String::new(),
            flags: 0,
            attributes: Attributes::new(),
            dropped_attributes_count: 0,
        });
        let resource = [("service.name", Value::String("billing".to_owned()))];
        span.resource = Arc::new(Resource {
            attributes: resource.into_iter().collect(),
            schema_url: "https://one".to_owned(),
        });
        let first = SegmentId::first(Day(20_779));
        let one = rows::span(first, 1, &span);
        let other = rows::span(first.next(), 9, &span);
        assert_eq!(super::span(&one).unwrap(), span);
        assert_ne!(one, other);
        assert_eq!(content(one.clone()), content(other));
        let mut odd = one;
        odd["events"] = Json::from("[");
        assert!(super::span(&odd).unwrap_err().contains("column events"));
    }
}
