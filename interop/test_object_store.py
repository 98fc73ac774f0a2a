"""Checkpoints of the audit log in an object store: moto's server, looked at with AWS's own client."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import boto3
import requests

from conftest import BINARY, Server, free_ports, until


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def decide(server, numbers):
    decisions = [{
        "decision_id": f"00000000-0000-4000-8000-{number:012}", "timestamp_ns": "1764144000000000000",
        "stage": "plan", "decision": {"action": "approve"}, "session_id": "s-1",
    } for number in numbers]
    answer = requests.post(f"http://127.0.0.1:{server.web_port}/api/v1/decisions", json=decisions, timeout=10)
    assert answer.status_code == 200, answer.text


def last_number(server):
    told = requests.get(f"http://127.0.0.1:{server.web_port}/api/v1/audit/verify", timeout=10).json()
    return told["anchors"][0]["last_number"] if told["anchors"] else None


def verify(config, data_dir):
    return subprocess.run(
        [BINARY, "--config", str(config), "--data-dir", str(data_dir), "audit", "verify", "--json"],
        capture_output=True, text=True, check=False)


def test_checkpoints_lie_in_a_bucket_and_tell_of_a_changed_one(tmp_path):
    [port] = free_ports(1)
    store = subprocess.Popen(
        [str(Path(sys.executable).parent / "moto_server"), "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = None
    try:
        until("the object store", lambda: is_listening(port))
        endpoint = f"http://127.0.0.1:{port}"
        s3 = boto3.client("s3", endpoint_url=endpoint, region_name="eu-central-1",
                          aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="secret")
        s3.create_bucket(Bucket="vault", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        (tmp_path / "s3.ini").write_text(
            "[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = secret\n", encoding="utf-8")
        config = tmp_path / "throughline.yaml"
        config.write_text(json.dumps({"audit": {"checkpoint_count": 1, "anchors": [{
            "name": "vault", "s3": "s3://vault/audit/of shop", "endpoint": endpoint,
            "region": "eu-central-1", "credentials_file": "s3.ini"}]}}), encoding="utf-8")
        server = Server(tmp_path, command=("--config", str(config), "serve"))
        decide(server, range(1, 4))
        until("the first checkpoint", lambda: last_number(server) == 3)
        decide(server, range(4, 6))
        until("the second checkpoint", lambda: last_number(server) == 5)
        objects = s3.list_objects_v2(Bucket="vault")["Contents"]
        names = [each["Key"] for each in objects]
        assert names[-1] == "audit/of shop/00000000000000000005.json"
        body = json.loads(s3.get_object(Bucket="vault", Key=names[-1])["Body"].read())
        assert body["number"] == 5
        data_dir = tmp_path / "data"
        told = verify(config, data_dir)
        assert told.returncode == 0, told.stderr
        assert json.loads(told.stdout)["anchors"][0]["agreed"] == len(names), told.stdout
        # What the bucket says of another chain is found.
        forged = body | {"number": 9}
        s3.put_object(Bucket="vault", Key="audit/of shop/00000000000000000009.json", Body=json.dumps(forged))
        found = verify(config, data_dir)
        assert found.returncode == 5, (found.stdout, found.stderr)
    finally:
        if server:
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(timeout=20)
        store.terminate()
        store.wait(timeout=20)
