"""Captures what real instrumentations export, as the fixtures of the dialects' tests.

    python interop/capture/capture.py NAME [PYTHON]

runs `scenarios/NAME.py` (or `.mjs`, with node, from a directory that has its packages) against a
model provider made here, and writes what it exports over OTLP/HTTP to
`crates/ingest/tests/dialects/NAME.json`: all requests as one in OTLP JSON, packages and versions in
the field `captured`. What belongs to the machine that captured (process, host, paths) is left out.
The converter needs `opentelemetry-proto`; the scenario runs in PYTHON (this one if not said).
"""

import base64
import gzip
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent.parent / "crates" / "ingest" / "tests" / "dialects"

# Attributes of the resource that say where it ran.
OF_THE_MACHINE = ("process.", "host.", "os.", "service.instance.id", "container.")


def usage(prompt, cached, completion, reasoning):
    return {
        "prompt_tokens": prompt, "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def answer(request):
    """The first turn asks for the tool, the turn after its result answers."""
    answered = any(message["role"] == "tool" for message in request["messages"])
    if request.get("tools") and not answered:
        call = {"id": "call_1", "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city":"Bern"}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return message, "tool_calls", usage(82, 64, 17, 0), "chatcmpl-1"
    message = {"role": "assistant", "content": "It is 21 degrees in Bern."}
    return message, "stop", usage(120, 64, 23, 8), "chatcmpl-2"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        """The body, also in chunks of HTTP/1.1."""
        if "content-length" in self.headers:
            return self.rfile.read(int(self.headers["content-length"]))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


class Provider(Handler):
    """Speaks as much of OpenAI's chat completions as the scenarios need."""

    def do_POST(self):
        request = json.loads(self.body())
        if self.path.endswith("/embeddings"):
            self.reply({"object": "list", "model": request["model"],
                        "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}],
                        "usage": {"prompt_tokens": 5, "total_tokens": 5}})
            return
        if request["model"] == "missing":
            self.reply({"error": {"message": "no such model", "type": "invalid_request_error",
                                  "code": "model_not_found"}}, status=404)
            return
        message, reason, used, name = answer(request)
        base = {"id": name, "created": 1795348800, "model": request["model"] + "-2024-07-18"}
        if not request.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": reason}
            self.reply({**base, "object": "chat.completion", "choices": [choice], "usage": used})
            return
        if calls := message.get("tool_calls"):
            deltas = [{"role": "assistant", "tool_calls": [{"index": 0, **calls[0]}]}]
        else:
            middle = message["content"].index("in Bern")
            deltas = [{"role": "assistant", "content": message["content"][:middle]},
                      {"content": message["content"][middle:]}]
        chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
                  for delta in deltas]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        chunks.append({"choices": [], "usage": used})
        lines = [json.dumps({**base, "object": "chat.completion.chunk", **one}) for one in chunks]
        body = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])
        self.reply(body, "text/event-stream")

    def reply(self, body, content_type="application/json", status=200):
        body = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Receiver(Handler):
    """Keeps the bodies of `/v1/traces`; answers everything well."""

    requests = []

    def do_POST(self):
        body = self.body()
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        kind = self.headers.get("content-type", "")
        if self.path.endswith("/v1/traces"):
            Receiver.requests.append(json.loads(body) if "json" in kind else from_protobuf(body))
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", "0")
        self.end_headers()


def from_protobuf(body):
    """OTLP JSON: as protobuf's own JSON, but ids are hexadecimal and enums are numbers."""
    message = MessageToDict(ExportTraceServiceRequest.FromString(body),
                            use_integers_for_enums=True)

    def mend(value):
        if isinstance(value, list):
            return [mend(one) for one in value]
        if not isinstance(value, dict):
            return value
        ids = ("traceId", "spanId", "parentSpanId")
        return {key: base64.b64decode(one).hex() if key in ids else mend(one)
                for key, one in value.items()}

    return mend(message)


def scrubbed(value, paths):
    """Without what tells of the machine."""
    if isinstance(value, str):
        for path in paths:
            value = value.replace(path, "/app")
        value = re.sub(r"\(Linux-[^)]*\)", "(Linux)", value)
        return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8080", value)
    if isinstance(value, list):
        return [scrubbed(one, paths) for one in value]
    if isinstance(value, dict):
        if value.get("key") == "server.port":
            return {"key": "server.port", "value": {"intValue": "8080"}}
        return {key: scrubbed(one, paths) for key, one in value.items()}
    return value


def whole(requests, paths):
    groups = []
    for request in requests:
        for group in request.get("resourceSpans", []):
            resource = group.get("resource", {})
            resource["attributes"] = [one for one in resource.get("attributes", [])
                                      if not one["key"].startswith(OF_THE_MACHINE)]
            if groups and groups[-1].get("resource") == resource:
                groups[-1]["scopeSpans"].extend(group["scopeSpans"])
            else:
                groups.append(group)
    return scrubbed(groups, paths)


def serve(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def main():
    name = sys.argv[1]
    python = sys.argv[2] if len(sys.argv) > 2 else sys.executable
    script = next(path for end in (".py", ".mjs")
                  if (path := HERE / "scenarios" / f"{name}{end}").exists())
    receiver = serve(Receiver)
    env = dict(os.environ, OPENAI_BASE_URL=f"{serve(Provider)}/v1", OPENAI_API_KEY="unused",
               OTEL_EXPORTER_OTLP_ENDPOINT=receiver, OTEL_SERVICE_NAME="weather",
               OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf", OTEL_METRICS_EXPORTER="none",
               OTEL_LOGS_EXPORTER="none", OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="all")
    runner = [python] if script.suffix == ".py" else ["node"]
    # Node looks for packages beside the script: run it from where they are.
    if script.suffix == ".mjs":
        copy = Path.cwd() / f"capture-{script.name}"
        copy.write_text(script.read_text(encoding="utf-8"), encoding="utf-8")
        script = copy
    done = subprocess.run([*runner, str(script)], env=env, check=True, stdout=subprocess.PIPE,
                          text=True)
    packages = json.loads(done.stdout.strip().splitlines()[-1])
    paths = sorted({str(Path(python).absolute().parent.parent), str(HERE), str(Path.cwd())},
                   key=len, reverse=True)
    groups = whole(Receiver.requests, paths)
    fixture = {"captured": packages, "resourceSpans": groups}
    FIXTURES.mkdir(exist_ok=True)
    text = json.dumps(fixture, indent=1, ensure_ascii=False)
    (FIXTURES / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    spans = [span for group in groups for scope in group["scopeSpans"] for span in scope["spans"]]
    print(f"{name}: {len(spans)} spans, {len(text)} bytes")


if __name__ == "__main__":
    main()
