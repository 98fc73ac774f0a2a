"""LangSmith's OpenTelemetry exporter: a LangChain agent, and `wrap_openai` below a `traceable`."""

import os

os.environ.update(LANGSMITH_TRACING="true", LANGSMITH_OTEL_ENABLED="true",
                  LANGSMITH_OTEL_ONLY="true", LANGSMITH_PROJECT="weather",
                  LANGSMITH_ENDPOINT="http://127.0.0.1:9", LANGSMITH_API_KEY="unused")
from setup import captured, chat_twice, langchain_agent, tracers

provider = tracers()
from langsmith import Client, traceable
from langsmith.wrappers import wrap_openai
import openai

client = Client()
langchain_agent(session="s-42")


@traceable(run_type="chain", name="summary", client=client)
def summary():
    wrapped = wrap_openai(openai.OpenAI(max_retries=0))
    return wrapped.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "Sum it up."}])


summary()
client.flush()
provider.shutdown()
captured("langsmith", "langchain", "openai")
