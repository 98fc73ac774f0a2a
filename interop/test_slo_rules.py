"""`throughline slo export prometheus`, held against Prometheus's own `promtool`: the rules are good, and over
the same counts they say the same burn rates and the same alerts, minute for minute, as `slo evaluate`."""

import json
import random
import re
import shutil
import subprocess

import pytest

from conftest import BINARY, ROOT

# Minutes of the made-up series: long enough for every short window to go quiet again.
MINUTES = 11 * 60

# Minutes between two comparisons of burn rates; alerts are compared at every one.
STEP = 13

FILES = [ROOT / "deploy/slo/fraud-agent.yaml", ROOT / "deploy/slo/shop-calendar.yaml"]

SERIES = [
    ("fraud-answers", "99"),
    ("fraud-decides-in-time", "usual"),
    ("fraud-decides-in-time", "worst"),
    ("shop-tools", "good minutes"),
]


@pytest.fixture(scope="module")
def promtool():
    """Debian's own, put in place if it is not there."""
    if not shutil.which("promtool"):
        subprocess.run(["apt-get", "update"], check=True, capture_output=True)
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "prometheus"]
        subprocess.run(install, check=True, capture_output=True)
    return shutil.which("promtool")


def counts(name):
    """Events and good ones by the minute: busy and quiet times, and failures in bursts."""
    made = random.Random(name)
    events, good = [], []
    for minute in range(MINUTES):
        total = made.randint(40, 160) if minute % 180 < 150 else made.randint(1, 4)
        share = 0.002
        if 90 <= minute < 125:
            share = 0.35
        elif 200 <= minute < 204:
            share = 1.0
        elif 300 <= minute < 420:
            share = 0.045
        bad = sum(made.random() < share for _ in range(total))
        events.append(total)
        good.append(total - bad)
    return events, good


def running(values):
    """What a counter shows: nothing at first, then the sum of the minutes that are over."""
    total, sums = 0, [0]
    for value in values:
        total += value
        sums.append(total)
    return sums


def ours(tmp_path, series):
    file = tmp_path / "series.json"
    file.write_text(json.dumps({
        "start": "1970-01-01T00:00:00Z",
        "series": [
            {"slo": slo, "objective": objective, "events": events, "good": good}
            for (slo, objective), (events, good) in series.items()
        ],
    }), encoding="utf-8")
    done = subprocess.run(
        [BINARY, "slo", "evaluate", "--json", "--series", file, *FILES],
        capture_output=True, text=True, check=True,
    )
    return json.loads(done.stdout)


def theirs(promtool, tmp_path, rules, series):
    """What promtool says when it is told to expect nothing: every sample that there is."""
    inputs = []
    for (slo, objective), (events, good) in series.items():
        for metric, values in (("throughline_slo_events_total", events),
                               ("throughline_slo_good_events_total", good)):
            labels = f'slo="{slo}",objective="{objective}"'
            sums = " ".join(str(value) for value in running(values))
            inputs.append({"series": f"{metric}{{{labels}}}", "values": sums})
    burns = [{"expr": '{__name__=~"throughline_slo:burn_rate:.*"}', "eval_time": f"{minute}m"}
             for minute in range(STEP, MINUTES + 1, STEP)]
    alerts = [{"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{minute}m"}
              for minute in range(1, MINUTES + 1)]
    # JSON is YAML too.
    test = tmp_path / "test.yaml"
    test.write_text(json.dumps({
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": inputs, "promql_expr_test": burns + alerts}],
    }), encoding="utf-8")
    done = subprocess.run([promtool, "test", "rules", test], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    burn, firing = {}, {}
    # One part for each expression at each time: its labels and values stand after `got:`.
    for part in re.split(r"\n\s*expr: ", said)[1:]:
        seconds = seconds_of(re.search(r"time: (\S+),", part).group(1))
        got = part.split("got:", 1)[1]
        for labels, value in re.findall(r'{(__name__=.*?)} ([^\s,]+)', got):
            names = dict(re.findall(r'(\w+)="(.*?)"', labels))
            key = (names["slo"], names["objective"])
            if names["__name__"] == "ALERTS":
                firing.setdefault((seconds, *key), set()).add(names["alert"])
            else:
                window = names["__name__"].rsplit(":", 1)[1]
                burn[(seconds, *key, window)] = float(value)
    return burn, firing, said


def seconds_of(text):
    """`1h2m0s` in seconds."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", text))


def test_promtool_says_what_we_say(promtool, tmp_path):
    rules = tmp_path / "rules.yaml"
    written = subprocess.run(
        [BINARY, "slo", "export", "prometheus", *FILES], capture_output=True, text=True, check=True
    )
    rules.write_text(written.stdout, encoding="utf-8")
    checked = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr

    series = {key: counts(" ".join(key)) for key in SERIES}
    told = ours(tmp_path, series)
    burn, firing, said = theirs(promtool, tmp_path, rules, series)
    assert burn, said[:2000]

    compared = fired = 0
    ended = set()
    for minute in told["minutes"]:
        key = (minute["unix_s"], minute["slo"], minute["objective"])
        for window, rate in minute["burn_rates"].items():
            if (*key, window) in burn:
                assert rate == pytest.approx(burn[(*key, window)], rel=1e-9, abs=1e-9), (key, window)
                compared += 1
        # The evaluation loop has no words in PromQL.
        alerts = set(minute["firing"]) - {"evaluation-loop"}
        if minute["unix_s"] > 0:
            assert alerts == firing.get(key, set()), key
        fired += len(alerts)
        ended |= alerts
    assert compared > 500, "burn rates were compared"
    assert fired > 100 and {"page-1h", "shop-tools-burn"} <= ended, (fired, ended)
    print(f"{compared} burn rates and {len(told['minutes'])} minutes of alerts agree, {fired} of them firing")


def test_an_slo_without_alerts_is_a_group_of_records(promtool, tmp_path):
    rules = tmp_path / "rules.yaml"
    done = subprocess.run(
        [BINARY, "slo", "export", "prometheus", ROOT / "deploy/slo/confidence.yaml"],
        capture_output=True, text=True, check=True,
    )
    rules.write_text(done.stdout, encoding="utf-8")
    checked = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "alert:" not in done.stdout
