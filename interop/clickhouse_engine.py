"""ClickHouse's engine in a process of its own, for tests, and servers that mirror into it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from conftest import BINARY, Server, free_ports, until

pytest.importorskip("chdb")

SHIM = Path(__file__).with_name("clickhouse_shim.py")


class ClickHouse:
    """The engine in a process of its own, which can be killed."""

    def __init__(self, directory):
        [self.port] = free_ports(1)
        self.directory = directory
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, str(SHIM), str(self.port), str(self.directory)])
        until("the engine", self.is_up)

    def is_up(self):
        assert self.process.poll() is None
        try:
            return self.ask("SELECT 1") == "1"
        except requests.ConnectionError:
            return False

    def ask(self, statement):
        reply = requests.post(f"http://127.0.0.1:{self.port}/", params={"query": statement}, timeout=30)
        assert reply.status_code == 200, reply.text
        return reply.text.strip()

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def engine(tmp_path):
    running = ClickHouse(tmp_path / "engine")
    yield running
    running.kill()


def store_text(config, data_dir, *command):
    """`throughline store clickhouse …`: exit code, and what it wrote."""
    done = subprocess.run(
        [BINARY, "--config", str(config), "--data-dir", str(data_dir), "store", "clickhouse", *command],
        capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def store(config, data_dir, *command):
    """The same, of a command that writes JSON lines."""
    code, out, error = store_text(config, data_dir, *command)
    return code, [json.loads(line) for line in out.splitlines()], error


def start(config, directory):
    return Server(directory, ("--config", str(config), "serve"))
