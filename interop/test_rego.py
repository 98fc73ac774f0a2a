"""Policies in Rego against OPA itself: its evaluator, as a library of the Go module `github.com/open-policy-agent/opa`."""

import itertools
import json
import os
import re
import subprocess

import pytest
import yaml
from opa_bindings import OpaEngine, OpaError, OpaUndefinedError

from conftest import ROOT

SEMANTICS = ROOT / "crates/rules/src/rego/semantics.rs"

# One case of the table there: its name, the rules, the input, and what comes out.
CASE = re.compile(r'^    (\w+): ("(?:[^"\\]|\\.)*"), (\{.*\}) => (r#".*?"#|"(?:[^"\\]|\\.)*");$', re.MULTILINE)

# As docs/governance.md tells of them.
DIFFERENT = {
    "differs_in_sprintf_of_truth": '"%!t(string=true)"',
    "differs_in_sprintf_to_the_left": '"ab   "',
    "differs_in_the_order_of_sets_and_objects": "undefined",
}


def opa(text, path, given):
    """What OPA makes of a document, as JSON, `undefined` or `error`."""
    with OpaEngine() as engine:
        engine.add_policy("policy.rego", text)
        try:
            value = engine.eval_document(path, given)
        except OpaUndefinedError:
            return "undefined"
        except OpaError as error:
            # The library asks for errors of builtins to be told; where nobody does, as in OPA's server, they are undefined.
            return "undefined" if "eval_builtin_error" in error.message else "error"
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def cases():
    for name, body, given, expected in CASE.findall(SEMANTICS.read_text()):
        raw = expected.startswith("r#")
        yield name, json.loads(body), json.loads(given), expected[3:-2] if raw else json.loads(expected)


CASES = list(cases())


def test_the_table_is_read():
    lines = [line for line in SEMANTICS.read_text().splitlines() if re.match(r"^    \w+: \"", line)]
    assert len(CASES) == len(lines) >= 60


@pytest.mark.parametrize("name, body, given, expected", CASES, ids=[case[0] for case in CASES])
def test_opa_says_what_our_engine_says(name, body, given, expected):
    said = opa(f"package cases\n\nimport rego.v1\n\n{body}", "cases.violation", given)
    expected = DIFFERENT.get(name, expected)
    if expected.startswith("error"):
        assert said == "error"
    elif expected == "undefined":
        assert said == "undefined"
    else:
        assert json.loads(said) == json.loads(expected)


@pytest.fixture(scope="module")
def ours():
    given = os.environ.get("THROUGHLINE_REGO")
    command = [given] if given else ["cargo", "run", "--quiet", "-p", "throughline-rules", "--example", "rego"]

    def ask(text, query, inputs):
        lines = "".join(json.dumps({"text": text, "query": query, "input": one}) + "\n" for one in inputs)
        done = subprocess.run(command, input=lines, capture_output=True, text=True, cwd=ROOT, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    return ask


def shipped():
    for file in sorted((ROOT / "deploy/rego").glob("*.yaml")):
        spec = yaml.safe_load(file.read_text())["spec"]
        text = spec.get("rego") or (file.parent / spec["rego_file"]).read_text()
        yield pytest.param(text, spec["query"], id=file.stem)


def grid(text):
    """Inputs around every threshold, and with each part missing."""
    names = sorted(set(re.findall(r"input\.signals\.(\w+)", text)))
    if names:
        values = [None, 0, 0.45, 0.4500001, 0.6, 0.61, 1.2, 1.21, 18, 18.4, 18.6, 1000]
        for chosen in itertools.product(values, repeat=len(names)):
            yield {"signals": {name: value for name, value in zip(names, chosen) if value is not None}}
        return
    for latency, level in itertools.product([None, 0, 149.9, 150, 900], [None, "strong", "weak", 3]):
        response = {"latency_ms": latency, "consistency_level": level, "status": "success"}
        yield {"request": {"service": "inventory"}, "response": {k: v for k, v in response.items() if v is not None}}


@pytest.mark.parametrize("text, query", list(shipped()))
def test_policies_that_ship_have_the_same_verdicts(ours, text, query):
    inputs = list(grid(text))
    told = ours(text, query, inputs)
    breaches = 0
    for given, answer in zip(inputs, told, strict=True):
        said = opa(text, query.removeprefix("data."), given)
        value = None if said == "undefined" else json.loads(said)
        if query.endswith(".allow"):
            expected = {"is_breach": value is not True, "messages": []}
        else:
            messages = sorted(value) if isinstance(value, list) else []
            expected = {"is_breach": bool(value), "messages": messages}
        assert answer == expected, given
        breaches += answer["is_breach"]
    assert 0 < breaches < len(inputs), "both verdicts are tried"
