//! Lays exemplars onto the data points of an export, where its bytes leave.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Exemplar as WireExemplar, Metric, exemplar, metric};
use prost::Message as _;

use crate::metrics::{Exemplar, Label, Measured, SeriesId, Taken};
use crate::tracer::SCOPE;

/// The body with exemplars on the points of our own metrics; `None` when it is none that can be read
/// (it goes as it is then).
pub(super) fn with_exemplars(body: &[u8], taken: &Taken) -> Option<Vec<u8>> {
    let mut request = ExportMetricsServiceRequest::decode(body).ok()?;
    let scopes = request.resource_metrics.iter_mut().flat_map(|group| &mut group.scope_metrics);
    for scope in scopes {
        if scope.scope.as_ref().is_some_and(|scope| scope.name == SCOPE.name()) {
            scope.metrics.iter_mut().for_each(|metric| lay_on(metric, taken));
        }
    }
    Some(request.encode_to_vec())
}

fn lay_on(metric: &mut Metric, taken: &Taken) {
    let name = metric.name.as_str();
    match &mut metric.data {
        Some(metric::Data::Sum(sum)) => {
            for point in &mut sum.data_points {
                point.exemplars.extend(exemplars_of(name, &point.attributes, taken));
            }
        }
        Some(metric::Data::Histogram(histogram)) => {
            for point in &mut histogram.data_points {
                point.exemplars.extend(exemplars_of(name, &point.attributes, taken));
            }
        }
        _ => {}
    }
}

fn exemplars_of<'t>(
    name: &str,
    attributes: &[KeyValue],
    taken: &'t Taken,
) -> impl Iterator<Item = WireExemplar> + use<'t> {
    let mut id = SeriesId::new(name);
    for entry in attributes {
        let value = entry.value.as_ref().and_then(|value| value.value.as_ref());
        id.add(&entry.key, label(value));
    }
    taken.get(&id).into_iter().flatten().flatten().map(wire)
}

fn label(value: Option<&any_value::Value>) -> Label<'_> {
    match value {
        Some(any_value::Value::StringValue(text)) => Label::Text(text),
        Some(any_value::Value::BoolValue(truth)) => Label::Truth(*truth),
        Some(any_value::Value::IntValue(number)) => Label::Whole(*number),
        Some(any_value::Value::DoubleValue(number)) => Label::Real(number.to_bits()),
        _ => Label::Other,
    }
}

fn wire(exemplar: &Exemplar) -> WireExemplar {
    let value = match exemplar.value {
        Measured::Whole(value) => exemplar::Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX)),
        Measured::Real(value) => exemplar::Value::AsDouble(value),
    };
    WireExemplar {
        // The point has all labels of its series.
        filtered_attributes: Vec::new(),
        time_unix_nano: exemplar.time_unix_nano,
        span_id: exemplar.span_id.to_bytes().to_vec(),
        trace_id: exemplar.trace_id.to_bytes().to_vec(),
        value: Some(value),
    }
}
