"""The third of the chain A -HTTP-> B -gRPC-> C -HTTP-> D: an agent in Python with the official OpenTelemetry
packages and nothing of Throughline's. It serves `throughline.agent.v1.Agent` and asks D over HTTP.

    python chain_member.py FOLDER_OF_COMPILED_PROTO URL_OF_D
"""

import json
import sys
import urllib.request
from concurrent import futures

import grpc
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

sys.path.insert(0, sys.argv[1])
import agent_pb2  # noqa: E402
import agent_pb2_grpc  # noqa: E402

NEXT = sys.argv[2]


class Member(agent_pb2_grpc.AgentServicer):
    def Run(self, request, context):
        carrier = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        tracer = trace.get_tracer("chain_member")
        with tracer.start_as_current_span(
            "throughline.agent.v1.Agent/Run",
            context=propagate.extract(carrier), kind=trace.SpanKind.SERVER,
        ):
            with tracer.start_as_current_span("POST", kind=trace.SpanKind.CLIENT):
                headers = {"content-type": "application/json"}
                propagate.inject(headers)
                body = json.dumps({"task": request.task}).encode()
                asked = urllib.request.Request(f"{NEXT}/v1/agents/d/run", data=body, headers=headers)
                with urllib.request.urlopen(asked, timeout=20) as reply:
                    answer = json.load(reply)
        return agent_pb2.RunReply(answer=answer["answer"], outcome="ok", turns=1)


def main():
    provider = TracerProvider(resource=Resource.create({"service.name": "c"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    agent_pb2_grpc.add_AgentServicer_to_server(Member(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening on http://127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


main()
