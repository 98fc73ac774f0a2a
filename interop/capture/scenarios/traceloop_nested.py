"""OpenLLMetry's instrumentations of LangChain and of `openai` at once."""

from setup import captured, langchain_agent, tracers

from opentelemetry.instrumentation.langchain import LangchainInstrumentor
from opentelemetry.instrumentation.openai import OpenAIInstrumentor

provider = tracers()
LangchainInstrumentor().instrument(tracer_provider=provider)
OpenAIInstrumentor().instrument(tracer_provider=provider)
langchain_agent(session="s-42")
provider.shutdown()
captured("opentelemetry-instrumentation-langchain", "opentelemetry-instrumentation-openai",
         "langchain", "openai")
