//! How large an item is, about as it is stored: so that one that no store could take is rejected
//! alone, and not its whole request again and again.

use throughline_trace::{
    Attributes, Decision, LogRecord, MetricPoint, MetricValue, Resource, Scope, Span, Value,
};

/// Bytes for what has no content of its own: ids, times, numbers, lengths, an empty value. More
/// than an encoding needs, so that many small parts count too.
const PART_BYTES: usize = 8;

/// An item with a size, bytes of content; what it shares with others (resource, scope) left out.
pub(super) trait Content {
    fn bytes(&self) -> usize;
}

impl Content for Span {
    fn bytes(&self) -> usize {
        let events = self
            .events
            .iter()
            .map(|event| 2 * PART_BYTES + event.name.len() + attributes(&event.attributes));
        let links = self
            .links
            .iter()
            .map(|link| 4 * PART_BYTES + link.trace_state.len() + attributes(&link.attributes));
        let texts = self.trace_state.len() + self.name.len() + self.status.message.len();
        texts + attributes(&self.attributes) + events.sum::<usize>() + links.sum::<usize>()
    }
}

impl Content for LogRecord {
    fn bytes(&self) -> usize {
        let texts = self.severity_text.len() + self.event_name.len();
        texts + value(&self.body) + attributes(&self.attributes)
    }
}

impl Content for Decision {
    fn bytes(&self) -> usize {
        let texts = [
            &self.stage,
            &self.input_hash,
            &self.model_version,
            &self.action,
            &self.reason,
            &self.agent_id,
            &self.session_id,
            &self.instance_id,
            &self.service,
        ];
        texts.iter().map(|text| text.len()).sum::<usize>() + attributes(&self.attributes)
    }
}

impl Content for MetricPoint {
    fn bytes(&self) -> usize {
        let parts = match &self.value {
            MetricValue::None | MetricValue::Int(_) | MetricValue::Double(_) => 1,
            MetricValue::Histogram(histogram) => {
                4 + histogram.bounds.len() + histogram.bucket_counts.len()
            }
            MetricValue::Summary { quantiles, .. } => 2 + 2 * quantiles.len(),
        };
        let texts = self.name.len() + self.description.len() + self.unit.len();
        texts + parts * PART_BYTES + attributes(&self.attributes)
    }
}

impl Content for Resource {
    fn bytes(&self) -> usize {
        self.schema_url.len() + attributes(&self.attributes)
    }
}

impl Content for Scope {
    fn bytes(&self) -> usize {
        let texts = self.name.len() + self.version.len() + self.schema_url.len();
        texts + attributes(&self.attributes)
    }
}

fn attributes(attributes: &Attributes) -> usize {
    entries(attributes.iter())
}

fn entries<'a>(entries: impl Iterator<Item = (&'a str, &'a Value)>) -> usize {
    entries.map(|(key, inner)| PART_BYTES + key.len() + value(inner)).sum()
}

/// As [`Value::size_bytes`], with something for every value: a list of nothings is not nothing.
fn value(of: &Value) -> usize {
    match of {
        Value::Array(items) => items.iter().map(|item| PART_BYTES + value(item)).sum(),
        Value::Map(map) => entries(map.iter().map(|(key, inner)| (key.as_str(), inner))),
        other => other.size_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts() {
        let mut resource = Resource::default();
        assert_eq!(resource.bytes(), 0);
        resource.attributes.set("key", Value::Array(vec![Value::Empty; 100]));
        assert_eq!(resource.bytes(), PART_BYTES + 3 + 100 * PART_BYTES);
    }
}
