"""The official JavaScript exporters (gRPC, HTTP/protobuf, HTTP/JSON) do the same."""

import json
import secrets
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("wire", ["grpc", "proto", "http"])
def test_traces_logs_and_metrics_arrive(server, wire):
    service = f"js-{wire}-{secrets.token_hex(4)}"
    endpoint = server.otlp_grpc if wire == "grpc" else server.otlp_http
    done = subprocess.run(
        ["node", "send.js", wire, endpoint, service],
        cwd=HERE, capture_output=True, text=True, timeout=60, check=False,
    )
    assert done.returncode == 0, done.stderr
    trace_id = json.loads(done.stdout)["traceId"]

    seen = server.trace(trace_id)
    by_name = {span["name"]: span for span in seen["spans"]}
    assert set(by_name) == {"GET /cart", "load cart"}
    assert by_name["load cart"]["parent_span_id"] == by_name["GET /cart"]["span_id"]
    assert by_name["load cart"]["attributes"]["items"] == ["apple", "pear"]
    assert by_name["GET /cart"]["kind"] == "server"

    [log] = server.get("/api/v1/logs", service=service)["items"]
    assert log["body"] == "cart loaded" and log["trace_id"] == trace_id
    series = server.get("/api/v1/metrics/carts")["series"]
    mine = [one for one in series if one["attributes"].get("test") == service]
    assert mine and mine[0]["points"][-1]["value"] == 2, series
