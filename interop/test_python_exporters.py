"""The official Python exporters send traces, logs and metrics; they are stored and shown."""

import logging
import secrets

import pytest
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def grpc(server):
    options = {"endpoint": server.otlp_grpc, "insecure": True}
    return GrpcSpans(**options), GrpcLogs(**options), GrpcMetrics(**options)


def http(server, compression):
    return tuple(
        kind(endpoint=f"{server.otlp_http}/v1/{signal}", compression=compression)
        for kind, signal in ((HttpSpans, "traces"), (HttpLogs, "logs"), (HttpMetrics, "metrics"))
    )


def json_http(server):
    from opentelemetry.exporter.otlp.json.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.json.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter

    return tuple(
        kind(endpoint=f"{server.otlp_http}/v1/{signal}")
        for kind, signal in (
            (OTLPSpanExporter, "traces"), (OTLPLogExporter, "logs"), (OTLPMetricExporter, "metrics"),
        )
    )


EXPORTERS = {
    "grpc": grpc,
    "http-protobuf": lambda server: http(server, Compression.NoCompression),
    "http-protobuf-gzip": lambda server: http(server, Compression.Gzip),
    "http-json": json_http,
}


@pytest.mark.parametrize("wire", EXPORTERS)
def test_traces_logs_and_metrics_arrive(server, wire):
    spans, logs, metrics = EXPORTERS[wire](server)
    service = f"py-{wire}-{secrets.token_hex(4)}"
    resource = Resource.create({"service.name": service})
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(spans))
    loggers = LoggerProvider(resource=resource)
    loggers.add_log_record_processor(SimpleLogRecordProcessor(logs))
    meters = MeterProvider(
        resource=resource, metric_readers=[PeriodicExportingMetricReader(metrics, 3_600_000)]
    )

    tracer = tracers.get_tracer("interop", "1.0")
    with tracer.start_as_current_span("checkout", attributes={"cart.items": 3, "vip": True}) as root:
        with tracer.start_as_current_span("charge card") as child:
            child.add_event("retrying", {"attempt": 2})
            child.record_exception(ValueError("card expired"))
            child.set_status(trace.StatusCode.ERROR, "declined")
            loggers.get_logger("interop").emit(
                LogRecord(
                    severity_number=SeverityNumber.WARN, severity_text="WARNING",
                    body=f"card declined for {service}", attributes={"card.last4": "4242"},
                )
            )
    counter = meters.get_meter("interop").create_counter("checkouts", unit="1")
    counter.add(7, {"service_under_test": service})
    meters.get_meter("interop").create_histogram("checkout.seconds", unit="s").record(0.25)
    for each in (tracers, loggers, meters):
        each.shutdown()

    trace_id = format(root.get_span_context().trace_id, "032x")
    seen = server.trace(trace_id)
    by_name = {span["name"]: span for span in seen["spans"]}
    assert set(by_name) == {"checkout", "charge card"}
    assert by_name["checkout"]["attributes"]["cart.items"] == 3
    assert by_name["checkout"]["attributes"]["vip"] is True
    assert by_name["charge card"]["parent_span_id"] == by_name["checkout"]["span_id"]
    assert by_name["charge card"]["status"] == {"code": "error", "message": "declined"}
    assert [event["name"] for event in by_name["charge card"]["events"]] == ["retrying", "exception"]
    assert by_name["checkout"]["resource"]["attributes"]["service.name"] == service

    [log] = server.get("/api/v1/logs", service=service)["items"]
    assert log["body"] == f"card declined for {service}"
    assert log["trace_id"] == trace_id
    assert log["attributes"]["card.last4"] == "4242"

    names = {metric["name"] for metric in server.get("/api/v1/metrics")["items"]}
    assert {"checkouts", "checkout.seconds"} <= names
    series = server.get("/api/v1/metrics/checkouts")["series"]
    mine = [one for one in series if one["attributes"].get("service_under_test") == service]
    assert mine and mine[0]["points"][-1]["value"] == 7, series
    logging.getLogger("interop").debug("seen %s", trace_id)
