//! Requests of metric points.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge,
    Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    Summary, SummaryDataPoint, exemplar, number_data_point,
};
use serde::de::MapAccess;

use super::{Message, Slot};

impl Message for ExportMetricsServiceRequest {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "resourceMetrics" => slot.list(&mut self.resource_metrics),
            _ => slot.skip(),
        }
    }
}

impl Message for ResourceMetrics {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "resource" => slot.message_into(&mut self.resource),
            "scopeMetrics" => slot.list(&mut self.scope_metrics),
            "schemaUrl" => slot.text(&mut self.schema_url),
            _ => slot.skip(),
        }
    }
}

impl Message for ScopeMetrics {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "scope" => slot.message_into(&mut self.scope),
            "metrics" => slot.list(&mut self.metrics),
            "schemaUrl" => slot.text(&mut self.schema_url),
            _ => slot.skip(),
        }
    }
}

impl Message for Metric {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "name" => slot.text(&mut self.name),
            "description" => slot.text(&mut self.description),
            "unit" => slot.text(&mut self.unit),
            "metadata" => slot.list(&mut self.metadata),
            "gauge" => {
                let data = slot.message()?.map(Data::Gauge);
                self.data = data.or(self.data.take());
                Ok(())
            }
            "sum" => {
                let data = slot.message()?.map(Data::Sum);
                self.data = data.or(self.data.take());
                Ok(())
            }
            "histogram" => {
                let data = slot.message()?.map(Data::Histogram);
                self.data = data.or(self.data.take());
                Ok(())
            }
            "exponentialHistogram" => {
                let data = slot.message()?.map(Data::ExponentialHistogram);
                self.data = data.or(self.data.take());
                Ok(())
            }
            "summary" => {
                let data = slot.message()?.map(Data::Summary);
                self.data = data.or(self.data.take());
                Ok(())
            }
            _ => slot.skip(),
        }
    }
}

impl Message for Gauge {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "dataPoints" => slot.list(&mut self.data_points),
            _ => slot.skip(),
        }
    }
}

impl Message for Sum {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "dataPoints" => slot.list(&mut self.data_points),
            "aggregationTemporality" => slot
                .enumeration(&mut self.aggregation_temporality, |name| {
                    AggregationTemporality::from_str_name(name).map(|value| value as i32)
                }),
            "isMonotonic" => slot.number(&mut self.is_monotonic),
            _ => slot.skip(),
        }
    }
}

impl Message for Histogram {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "dataPoints" => slot.list(&mut self.data_points),
            "aggregationTemporality" => slot
                .enumeration(&mut self.aggregation_temporality, |name| {
                    AggregationTemporality::from_str_name(name).map(|value| value as i32)
                }),
            _ => slot.skip(),
        }
    }
}

impl Message for ExponentialHistogram {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "dataPoints" => slot.list(&mut self.data_points),
            "aggregationTemporality" => slot
                .enumeration(&mut self.aggregation_temporality, |name| {
                    AggregationTemporality::from_str_name(name).map(|value| value as i32)
                }),
            _ => slot.skip(),
        }
    }
}

impl Message for Summary {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "dataPoints" => slot.list(&mut self.data_points),
            _ => slot.skip(),
        }
    }
}

impl Message for NumberDataPoint {
    const IS_ITEM: bool = true;

    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "attributes" => slot.list(&mut self.attributes),
            "startTimeUnixNano" => slot.number(&mut self.start_time_unix_nano),
            "timeUnixNano" => slot.number(&mut self.time_unix_nano),
            "exemplars" => slot.list(&mut self.exemplars),
            "flags" => slot.number(&mut self.flags),
            "asInt" => {
                let value = slot.optional_number()?.map(number_data_point::Value::AsInt);
                self.value = value.or(self.value);
                Ok(())
            }
            "asDouble" => {
                let value = slot.optional_number()?.map(number_data_point::Value::AsDouble);
                self.value = value.or(self.value);
                Ok(())
            }
            _ => slot.skip(),
        }
    }
}

impl Message for HistogramDataPoint {
    const IS_ITEM: bool = true;

    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "attributes" => slot.list(&mut self.attributes),
            "startTimeUnixNano" => slot.number(&mut self.start_time_unix_nano),
            "timeUnixNano" => slot.number(&mut self.time_unix_nano),
            "count" => slot.number(&mut self.count),
            "sum" => slot.optional_number_into(&mut self.sum),
            "bucketCounts" => slot.numbers(&mut self.bucket_counts),
            "explicitBounds" => slot.numbers(&mut self.explicit_bounds),
            "exemplars" => slot.list(&mut self.exemplars),
            "flags" => slot.number(&mut self.flags),
            "min" => slot.optional_number_into(&mut self.min),
            "max" => slot.optional_number_into(&mut self.max),
            _ => slot.skip(),
        }
    }
}

impl Message for ExponentialHistogramDataPoint {
    const IS_ITEM: bool = true;

    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "attributes" => slot.list(&mut self.attributes),
            "startTimeUnixNano" => slot.number(&mut self.start_time_unix_nano),
            "timeUnixNano" => slot.number(&mut self.time_unix_nano),
            "count" => slot.number(&mut self.count),
            "sum" => slot.optional_number_into(&mut self.sum),
            "scale" => slot.number(&mut self.scale),
            "zeroCount" => slot.number(&mut self.zero_count),
            "positive" => slot.message_into(&mut self.positive),
            "negative" => slot.message_into(&mut self.negative),
            "flags" => slot.number(&mut self.flags),
            "exemplars" => slot.list(&mut self.exemplars),
            "min" => slot.optional_number_into(&mut self.min),
            "max" => slot.optional_number_into(&mut self.max),
            "zeroThreshold" => slot.number(&mut self.zero_threshold),
            _ => slot.skip(),
        }
    }
}

impl Message for Buckets {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "offset" => slot.number(&mut self.offset),
            "bucketCounts" => slot.numbers(&mut self.bucket_counts),
            _ => slot.skip(),
        }
    }
}

impl Message for SummaryDataPoint {
    const IS_ITEM: bool = true;

    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "attributes" => slot.list(&mut self.attributes),
            "startTimeUnixNano" => slot.number(&mut self.start_time_unix_nano),
            "timeUnixNano" => slot.number(&mut self.time_unix_nano),
            "count" => slot.number(&mut self.count),
            "sum" => slot.number(&mut self.sum),
            "quantileValues" => slot.list(&mut self.quantile_values),
            "flags" => slot.number(&mut self.flags),
            _ => slot.skip(),
        }
    }
}

impl Message for ValueAtQuantile {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "quantile" => slot.number(&mut self.quantile),
            "value" => slot.number(&mut self.value),
            _ => slot.skip(),
        }
    }
}

impl Message for Exemplar {
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        slot: Slot<'_, '_, A>,
    ) -> Result<(), A::Error> {
        match name {
            "filteredAttributes" => slot.list(&mut self.filtered_attributes),
            "timeUnixNano" => slot.number(&mut self.time_unix_nano),
            "spanId" => slot.hex(&mut self.span_id),
            "traceId" => slot.hex(&mut self.trace_id),
            "asInt" => {
                let value = slot.optional_number()?.map(exemplar::Value::AsInt);
                self.value = value.or(self.value);
                Ok(())
            }
            "asDouble" => {
                let value = slot.optional_number()?.map(exemplar::Value::AsDouble);
                self.value = value.or(self.value);
                Ok(())
            }
            _ => slot.skip(),
        }
    }
}
