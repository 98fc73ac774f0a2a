"""One behaviour, two engines: decisions, log records, metrics, sessions, users and charts. What is right follows from
what was sent, or is what the embedded store says."""

import json

import pytest
import requests

from both_engines import DECISIONS, DERIVED, LOGS, MANY_AGENTS, NUMBERS, both, pages, send_agents, server  # noqa: F401
from conftest import until
from test_clickhouse_reads import listed


def name_of(value):
    return json.dumps(value) if isinstance(value, dict) else ""


def all_of(server, path, **asked):  # noqa: F811
    return [one for page in pages(server, path, 7, **asked) for one in page]


DECIDED = [
    ({}, lambda n: True),
    ({"agent": "fraud"}, lambda n: n % 3 == 0),
    ({"session": "s-3"}, lambda n: n % 5 == 3),
    ({"stage": "plan", "action": "approve"}, lambda n: n % 2 == 1),
    ({"action": "deny"}, lambda n: False),
    ({"instance": "i", "derived": "false"}, lambda n: True),
    ({"min_confidence": "0.5"}, lambda n: n % 5 and n >= 10),
    ({"max_confidence": "0.5"}, lambda n: n % 5 and n <= 10),
    ({"q": "NUMBER 7"}, lambda n: n == 7),
    ({"q": "GRÜSSE"}, lambda n: False),
    ({"q": "GRÜßE"}, lambda n: True),
    ({"q": "\\\\"}, lambda n: True),
    ({"since": "1h"}, lambda n: True),
    ({"until": "1h"}, lambda n: False),
]


@pytest.mark.parametrize("asked, is_wanted", DECIDED, ids=name_of)
def test_decisions_come_newest_first(server, asked, is_wanted):  # noqa: F811
    found = all_of(server, "/api/v1/decisions", **{"derived": "false", **asked})
    assert [one["attributes"]["n"] for one in found] == [n for n in reversed(range(DECISIONS)) if is_wanted(n)]


def test_a_decision_says_the_same_in_both(both):  # noqa: F811
    ours, theirs = (all_of(both[name], "/api/v1/decisions") for name in ("embedded", "clickhouse"))
    assert all(one.pop("chain") for one in ours)
    # The chain is that of the server that recorded it.
    assert [one.pop("chain") for one in theirs] == [None] * (DECISIONS + DERIVED)
    assert ours == theirs and sum(one["derived"] for one in ours) == DERIVED
    for one in theirs[:3]:
        path = f"/api/v1/decisions/{one['decision_id']}"
        assert both["clickhouse"].get(path)["decision"]["decision"] == one["decision"]
        page = requests.get(both["clickhouse"].url(f"/decisions/{one['decision_id']}"), timeout=10)
        assert page.status_code == 200 and one["decision_id"] in page.text


LOGGED = [
    ({}, lambda n: True),
    ({"service": "shop"}, lambda n: True),
    ({"service": "bank"}, lambda n: False),
    ({"severity": "warn"}, lambda n: 1 + n % 24 >= 13),
    ({"event_name": "seen"}, lambda n: True),
    ({"trace_id": f"{8:032x}"}, lambda n: n == 7),
    ({"q": "grüße \"QUOTED\" \\"}, lambda n: n % 4 == 0),
    ({"q": "back\nline"}, lambda n: n % 4 == 0),
    ({"q": "TRUE"}, lambda n: n % 4 == 3),
    ({"q": "-7"}, lambda n: n % 4 == 1),
    ({"since": "1h"}, lambda n: True),
    ({"until": "1h"}, lambda n: False),
]


@pytest.mark.parametrize("asked, is_wanted", LOGGED, ids=name_of)
def test_log_records_come_newest_first(server, asked, is_wanted):  # noqa: F811
    found = all_of(server, "/api/v1/logs", **asked)
    assert [one["attributes"]["n"] for one in found] == [n for n in reversed(range(LOGS)) if is_wanted(n)]


def test_a_log_record_says_the_same_in_both(both):  # noqa: F811
    ours, theirs = (all_of(both[name], "/api/v1/logs") for name in ("embedded", "clickhouse"))
    assert ours == theirs and len(ours) == LOGS


@pytest.mark.parametrize("path", ["/api/v1/decisions", "/api/v1/logs", "/api/v1/sessions", "/api/v1/users"])
def test_cursors_of_others_are_refused(server, path):  # noqa: F811
    for cursor in ("t2", "x", "dc1", "lc10123456789abcdef'", "sc1zz"):
        reply = requests.get(server.url(path), params={"cursor": cursor}, timeout=10)
        assert reply.status_code == 400 and "cursor" in reply.text


def test_metrics_are_the_same_in_both(both):  # noqa: F811
    ours, theirs = (both[name].get("/api/v1/metrics", limit=100)["items"] for name in ("embedded", "clickhouse"))
    assert ours == theirs and [one["name"] for one in ours] == ["calls", "level", "old", "time"]
    for name in ("calls", "level", "old", "time"):
        one, other = (both[of].get(f"/api/v1/metrics/{name}", since="1h") for of in ("embedded", "clickhouse"))
        assert one == other and len(one["series"]) == 3 and sum(len(of["points"]) for of in one["series"]) == 30


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_sessions_are_summed_up_latest_first(server, limit):  # noqa: F811
    found = [one for page in pages(server, "/api/v1/sessions", limit) for one in page]
    assert [one["session"] for one in found] == [f"s-{n}" for n in (4, 3, 2, 1, 0)]
    assert [one["trace_count"] for one in found] == [12] * 5
    numbers = [n for n in NUMBERS if n % 5 == 0]
    assert found[4]["input_tokens"] == sum(10 * n for n in numbers if n % 2 == 0)
    assert found[4]["error_count"] == sum(n % 6 == 0 for n in numbers)


@pytest.mark.parametrize("path", ["/api/v1/sessions", "/api/v1/users"])
@pytest.mark.parametrize("asked", [{}, {"agent": "fraud"}, {"service": "bank"}, {"until": "1h"}, {"agent": "nobody"}], ids=name_of)
def test_groups_are_the_same_in_both(both, path, asked):  # noqa: F811
    ours, theirs = (all_of(both[name], path, **asked) for name in ("embedded", "clickhouse"))
    assert ours == theirs
    assert bool(ours) == (asked not in ({"until": "1h"}, {"agent": "nobody"}))


def without_coverage(answer):
    return {name: value for name, value in answer.items() if name not in ("coverage", "from", "to")}


MEASURES = ("spans,count,errors,error_rate,p50,p95,p99,mean,input_tokens,output_tokens,cost_usd,fallbacks",
            "decisions,confidence,ttft_p95,retries,outcome_ok,outcome_error,fallback_success_rate,rate")


def settled(both, path, **asked):  # noqa: F811
    """The same answer of both, once the mirror has the newest cells."""
    def same():
        ours, theirs = (without_coverage(both[name].get(path, **asked)) for name in ("embedded", "clickhouse"))
        return ours if ours == theirs else None
    return until(f"{path} {asked}", same)


@pytest.mark.parametrize("measures", MEASURES)
@pytest.mark.parametrize("asked", [
    {"operation": "root"}, {"group_by": "agent", "operation": "root"}, {"group_by": "agent"}, {"group_by": "model"},
    {"model": "gpt-4o", "step": "1h"}, {"group_by": "agent,branch,version", "step": "5m"}, {"agent": "nobody"},
    {"agent": "triage", "step": "1d", "since": "30d", "operation": "root"}], ids=name_of)
def test_charts_are_the_same_in_both(both, measures, asked):  # noqa: F811
    answer = settled(both, "/api/v1/series", measure=measures, **{"since": "2h", **asked})
    assert bool(answer["groups"]) == (asked != {"agent": "nobody"})


def test_charts_say_until_when_everything_is_counted(both):  # noqa: F811
    def told():
        return both["clickhouse"].get("/api/v1/series", since="2h")["coverage"]["watermark"]
    first = until("a watermark", told)
    until("a later one", lambda: told() > first)


@pytest.mark.parametrize("path", ["/api/v1/agents", "/api/v1/models", "/api/v1/tools"])
def test_lists_of_totals_are_the_same_in_both(both, path):  # noqa: F811
    answer = settled(both, path, since="2h")
    assert bool(answer["items"]) == (path != "/api/v1/tools")


def test_menus_offer_what_all_servers_have(both):  # noqa: F811
    ours, theirs = (both[name].get("/api/v1/facets") for name in ("embedded", "clickhouse"))
    assert ours == theirs


def test_a_trace_has_its_decisions_and_log_records(server):  # noqa: F811
    for number in (3, 30):
        [one] = listed(server, q=f"name:\"request {number}\"")
        trace = server.get(f"/api/v1/traces/{one['trace_id']}")
        wanted = [number] if number < DECISIONS else []
        assert [of["attributes"]["n"] for of in trace["decisions"]] == wanted
        assert (one["decision_count"], trace["summary"]["decision_count"]) == (len(wanted), len(wanted))


# The last of the file: what it sends is in all lists that come later.
def test_lists_go_on_beyond_a_hundred(both):  # noqa: F811
    send_agents(both["embedded"])
    wanted = {f"many {number:03}": 1 + number % 3 for number in range(MANY_AGENTS)}

    def found(name):
        items = [one for page in pages(both[name], "/api/v1/agents", 50, since="4d", until="2d") for one in page]
        return [(one["name"], one["spans"]) for one in items]
    for name in ("embedded", "clickhouse"):
        until("all agents", lambda: dict(found(name)) == wanted)
        assert len(found(name)) == MANY_AGENTS
        spans = [count for _, count in found(name)]
        assert spans == sorted(spans, reverse=True)
    page = requests.get(both["clickhouse"].url("/agents"), params={"since": "7d"}, timeout=10)
    assert page.status_code == 200 and "many 001" in page.text
