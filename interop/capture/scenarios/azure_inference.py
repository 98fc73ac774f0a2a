"""Azure's `azure-ai-inference`: content in events of the span, as the conventions had it."""

import os
from setup import captured, tracers

from azure.ai.inference import ChatCompletionsClient
from azure.ai.inference.models import SystemMessage, UserMessage
from azure.ai.inference.tracing import AIInferenceInstrumentor
from azure.core.credentials import AzureKeyCredential
from azure.core.settings import settings

settings.tracing_implementation = "opentelemetry"
provider = tracers()
AIInferenceInstrumentor().instrument(enable_content_recording=True)
client = ChatCompletionsClient(os.environ["OPENAI_BASE_URL"], AzureKeyCredential("unused"))
client.complete(model="gpt-4o-mini", messages=[
    SystemMessage("You are a weather assistant."), UserMessage("What is the weather in Bern?")])
provider.shutdown()
captured("azure-ai-inference", "azure-core-tracing-opentelemetry")
