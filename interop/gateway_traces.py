"""Traces of the gateway as text: what each client's conversation must look like."""

import os

import requests

from conftest import until


def context():
    """A caller's span: its trace, and the headers that tell it."""
    trace_id = os.urandom(16).hex()
    span_id = os.urandom(8).hex()
    headers = {"traceparent": f"00-{trace_id}-{span_id}-01", "x-session-id": "s-interop"}
    return trace_id, headers


def spans_of(provider, trace_id, count):
    """The spans of a trace, once there are as many."""
    def ask():
        reply = requests.get(provider.url(f"/api/v1/traces/{trace_id}"), timeout=10)
        if reply.status_code != 200:
            return None
        spans = reply.json()["spans"]
        return spans if len(spans) >= count else None
    return until(f"{count} spans of {trace_id}", ask)


def tree(spans):
    """The spans as an indented tree: name, phase, outcome, and whether the tokens are the provider's
    own count."""
    ids = {span["span_id"] for span in spans}
    children = {}
    for span in sorted(spans, key=lambda span: int(span["start_unix_nano"])):
        parent = span["parent_span_id"]
        children.setdefault(parent if parent in ids else None, []).append(span)

    def lines(parent, depth):
        for span in children.get(parent, []):
            attributes = span["attributes"]
            told = [span["name"]]
            told += [attributes[key] for key in ("ai.phase", "outcome") if key in attributes]
            if span["role"] == "llm_call":
                counts = [attributes.get(f"gen_ai.usage.{side}_tokens", 0) for side in ("input", "output")]
                is_own = min(counts) > 0 and "throughline.usage.estimated" not in attributes
                told.append("usage" if is_own else "NO USAGE")
            yield "  " * depth + " ".join(told)
            yield from lines(span["span_id"], depth + 1)

    return list(lines(None, 0))


def streamed_tool_conversation(model):
    """The tree of two streamed calls: one in which the model asks for a tool, one with its answer."""
    return [
        line
        for phase in ("plan", "observe")
        for line in (
            f"chat {model} {phase} ok usage",
            "  http.stream.init",
            "  http.stream.segment",
        )
    ]


def assert_conversation(provider, trace_id, model):
    """The trace is such a conversation, complete: tokens, costs, session."""
    expected = streamed_tool_conversation(model)
    spans = spans_of(provider, trace_id, len(expected))
    assert tree(spans) == expected
    for span in spans:
        assert span["attributes"]["session_id"] == "s-interop"
        if span["role"] == "llm_call":
            assert span["attributes"]["throughline.cost_usd"] > 0
