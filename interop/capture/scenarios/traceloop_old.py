"""OpenLLMetry before 0.48: messages in indexed attributes, LangChain around `openai`."""

from setup import MESSAGES, captured, chat_twice, tracers

from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from opentelemetry.instrumentation.langchain import LangchainInstrumentor
from opentelemetry.instrumentation.openai import OpenAIInstrumentor

provider = tracers()
OpenAIInstrumentor().instrument(tracer_provider=provider)
chat_twice()
LangchainInstrumentor().instrument(tracer_provider=provider)
chain = RunnableLambda(lambda question: question) | ChatOpenAI(model="gpt-4o-mini", max_retries=0)
chain.with_config(run_name="forecaster").invoke(
    MESSAGES[1]["content"], {"metadata": {"session_id": "s-42", "user_id": "u-7"}})
provider.shutdown()
captured("opentelemetry-instrumentation-openai", "opentelemetry-instrumentation-langchain",
         "langchain", "openai")
