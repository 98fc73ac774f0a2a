"""OpenTelemetry's own instrumentation of `openai`, in the latest conventions, content on spans."""

import os

os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_ONLY"
from setup import captured, chat_twice, tracers

from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

provider = tracers()
OpenAIInstrumentor().instrument(tracer_provider=provider)
chat_twice(stream=True)
provider.shutdown()
captured("opentelemetry-instrumentation-genai-openai", "opentelemetry-util-genai", "openai")
