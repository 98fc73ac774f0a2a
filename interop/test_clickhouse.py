"""The mirror in ClickHouse, against ClickHouse's own engine: what is stored is there, exactly once at read, also
after either side was killed."""

import os
import uuid

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from clickhouse_engine import engine, start, store, store_text  # noqa: F401
from conftest import until

def send(server, traces, spans_each=5):
    """Traces with children, acknowledged one by one; their number of spans."""
    resource = Resource.create({"service.name": "mirror"})
    provider = TracerProvider(resource=resource)
    exporter = OTLPSpanExporter(endpoint=f"{server.otlp_http}/v1/traces", timeout=10)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("interop", "1.0")
    for number in range(traces):
        with tracer.start_as_current_span(f"request {number}") as root:
            root.set_attribute("text", "Grüße \"quoted\" \\ back\nline \u0001")
            root.set_attribute("numbers", [1, 2, 3])
            for child in range(spans_each - 1):
                with tracer.start_as_current_span("child") as span:
                    span.set_attribute("number", child)
                    span.set_attribute("ratio", 0.1 * child)
                    span.add_event("seen", {"id": str(uuid.uuid4())})
    provider.shutdown()
    return traces * spans_each


def test_what_is_stored_is_in_clickhouse_once_whoever_is_killed(tmp_path, engine):
    config = tmp_path / "throughline.yaml"
    config.write_text(
        f"store:\n  clickhouse:\n    url: http://127.0.0.1:{engine.port}\n"
        "    flush_interval: 100ms\n    batch_rows: 40\n    ttl_days: 3650\n", encoding="utf-8")
    data_dir = tmp_path / "data"

    def is_whole(spans):
        code, [found], _ = store(config, data_dir, "check", "--json")
        return code == 0 and found["spans"] == spans

    server = start(config, tmp_path)
    sent = send(server, 30)
    until("the first spans", lambda: is_whole(sent))

    # The engine dies, and comes back with what it had; ingest goes on meanwhile.
    engine.kill()
    sent += send(server, 30)
    code, _, error = store(config, data_dir, "check")
    assert code == 1 and "127.0.0.1" in error
    engine.start()
    until("the spans of the outage", lambda: is_whole(sent))

    # Throughline dies in the middle of sending.
    sent += send(server, 30)
    server.process.kill()
    server.process.wait()
    server = start(config, tmp_path)
    until("the spans of before the kill", lambda: is_whole(sent))

    # Without its position everything is sent again, and read once all the same.
    server.process.kill()
    server.process.wait()
    for name in ("clickhouse.db", "clickhouse.db-wal", "clickhouse.db-shm"):
        if os.path.exists(data_dir / name):
            os.remove(data_dir / name)
    # Nobody can tell such a directory from another server's: it is said that it has the name.
    code, said, _ = store_text(config, data_dir, "take-over")
    assert code == 0 and "belongs to this data directory" in said
    server = start(config, tmp_path)
    until("everything again", lambda: "throughline_clickhouse_rows_total " + str(sent)
          in requests.get(server.url("/metrics"), timeout=10).text)
    # Rollups follow the spans, and the mirror them: the check compares what there is on both sides.
    rolled_up = "SELECT sum(spans) FROM rollups FINAL WHERE resolution = 3600 AND cuboid = 'all'"
    until("the rollups of every span", lambda: engine.ask(rolled_up) == str(sent))
    assert is_whole(sent)
    assert engine.ask("SELECT count() FROM spans FINAL") == str(sent)
    assert engine.ask("SELECT max(version) FROM schema_migrations") == "4"

    # Lists and traces come out of ClickHouse as they come out of the store.
    _, listed, _ = store(config, data_dir, "traces", "--limit", "1000")
    ours = server.get("/api/v1/traces", limit=500)["items"]
    assert [one["trace_id"] for one in listed] == [one["trace_id"] for one in ours]
    assert {one["span_count"] for one in listed} == {5}
    code, rows, _ = store(config, data_dir, "trace", listed[0]["trace_id"])
    assert code == 0 and len(rows) == 5

    # A row that is not what was stored is found.
    engine.ask(f"INSERT INTO spans SELECT * REPLACE ('forged' AS name, version + 1 AS version) FROM spans "
               f"FINAL WHERE span_id = '{rows[0]['span_id']}'")
    code, [found], error = store(config, data_dir, "check", "--json")
    assert code == 6 and found["differing"] == 1 and rows[0]["span_id"] in error, error
    server.stop()
