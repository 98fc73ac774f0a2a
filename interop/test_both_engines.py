"""One behaviour, two engines: each test is asked of a server that answers from its embedded store, and of one that
has nothing of its own and answers from ClickHouse. What is right follows from what was sent."""

import json

import pytest
import requests

from both_engines import NUMBERS, TRACES, both, pages, server  # noqa: F401
from conftest import until
from test_clickhouse_reads import listed

# What is asked, and which traces must come, by number.
ASKED = [
    ({}, lambda n: True),
    ({"agent": "fraud"}, lambda n: n % 3 == 0),
    ({"agent": "nobody"}, lambda n: False),
    ({"session": "s-3"}, lambda n: n % 5 == 3),
    ({"user": "it's \\ \"ü\""}, lambda n: n % 4 == 0),
    ({"service": "bank"}, lambda n: n % 2 == 1 or n % 8 == 0),
    ({"model": "gpt-4o"}, lambda n: n % 2 == 0),
    ({"error": "true"}, lambda n: n % 6 == 0),
    ({"error": "false"}, lambda n: n % 6 != 0),
    ({"agent": "triage", "session": "s-1"}, lambda n: n % 3 != 0 and n % 5 == 1),
    ({"min_duration": "2h"}, lambda n: False),
    ({"max_duration": "2h", "error": "true"}, lambda n: n % 6 == 0),
    ({"since": "1h"}, lambda n: True),
    ({"until": "1h"}, lambda n: False),
    ({"agent": "fraud", "q": "order.id>40"}, lambda n: n % 3 == 0 and n > 40),
    ({"q": "agent:fr*"}, lambda n: n % 3 == 0),
    ({"q": "-agent:fraud"}, lambda n: n % 3 != 0),
    ({"q": "error:true OR agent:triage"}, lambda n: n % 6 == 0 or n % 3 != 0),
    ({"q": "agent:fraud -error:true session:s-0"}, lambda n: n % 3 == 0 and n % 6 != 0 and n % 5 == 0),
    ({"q": "name:\"request 7\""}, lambda n: n == 7),
    ({"q": "spans>=3"}, lambda n: n % 8 == 0),
    ({"q": "span:lookup"}, lambda n: n % 2 == 1),
    ({"q": "-span:lookup"}, lambda n: n % 2 == 0),
    ({"q": "order.id:42"}, lambda n: n == 42),
    ({"q": "-order.id:42"}, lambda n: n != 42),
    ({"q": "\"CARD declined\""}, lambda n: n % 10 == 0),
    ({"q": "\"no such words\""}, lambda n: False),
    ({"q": "gen_ai.input.messages:*"}, lambda n: n % 2 == 0),
    ({"q": "seen.code:7"}, lambda n: n % 9 == 7),
    ({"q": "tokens>100"}, lambda n: n % 2 == 0 and n > 10),
    ({"q": "decisions>0"}, lambda n: n < 20 or n % 7 == 0),
    ({"q": "-decisions>0 error:true"}, lambda n: n >= 20 and n % 6 == 0 and n % 7),
    ({"q": "agent:triage \"card declined\""}, lambda n: n % 3 != 0 and n % 10 == 0),
]


@pytest.mark.parametrize("asked, is_wanted", ASKED, ids=lambda value: json.dumps(value) if isinstance(value, dict) else "")
def test_lists_and_searches_give_what_was_asked_for_newest_first(server, asked, is_wanted):  # noqa: F811
    found = [one["name"] for one in listed(server, **asked)]
    assert found == [f"request {n}" for n in reversed(NUMBERS) if is_wanted(n)]


@pytest.mark.parametrize("limit", [1, 7, 59, 60, 500])
def test_pages_of_any_size_are_the_whole_list_once(server, limit):  # noqa: F811
    found = pages(server, "/api/v1/traces", limit)
    assert [one["name"] for page in found for one in page] == [f"request {n}" for n in reversed(NUMBERS)]
    assert len(found) == -(-TRACES // limit)


def test_a_cursor_of_somebody_else_is_refused(server):  # noqa: F811
    reply = requests.get(server.url("/api/v1/traces"), params={"cursor": "x9"}, timeout=10)
    assert reply.status_code == 400 and "cursor" in reply.text


@pytest.mark.parametrize("number", [0, 7, 24, 40])
def test_a_trace_is_whole(server, number):  # noqa: F811
    [one] = listed(server, q=f"name:\"request {number}\"")
    trace = server.get(f"/api/v1/traces/{one['trace_id']}")
    names = ["lookup" if number % 2 else "chat"] + (["slow"] if number % 8 == 0 else [])
    spans = {span["name"]: span for span in trace["spans"]}
    assert sorted(spans) == sorted(names + [f"request {number}"])
    root = spans[f"request {number}"]
    assert all(spans[name]["parent_span_id"] == root["span_id"] for name in names)
    assert spans[names[0]]["attributes"]["order.id"] == number
    [event] = spans[names[0]]["events"]
    assert event["attributes"]["seen.code"] == number % 9
    summary = trace["summary"]
    assert (summary["span_count"], summary["error_count"]) == (1 + len(names), int(number % 6 == 0))
    page = requests.get(server.url(f"/traces/{one['trace_id']}"), timeout=10)
    assert page.status_code == 200 and f"request {number}" in page.text
    # Whoever has it is told so, and not sent it again.
    reply = requests.get(server.url(f"/api/v1/traces/{one['trace_id']}"), timeout=10)
    again = requests.get(
        server.url(f"/api/v1/traces/{one['trace_id']}"), headers={"if-none-match": reply.headers["etag"]}, timeout=10)
    assert again.status_code == 304


def test_a_trace_that_nobody_sent_is_not_found(server):  # noqa: F811
    assert requests.get(server.url(f"/api/v1/traces/{'12' * 16}"), timeout=10).status_code == 404


def totals_of_charts(both):
    answer = both["embedded"].get("/api/v1/series", measure="count,errors", group_by="agent", operation="root", since="2h")
    return {group["labels"]["agent"]: (group["totals"]["count"], group["totals"]["errors"]) for group in answer["groups"]}


def totals_of_tables(both):
    rows = both["engine"].ask(
        "SELECT agent, sum(operations) AS n, sum(errors) AS errors FROM rollup_operations FINAL "
        "WHERE cuboid = 'agent' AND kind = 'root' AND resolution = 60 GROUP BY agent FORMAT JSONEachRow")
    rows = [json.loads(row) for row in rows.split("\n") if row]
    return {row["agent"]: (int(row["n"]), int(row["errors"])) for row in rows}


@pytest.mark.parametrize("totals", [totals_of_charts, totals_of_tables])
def test_rollups_count_what_was_sent(both, totals):  # noqa: F811
    wanted = {
        agent: (len(of), sum(n % 6 == 0 for n in of))
        for agent, of in (("fraud", [n for n in NUMBERS if n % 3 == 0]), ("triage", [n for n in NUMBERS if n % 3]))
    }
    until("the rollups", lambda: totals(both) == wanted)
