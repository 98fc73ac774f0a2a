"""OpenInference's instrumentation of `openai`, with a session and a user."""

from setup import captured, chat_twice, tracers

from openinference.instrumentation import using_attributes
from openinference.instrumentation.openai import OpenAIInstrumentor

provider = tracers()
OpenAIInstrumentor().instrument(tracer_provider=provider)
with using_attributes(session_id="s-42", user_id="u-7"):
    chat_twice(stream=True)
    from openai import OpenAI
    OpenAI().embeddings.create(model="text-embedding-3-small", input="Bern")
provider.shutdown()
captured("openinference-instrumentation-openai", "openai")
