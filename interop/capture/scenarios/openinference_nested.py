"""OpenInference's instrumentations of LangChain and of `openai` at once: every call is told twice."""

from setup import captured, langchain_agent, tracers

from openinference.instrumentation.langchain import LangChainInstrumentor
from openinference.instrumentation.openai import OpenAIInstrumentor

provider = tracers()
LangChainInstrumentor().instrument(tracer_provider=provider)
OpenAIInstrumentor().instrument(tracer_provider=provider)
with provider.get_tracer("app").start_as_current_span("request"):
    langchain_agent(session="s-42")
provider.shutdown()
captured("openinference-instrumentation-langchain", "openinference-instrumentation-openai",
         "langchain", "openai")
