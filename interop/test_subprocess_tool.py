"""R2.2 and R2.3: a Python child with the official OpenTelemetry package goes on with the same trace."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = Path(os.environ.get("THROUGHLINE_EXAMPLES", str(ROOT / "target" / "debug" / "examples")))

# How long the example may take, seconds.
LIMIT_SECONDS = 60


def test_a_python_child_goes_on_with_the_trace_of_its_environment(server):
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "OTEL_EXPORTER_OTLP_ENDPOINT": server.otlp_http,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        # What this process was started in is nobody's parent.
        "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    ran = subprocess.run(
        [str(EXAMPLES / "subprocess_tool"), str(ROOT / "interop" / "child_tool.py")],
        env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    trace_id = told["trace_id"]
    assert told["answer"] == {
        "words": 3, "trace_id": trace_id, "session_id": "s-1",
        "fields": {"user_timezone": "Europe/Vienna"},
    }
    spans = {span["name"]: span for span in server.trace(trace_id)["spans"]}
    child, tool = spans["count words"], spans["execute_tool count_v1"]
    assert child["parent_span_id"] == tool["span_id"]
    assert child["service"] == "subprocess-child", child
