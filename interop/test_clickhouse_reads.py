"""Both engines are asked the same, and mean the same: a server with its embedded store, and one that has nothing
of its own and reads ClickHouse."""

import json
import time

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Status, StatusCode

from clickhouse_engine import engine, start, store  # noqa: F401
from conftest import until

# What is asked of lists; each is asked page by page.
FILTERS = [
    {},
    {"agent": "fraud"},
    {"agent": "nobody"},
    {"session": "s-3"},
    {"user": "it's \\ \"ü\""},
    {"service": "shop"},
    {"model": "gpt-4o"},
    {"error": "true"},
    {"error": "false"},
    {"min_duration": "20ms"},
    {"max_duration": "20ms"},
    {"fallback": "degraded"},
    {"agent": "fraud", "error": "true"},
    {"since": "1h"},
    {"until": "1h"},
]

QUERIES = [
    "agent:fraud", "-agent:fraud", "agent:fr*", "user:*", "error:true OR agent:triage", "name:\"request 7\"",
    "duration>20ms", "spans>=3", "span:lookup", "order.id:42", "order.id>40", "-order.id:42", "-span:lookup",
    "\"CARD declined\"", "gruesse", "\"no such words\"", "gen_ai.input.messages:*", "gen_ai.input.messages:hello",
    "service.name:shop", "seen.code:7", "tokens>100", "agent:triage \"card declined\"", "fallback:degraded",
    "start>2020-01-01", "status:error",
]


def tracer_of(server, service):
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    exporter = OTLPSpanExporter(endpoint=f"{server.otlp_http}/v1/traces", timeout=10)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("interop", "1.0")


def send(server, traces):
    """Traces that differ in whatever can be asked for; their number of spans."""
    tracers = [tracer_of(server, service) for service in ("shop", "bank")]
    for number in range(traces):
        with tracers[number % 2].start_as_current_span(f"request {number}") as root:
            root.set_attribute("gen_ai.agent.name", "fraud" if number % 3 == 0 else "triage")
            root.set_attribute("session.id", f"s-{number % 5}")
            root.set_attribute("user.id", "it's \\ \"ü\"" if number % 4 == 0 else f"user {number}")
            if number % 6 == 0:
                root.set_status(Status(StatusCode.ERROR, "gruesse"))
            if number % 7 == 0:
                root.set_attribute("fallback.decision", "triggered")
                root.set_attribute("fallback.result", "success")
            with tracers[0].start_as_current_span("lookup" if number % 2 else "chat") as span:
                span.set_attribute("order.id", number)
                span.add_event("seen", {"seen.code": number % 9})
                if number % 2 == 0:
                    said = "card declined" if number % 10 == 0 else "hello"
                    span.set_attribute("gen_ai.operation.name", "chat")
                    span.set_attribute("gen_ai.request.model", "gpt-4o")
                    span.set_attribute("gen_ai.response.model", "gpt-4o")
                    span.set_attribute("gen_ai.usage.input_tokens", 10 * number)
                    span.set_attribute("gen_ai.input.messages", json.dumps(
                        [{"role": "user", "parts": [{"type": "text", "content": said}]}]))
            if number % 8 == 0:
                with tracers[1].start_as_current_span("slow"):
                    time.sleep(0.025)
    return 2 * traces + len(range(0, traces, 8))


def listed(server, **asked):
    """All pages of a list."""
    found, cursor = [], None
    while True:
        page = server.get("/api/v1/traces", limit=7, **asked, **({"cursor": cursor} if cursor else {}))
        found += page["items"]
        cursor = page.get("next")
        if not cursor:
            return found


def told(trace):
    """What a trace says, apart from when it came."""
    trace = json.loads(json.dumps(trace))
    trace.get("summary", trace).pop("received", None)
    return trace


def config_of(directory, engine, name, reads):
    path = directory / f"{name}.yaml"
    path.write_text(
        f"store:\n  clickhouse:\n    url: http://127.0.0.1:{engine.port}\n    flush_interval: 100ms\n"
        f"    server: {name}\n    reads: {str(reads).lower()}\n", encoding="utf-8")
    return path


def test_both_engines_answer_the_same(tmp_path, engine):  # noqa: F811
    places = {name: tmp_path / name for name in ("writes", "reads")}
    for place in places.values():
        place.mkdir()
    configs = {name: config_of(tmp_path, engine, name, name == "reads") for name in places}
    embedded = start(configs["writes"], places["writes"])
    sent = send(embedded, 60)
    until("the mirror", lambda: engine.ask("SELECT count() FROM spans FINAL") == str(sent))
    remote = start(configs["reads"], places["reads"])

    for asked in FILTERS + [{"q": query} for query in QUERIES]:
        ours, theirs = listed(embedded, **asked), listed(remote, **asked)
        assert [told(one) for one in ours] == [told(one) for one in theirs], asked
    assert len(listed(remote)) == 60 and len(listed(remote, q='"card declined"')) == 6

    for one in listed(embedded)[:20]:
        path = f"/api/v1/traces/{one['trace_id']}"
        assert told(embedded.get(path)) == told(remote.get(path))
        page = requests.get(remote.url(f"/traces/{one['trace_id']}"), timeout=10)
        assert page.status_code == 200 and one["name"] in page.text
    assert requests.get(remote.url(f"/api/v1/traces/{'12' * 16}"), timeout=10).status_code == 404
    refused = requests.get(remote.url("/api/v1/traces"), params={"cursor": "t2"}, timeout=10)
    assert refused.status_code == 400 and "cursor" in refused.text

    # A trace that goes on at another server is one trace.
    first = tracer_of(embedded, "shop")
    with first.start_as_current_span("over two servers") as root:
        trace_id = f"{root.get_span_context().trace_id:032x}"
        with tracer_of(remote, "bank").start_as_current_span("far part"):
            pass
    until("both parts", lambda: engine.ask("SELECT count() FROM spans FINAL") == str(sent + 2))
    [whole] = listed(remote, q='name:"over two servers"')
    assert (whole["trace_id"], whole["span_count"]) == (trace_id, 2)
    spans = remote.get(f"/api/v1/traces/{trace_id}")["spans"]
    assert {span["name"] for span in spans} == {"over two servers", "far part"}
    # Each server compares its own rows only.
    for name, place in places.items():
        code, [found], error = until("the rollups too", lambda: (
            told := store(configs[name], place / "data", "check", "--json"))[0] == 0 and told)
        assert code == 0 and found["spans"] == (sent + 1 if name == "writes" else 1), error

    # Without ClickHouse lists say so, and what is here of a trace is shown.
    engine.kill()
    reply = requests.get(remote.url("/api/v1/traces"), timeout=20)
    assert reply.status_code == 503 and "ClickHouse" in reply.text
    here = remote.get(f"/api/v1/traces/{trace_id}")["spans"]
    assert [span["name"] for span in here] == ["far part"]
    remote.stop()
    embedded.stop()
