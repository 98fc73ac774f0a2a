"""What schemathesis cannot know of the API: how the texts look that have a language of their own.
It loads this file (SCHEMATHESIS_HOOKS) and makes such texts with it."""

import base64
import json
import os
from urllib.request import Request, urlopen

import schemathesis
from hypothesis import strategies as st

SERVER, KEY = os.environ["API_SERVER"], os.environ["API_KEY"]


def cursor(prefix, key):
    """A cursor as the server makes it of the key of an item."""
    return prefix + base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


# Gaps are told a minute after they were noticed, detectors have seen something a minute after it was sent, a
# second segment is begun after a day, and nobody waits for any of them here; the server has no files with rules.
MADE = {
    "/api/v1/slos": cursor("so1", ["slo", "objective"]),
    "/api/v1/rollouts": cursor("ro1", "rollout"),
    "/api/v1/experiments": cursor("ex1", "experiment"),
    "/api/v1/policies": cursor("po1", "policy"),
    "/api/v1/decisions/gaps": cursor("g1", [1, "instance", 1]),
    "/api/v1/detectors": cursor("dt1", ["support", "latency"]),
    "/api/v1/segments": cursor("sg1", ["2026-01-31", 1]),
}


def ask(path):
    with urlopen(Request(SERVER + path, headers={"Authorization": f"Bearer {KEY}"}), timeout=10) as reply:
        return json.load(reply)


def cursors(path):
    """The cursors of a list's first pages: no other text is one."""
    if path in MADE:
        return [MADE[path]]
    found, query = [], "?limit=1"
    while len(found) < 3:
        following = ask(path + query)["next"]
        if following is None:
            break
        found.append(following)
        query = f"?limit=1&cursor={following}"
    assert found, f"{path} has one page only"
    return found


def lists(description):
    """Paths of lists, and the format of their cursors."""
    for path, methods in description["paths"].items():
        for parameter in methods.get("get", {}).get("parameters", []):
            if parameter["name"] == "cursor":
                yield path, parameter["schema"]["format"]


NAMES = st.sampled_from(["fraud", "order", "gpt-4o", "none", "s-1"])
COUNTS = st.integers(min_value=0, max_value=10_000)
AMOUNTS = st.integers(min_value=1, max_value=59)
TERMS = st.one_of(
    NAMES.map("agent:{}".format),
    NAMES.map("model:{}*".format),
    COUNTS.map("tokens>{}".format),
    COUNTS.map("duration<={}ms".format),
    st.sampled_from(["error:true", "fallback:degraded", "user.id:42", '"card declined"', "-tool:x"]),
)


def with_unit(*units):
    return st.builds("{}{}".format, AMOUNTS, st.sampled_from(units))


FORMATS = {
    "search-query": st.builds(
        lambda terms, joint: joint.join(terms),
        st.lists(TERMS, min_size=1, max_size=4), st.sampled_from([" ", " OR "]),
    ),
    "sql-select": st.sampled_from([
        "SELECT 1", "SELECT count(*) FROM spans", "SELECT name FROM traces WHERE agent = ? LIMIT 3",
        "SELECT model, sum(cost_usd) FROM llm_calls GROUP BY model",
    ]),
    "live-query": NAMES.map("agent:{}".format),
    "moment": st.one_of(with_unit("m", "h", "d"), st.sampled_from(["2026-01-31", "2026-01-31T12:00:00Z", "1764144000000000000"])),
    "duration": with_unit("", "ms", "s", "m", "h"),
    "whole-minutes": with_unit("m", "h", "d"),
}
for list_path, name in lists(ask("/api/v1/openapi.json")):
    FORMATS[name] = st.sampled_from(cursors(list_path))
for name, texts in FORMATS.items():
    schemathesis.openapi.format(name, texts)
