"""What schemathesis cannot know of the API: how the texts look that have a language of their own.
It loads this file (SCHEMATHESIS_HOOKS) and makes such texts from it."""

import json
import os
from urllib.request import Request, urlopen

import schemathesis
from hypothesis import strategies as st

SERVER, KEY = os.environ["API_SERVER"], os.environ["API_KEY"]

NAMES = st.sampled_from(["fraud", "order", "gpt-4o", "none", "s-1"])
COUNTS = st.integers(min_value=0, max_value=10_000)


def ask(path):
    with urlopen(Request(SERVER + path, headers={"Authorization": f"Bearer {KEY}"}), timeout=10) as reply:
        return json.load(reply)


def cursors(path):
    """The cursors of a list's first pages: another text is no cursor."""
    found, query = [], "?limit=1"
    while len(found) < 3:
        following = ask(path + query)["next"]
        if following is None:
            break
        found.append(following)
        query = f"?limit=1&cursor={following}"
    return found


def listed(description):
    """Paths of lists, by the format of their cursors."""
    for path, methods in description["paths"].items():
        for parameter in methods.get("get", {}).get("parameters", []):
            if parameter["name"] == "cursor":
                yield path, parameter["schema"]["format"]


TERMS = st.one_of(
    NAMES.map("agent:{}".format),
    NAMES.map("model:{}*".format),
    COUNTS.map("tokens>{}".format),
    COUNTS.map("duration<={}ms".format),
    st.sampled_from(["error:true", "fallback:degraded", "user.id:42", '"card declined"', "-tool:x"]),
)
QUERIES = st.lists(TERMS, min_size=1, max_size=4).flatmap(
    lambda terms: st.sampled_from([" ", " OR "]).map(lambda joint: joint.join(terms))
)
SUMMARY_TERMS = st.one_of(NAMES.map("agent:{}".format), COUNTS.map("tokens>{}".format))
AMOUNTS = st.integers(min_value=1, max_value=59)

schemathesis.openapi.format("search-query", QUERIES)
schemathesis.openapi.format("live-query", SUMMARY_TERMS)
schemathesis.openapi.format("moment", st.builds("{}{}".format, AMOUNTS, st.sampled_from(["m", "h", "d"])))
schemathesis.openapi.format("duration", st.builds("{}{}".format, AMOUNTS, st.sampled_from(["", "ms", "s", "m", "h"])))
schemathesis.openapi.format("whole-minutes", st.builds("{}{}".format, AMOUNTS, st.sampled_from(["h", "d"])))
for list_path, name in listed(ask("/api/v1/openapi.json")):
    known = cursors(list_path)
    if known:
        schemathesis.openapi.format(name, st.sampled_from(known))
