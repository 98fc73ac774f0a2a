"""Starts the real binary on free ports, and asks its API."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import requests

ROOT = Path(__file__).resolve().parent.parent
BINARY = os.environ.get("THROUGHLINE_BIN", str(ROOT / "target" / "debug" / "throughline"))

# How long to wait for a thing to become visible before the test fails, seconds.
DEADLINE_SECONDS = 20


def free_ports(count):
    """Ports nobody listens on right now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def until(what, ask):
    """Asks until the answer is true; the moment it is, not after a guess of seconds."""
    end = time.monotonic() + DEADLINE_SECONDS
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not seen within {DEADLINE_SECONDS} s: {what}")
        time.sleep(0.05)


class Server:
    """A running Throughline."""

    def __init__(self, data_dir, command=("serve",)):
        self.grpc_port, self.http_port, self.web_port = free_ports(3)
        self.data_dir = data_dir
        self.log = open(Path(data_dir) / "server.log", "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [BINARY, *command, "--data-dir", str(Path(data_dir) / "data"),
             "--grpc-port", str(self.grpc_port), "--http-port", str(self.http_port),
             "--web-port", str(self.web_port)],
            stdout=self.log, stderr=subprocess.STDOUT,
        )
        until("readiness", self.is_ready)

    def is_ready(self):
        assert self.process.poll() is None, Path(self.log.name).read_text(encoding="utf-8")
        try:
            return requests.get(self.url("/readyz"), timeout=1).status_code == 200
        except requests.ConnectionError:
            return False

    def url(self, path):
        return f"http://127.0.0.1:{self.web_port}{path}"

    @property
    def otlp_grpc(self):
        return f"http://127.0.0.1:{self.grpc_port}"

    @property
    def otlp_http(self):
        return f"http://127.0.0.1:{self.http_port}"

    def get(self, path, **params):
        reply = requests.get(self.url(path), params=params, timeout=10)
        assert reply.status_code == 200, f"{path}: {reply.status_code} {reply.text}"
        return reply.json()

    def trace(self, trace_id):
        """The trace as the API tells it, once it is there."""
        def ask():
            reply = requests.get(self.url(f"/api/v1/traces/{trace_id}"), timeout=10)
            return reply.json() if reply.status_code == 200 else None
        return until(f"trace {trace_id}", ask)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=20) == 0, Path(self.log.name).read_text(encoding="utf-8")
        self.log.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("throughline"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def provider(tmp_path_factory):
    """The demo's simulated model provider, quick and without demo runs; with its own server."""
    [port] = free_ports(1)
    running = Server(
        tmp_path_factory.mktemp("demo"),
        ("demo", "--runs", "0", "--pace", "0", "--provider-port", str(port)),
    )
    running.provider = f"http://127.0.0.1:{port}/v1"
    yield running
    running.stop()
