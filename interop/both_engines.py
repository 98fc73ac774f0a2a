"""Two servers for suites that ask both engines the same: one answers from its embedded store, the other has nothing of
its own and answers from ClickHouse."""

import time
import uuid

import pytest
import requests

from clickhouse_engine import ClickHouse, start
from conftest import until
from test_clickhouse_reads import config_of, listed, send
from test_clickhouse_records import post, send_logs, send_points

TRACES = 60
NUMBERS = range(TRACES)
# Traces of the newest requests have no decision.
DECISIONS = 20
# Those whose fallback was triggered have one that the server derived.
DERIVED = len(range(0, TRACES, 7))
LOGS = 100
# Agents beyond what one page of a list holds.
MANY_AGENTS = 130


def pages(server, path, limit, **asked):
    """All pages of a list."""
    found, cursor = [], None
    while True:
        page = server.get(path, limit=limit, **asked, **({"cursor": cursor} if cursor else {}))
        assert len(page["items"]) <= limit
        found.append(page["items"])
        cursor = page.get("next")
        if not cursor:
            return found


def decide(server):
    """A decision about each of the first traces; ids by number."""
    traces = {one["name"]: one["trace_id"] for one in listed(server)}
    begin = time.time_ns()
    decisions = [{
        "decision_id": str(uuid.uuid4()), "timestamp_ns": str(begin + number), "stage": "plan" if number % 2 else "act",
        "agent_id": "fraud" if number % 3 == 0 else "triage", "session_id": f"s-{number % 5}",
        "trace_id": traces[f"request {number}"], "span_id": f"{number + 1:016x}", "instance_id": "i", "seq": number + 1,
        "decision": {"action": "approve" if number % 4 else "DENY", "reason": f"it's \"Grüße\" \\\\ number {number}",
                     **({"confidence": number / 20} if number % 5 else {})},
        "attributes": {"n": number, "nested": {"list": [1, 2.5, "x"]}},
    } for number in range(DECISIONS)]
    reply = requests.post(server.url("/api/v1/decisions"), json=decisions, timeout=10)
    assert reply.status_code == 200, reply.text


def send_agents(server):
    """Roots of many agents, of each as many as its number says."""
    now = time.time_ns()
    spans = [{
        "traceId": f"{uuid.uuid4().int:032x}", "spanId": f"{uuid.uuid4().int % 2**63 + 1:016x}", "name": "run", "kind": 1,
        "startTimeUnixNano": str(now - 3 * 86_400 * 10**9 - 1_000_000 * (1 + number)),
        "endTimeUnixNano": str(now - 3 * 86_400 * 10**9),
        "attributes": [{"key": "gen_ai.agent.name", "value": {"stringValue": f"many {number:03}"}},
                       {"key": "gen_ai.operation.name", "value": {"stringValue": "invoke_agent"}}],
    } for number in range(MANY_AGENTS) for _ in range(1 + number % 3)]
    post(server, "/v1/traces", {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": spans}]}]})
    return len(spans)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The two servers, by engine, and the engine itself."""
    directory = tmp_path_factory.mktemp("both")
    engine = ClickHouse(directory / "engine")
    places = {name: directory / name for name in ("writes", "reads")}
    for place in places.values():
        place.mkdir()
    configs = {name: config_of(directory, engine, name, name == "reads") for name in places}
    embedded = start(configs["writes"], places["writes"])
    sent = send(embedded, TRACES)
    until("the tables", lambda: engine.ask("EXISTS rollups") == "1")
    decide(embedded)
    send_logs(embedded, LOGS)
    points = send_points(embedded, 30)

    def count(what):
        return int(engine.ask(f"SELECT count() FROM {what} FINAL"))
    until("the mirror", lambda: (count("spans"), count("logs"), count("metric_points"), count("decisions"))
          == (sent, LOGS, points, DECISIONS + DERIVED))
    remote = start(configs["reads"], places["reads"])
    yield {"embedded": embedded, "clickhouse": remote, "engine": engine, "sent": sent}
    remote.stop()
    embedded.stop()
    engine.kill()


@pytest.fixture(params=["embedded", "clickhouse"])
def server(request, both):  # noqa: F811
    return both[request.param]
