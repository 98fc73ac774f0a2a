"""Decisions, log records, metric points and rollups in ClickHouse: row by row what the store has, erased where it
is erased, and rollups that add up to what the store's charts say."""

import json
import re
import subprocess
import time
import uuid

import requests

from clickhouse_engine import engine, start, store  # noqa: F401
from conftest import BINARY, ROOT, until

RESOURCE = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}


def post(server, path, body):
    reply = requests.post(f"{server.otlp_http}{path}", json=body, timeout=10)
    assert reply.status_code == 200, reply.text


def send_logs(server, count):
    """Log records with whatever a body and attributes can be."""
    now = time.time_ns()
    bodies = [{"stringValue": "Grüße \"quoted\" \\ back\nline"}, {"intValue": "-7"}, {"doubleValue": 0.1},
              {"kvlistValue": {"values": [{"key": "a", "value": {"boolValue": True}}]}}]
    records = [{
        "timeUnixNano": str(now + number), "observedTimeUnixNano": str(now), "severityNumber": 1 + number % 24,
        "severityText": "odd", "body": bodies[number % 4], "eventName": "seen",
        "traceId": f"{number + 1:032x}" if number % 2 else "", "spanId": f"{number + 1:016x}" if number % 2 else "",
        "attributes": [{"key": "n", "value": {"intValue": str(number)}}],
    } for number in range(count)]
    post(server, "/v1/logs", {"resourceLogs": [{"resource": RESOURCE, "scopeLogs": [
        {"scope": {"name": "library"}, "logRecords": records}]}]})


def send_points(server, count, age_ns=0):
    """Points of every kind of metric; all of one time each."""
    now = time.time_ns() - age_ns

    def points(**value):
        return [{"timeUnixNano": str(now + number), "startTimeUnixNano": str(now - 5), **value,
                 "attributes": [{"key": "n", "value": {"intValue": str(number % 3)}}]} for number in range(count)]
    buckets = {"count": "3", "sum": 0.30000000000000004, "min": 0.1, "max": 5, "explicitBounds": [0.1, 1, 1e300],
               "bucketCounts": ["1", "0", "2", "0"]}
    quantiles = {"count": "9", "sum": 4.5, "quantileValues": [{"quantile": 0.5, "value": 1.7976931348623157e308}]}
    metrics = [
        {"name": "level", "unit": "1", "gauge": {"dataPoints": points(asDouble=5.0)}},
        {"name": "calls", "sum": {"isMonotonic": True, "aggregationTemporality": 2,
                                  "dataPoints": points(asInt="9007199254740993")}},
        {"name": "time", "unit": "s", "histogram": {"aggregationTemporality": 1, "dataPoints": points(**buckets)}},
        {"name": "old", "summary": {"dataPoints": points(**quantiles)}},
    ]
    post(server, "/v1/metrics", {"resourceMetrics": [{"resource": RESOURCE, "scopeMetrics": [
        {"scope": {"name": "library"}, "metrics": metrics}]}]})
    return 4 * count


def decide(server, count, session):
    """Decisions, with and without a trace; their ids."""
    ids = [str(uuid.uuid4()) for _ in range(count)]
    decisions = [{
        "decision_id": one, "timestamp_ns": str(time.time_ns()), "stage": "plan", "session_id": session,
        "agent_id": "fraud", "trace_id": f"{number + 1:032x}", "span_id": f"{number + 1:016x}",
        "decision": {"action": "approve", "reason": "it's \"fine\"", "confidence": 0.1 + number / 1000},
    } for number, one in enumerate(ids)]
    reply = requests.post(server.url("/api/v1/decisions"), json=decisions, timeout=10)
    assert reply.status_code == 200, reply.text
    return ids


def send_spans(server, count, failing=3):
    """Requests of all kinds of durations that end now."""
    now = time.time_ns()
    spans = [{
        "traceId": f"{uuid.uuid4().int:032x}", "spanId": f"{number + 1:016x}", "name": "request", "kind": 2,
        "startTimeUnixNano": str(now - 1_000_000 * (1 + number * number)), "endTimeUnixNano": str(now),
        "status": {"code": 2} if number % failing == 0 else {},
        "attributes": [{"key": "gen_ai.agent.name", "value": {"stringValue": f"agent {number % 2}"}}],
    } for number in range(count)]
    post(server, "/v1/traces", {"resourceSpans": [{"resource": RESOURCE, "scopeSpans": [
        {"scope": {"name": "library"}, "spans": spans}]}]})


def write_config(path, engine, database="default", more=""):
    path.write_text(
        f"store:\n  clickhouse:\n    url: http://127.0.0.1:{engine.port}\n    database: {database}\n"
        f"    flush_interval: 100ms\n    batch_rows: 40\n{more}", encoding="utf-8")
    return path


def metric(server, name):
    """The value on `/metrics`; 0 when it is not there."""
    text = requests.get(server.url("/metrics"), timeout=10).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_records_are_there_row_by_row_and_erased_where_they_are_erased(tmp_path, engine):  # noqa: F811
    config, data_dir = write_config(tmp_path / "throughline.yaml", engine), tmp_path / "data"

    def found():
        code, told, _ = store(config, data_dir, "check", "--json")
        if not told:
            return code, None  # without tables there is nothing to tell
        # Log records and points are in no cell, and there are no spans.
        assert told[0].pop("rollups") >= 0 and told[0].pop("rollup_operations") == 0
        return code, told[0]

    server = start(config, tmp_path)
    send_logs(server, 100)
    points = send_points(server, 30)
    kept, gone = decide(server, 50, "kept"), decide(server, 7, "gone")
    until("all of it", lambda: found() == (0, {
        "segments": 1, "spans": 0, "logs": 100, "metric_points": points, "decisions": 57, "missing": 0,
        "differing": 0, "extra": 0, "is_good": True}))

    # Points of yesterday, which lie before all others of their series, and a kill in between.
    points += send_points(server, 10, age_ns=86_400 * 10**9)
    server.process.kill()
    server.process.wait()
    server = start(config, tmp_path)
    until("late points", lambda: found()[0] == 0 and found()[1]["metric_points"] == points)
    assert engine.ask("SELECT integer FROM metric_points FINAL WHERE name = 'calls' LIMIT 1") == "9007199254740993"
    assert engine.ask("SELECT count() FROM decisions FINAL") == "57"

    # What is erased here is removed there, from the disk too.
    done = subprocess.run(
        [BINARY, "--config", str(config), "--data-dir", str(data_dir), "audit", "erase", "--session", "gone",
         "--reason", "request"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    until("the erasure", lambda: engine.ask("SELECT count() FROM decisions WHERE session = 'gone'") == "0")
    assert {row.strip('"') for row in engine.ask("SELECT decision_id FROM decisions FINAL").split("\n")} == set(kept)
    assert found()[0] == 0 and set(gone).isdisjoint(kept)
    assert metric(server, "throughline_clickhouse_erased_decisions_total") == 7

    # A row that is not what was stored is found.
    engine.ask("INSERT INTO logs SELECT * REPLACE ('forged' AS body, version + 1 AS version) FROM logs FINAL "
               "WHERE key = 5")
    code, told = found()
    assert code == 6 and told["differing"] == 1
    server.stop()


def documented_sql():
    """The statement about percentiles that the documentation shows."""
    text = (ROOT / "docs" / "clickhouse.md").read_text(encoding="utf-8")
    [found] = [block for block in re.findall(r"```sql\n(.*?)```", text, re.DOTALL) if "sumMap(durations)" in block]
    return found.strip().rstrip(";")


def close(one, other):
    return one == other or abs(one - other) <= 1e-9 * abs(other)


def test_rollups_add_up_to_what_the_charts_say(tmp_path, engine):  # noqa: F811
    config = write_config(tmp_path / "throughline.yaml", engine, more="sampling: { rate: 0.0 }\n")
    server = start(config, tmp_path)
    send_spans(server, 40)
    decide(server, 9, "s")

    until("the tables", lambda: engine.ask("EXISTS rollups") == "1")

    def totals():
        return engine.ask(
            "SELECT sum(spans), sum(decisions) FROM rollups FINAL WHERE cuboid = 'all' AND resolution = 3600")
    until("the rollups", lambda: totals() == "40,9")
    # Cells that change are whole again, and not added.
    send_spans(server, 25)
    until("more rollups", lambda: totals() == "65,9")

    # Cell by cell they are what the store has; of one that is not it is told in what it differs.
    def checked():
        code, told, error = store(config, tmp_path / "data", "check", "--json")
        return code, told[0]["rollups"] if told else 0, error
    until("the cells", lambda: checked()[0] == 0 and checked()[1] > 0)
    engine.ask("INSERT INTO rollups SELECT * REPLACE (spans + 5 AS spans, version + 1 AS version) FROM rollups FINAL "
               "WHERE cuboid = 'agent' AND resolution = 3600 LIMIT 1")
    code, _, error = checked()
    assert code == 6 and "cuboid=agent" in error and re.search(r"spans is \d+ here, \d+ there", error)
    engine.ask("INSERT INTO rollups SELECT * REPLACE (spans - 5 AS spans, version + 2 AS version) FROM rollups FINAL "
               "WHERE cuboid = 'agent' AND resolution = 3600 AND spans = (SELECT max(spans) FROM rollups FINAL "
               "WHERE cuboid = 'agent' AND resolution = 3600) LIMIT 1")

    ours = server.get("/api/v1/series", measure="count,errors,p50,p95,p99", operation="root", step="60s", since="2h")
    expected = [[point["values"][name] for name in ("count", "errors", "p50", "p95", "p99")]
                for point in ours["groups"][0]["points"]]
    rows = [json.loads(row) for row in engine.ask(documented_sql() + " FORMAT JSONEachRow").split("\n") if row]
    told = [[row[name] for name in ("operations", "errors", "p50", "p95", "p99")] for row in rows]
    assert len(told) == len(expected) > 0
    for mine, theirs in zip(expected, told):
        assert all(close(float(a), float(b)) for a, b in zip(mine, theirs)), (mine, theirs)
    server.stop()
