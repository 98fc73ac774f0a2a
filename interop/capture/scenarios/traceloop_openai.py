"""OpenLLMetry's instrumentation of `openai`, within a workflow as the Traceloop SDK marks it."""

from setup import captured, chat_twice, tracers

from opentelemetry.instrumentation.openai import OpenAIInstrumentor

provider = tracers()
OpenAIInstrumentor().instrument(tracer_provider=provider)
chat_twice(stream=True)
provider.shutdown()
captured("opentelemetry-instrumentation-openai", "openai")
