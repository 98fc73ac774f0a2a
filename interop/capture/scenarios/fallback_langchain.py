"""LangChain's fallbacks, as OpenInference tells them: a model that is not there, then one that is."""

from setup import captured, tracers

from langchain_openai import ChatOpenAI
from openinference.instrumentation.langchain import LangChainInstrumentor

provider = tracers()
LangChainInstrumentor().instrument(tracer_provider=provider)
primary = ChatOpenAI(model="missing", max_retries=0)
chain = primary.with_fallbacks([ChatOpenAI(model="gpt-4o-mini", max_retries=0)])
chain.invoke("Say it shortly.")
provider.shutdown()
captured("openinference-instrumentation-langchain", "langchain", "openai")
