"""What people build agents with, through the gateway and without instrumentation: each holds a streamed
conversation in which the model asks for a tool, and each leaves one complete trace."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest
from anthropic import Anthropic
from openai import AsyncOpenAI, OpenAI

from gateway_traces import assert_conversation, context

HERE = Path(__file__).resolve().parent
QUESTION = "What is the weather in Lisbon?"
FOUND = "18 degrees, sun"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
# Served in the client's own form, and translated.
OPENAI_MODEL = "gpt-4o-mini"
ANTHROPIC_MODEL = "claude-haiku-4-5"


def with_openai_chat(client, model):
    """`openai`, chat completions, its helper for streams."""
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": CITY}}]
    messages = [{"role": "user", "content": QUESTION}]
    with client.chat.completions.stream(model=model, messages=messages, tools=tools) as stream:
        [choice] = stream.get_final_completion().choices
    [call] = choice.message.tool_calls
    assert json.loads(call.function.arguments)["city"]
    messages += [
        choice.message.model_dump(include={"role", "content"})
        | {"tool_calls": [call.model_dump(exclude={"function": {"parsed_arguments"}, "index": True})]},
        {"role": "tool", "tool_call_id": call.id, "content": FOUND},
    ]
    with client.chat.completions.stream(model=model, messages=messages, tools=tools) as stream:
        return stream.get_final_completion().choices[0].message.content


def with_openai_responses(client, model):
    """`openai`, responses, its helper for streams."""
    tools = [{"type": "function", "name": "get_weather", "parameters": CITY, "strict": False}]
    items = [{"role": "user", "content": QUESTION}]
    with client.responses.stream(model=model, input=items, tools=tools) as stream:
        response = stream.get_final_response()
    [call] = [item for item in response.output if item.type == "function_call"]
    assert json.loads(call.arguments)["city"]
    assert response.usage.output_tokens > 0
    items += [item.model_dump(exclude={"parsed_arguments"}, exclude_none=True) for item in response.output]
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": FOUND})
    with client.responses.stream(model=model, input=items, tools=tools) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert "".join(deltas) == stream.get_final_response().output_text
        return "".join(deltas)


@pytest.mark.parametrize("model", [OPENAI_MODEL, ANTHROPIC_MODEL])
@pytest.mark.parametrize("converse", [with_openai_chat, with_openai_responses])
def test_openai(provider, converse, model):
    trace_id, headers = context()
    client = OpenAI(
        base_url=provider.url("/v1"), api_key="unused", max_retries=0, default_headers=headers)
    assert FOUND in converse(client, model)
    assert_conversation(provider, trace_id, model)


@pytest.mark.parametrize("model", [OPENAI_MODEL, ANTHROPIC_MODEL])
def test_anthropic(provider, model):
    trace_id, headers = context()
    client = Anthropic(
        base_url=provider.url(""), api_key="unused", max_retries=0, default_headers=headers)
    tools = [{"name": "get_weather", "input_schema": CITY}]
    asked = [{"role": "user", "content": QUESTION}]
    with client.messages.stream(model=model, max_tokens=500, messages=asked, tools=tools) as stream:
        answer = stream.get_final_message()
    assert answer.stop_reason == "tool_use"
    [call] = [block for block in answer.content if block.type == "tool_use"]
    assert call.input["city"]
    asked += [
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in answer.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": FOUND}]},
    ]
    with client.messages.stream(model=model, max_tokens=500, messages=asked, tools=tools) as stream:
        text = "".join(stream.text_stream)
        assert stream.get_final_message().usage.output_tokens > 0
    assert FOUND in text
    assert_conversation(provider, trace_id, model)


@pytest.mark.parametrize("model", [OPENAI_MODEL, ANTHROPIC_MODEL])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_openai_agents(provider, api, model):
    import agents

    @agents.function_tool
    def get_weather(city: str) -> str:
        """Current weather of a city."""
        assert city
        return FOUND

    async def converse(headers):
        client = AsyncOpenAI(
            base_url=provider.url("/v1"), api_key="unused", max_retries=0, default_headers=headers)
        kind = {
            "chat": agents.OpenAIChatCompletionsModel, "responses": agents.OpenAIResponsesModel,
        }[api]
        agent = agents.Agent(
            name="weather", instructions="Answer with the tool.", tools=[get_weather],
            model=kind(model=model, openai_client=client))
        run = agents.Runner.run_streamed(agent, QUESTION)
        async for _ in run.stream_events():
            pass
        return run.final_output

    agents.set_tracing_disabled(True)
    trace_id, headers = context()
    assert FOUND in asyncio.run(converse(headers))
    assert_conversation(provider, trace_id, model)


def test_langchain(provider):
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    @tool
    def get_weather(city: str) -> str:
        """Current weather of a city."""
        assert city
        return FOUND

    trace_id, headers = context()
    model = ChatOpenAI(
        model=OPENAI_MODEL, base_url=provider.url("/v1"), api_key="unused", max_retries=0,
        default_headers=headers).bind_tools([get_weather])

    def streamed(messages):
        chunks = list(model.stream(messages))
        return sum(chunks[1:], start=chunks[0])

    messages = [HumanMessage(QUESTION)]
    asked = streamed(messages)
    [call] = asked.tool_calls
    messages += [asked, ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])]
    answer = streamed(messages)
    assert FOUND in answer.text
    assert_conversation(provider, trace_id, OPENAI_MODEL)


@pytest.mark.parametrize("model", [OPENAI_MODEL, ANTHROPIC_MODEL])
def test_pydantic_ai(provider, model):
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async def converse(headers):
        client = AsyncOpenAI(
            base_url=provider.url("/v1"), api_key="unused", max_retries=0, default_headers=headers)
        agent = Agent(OpenAIChatModel(model, provider=OpenAIProvider(openai_client=client)))

        @agent.tool_plain
        def get_weather(city: str) -> str:
            """Current weather of a city."""
            assert city
            return FOUND

        async with agent.run_stream(QUESTION) as run:
            return await run.get_output()

    trace_id, headers = context()
    assert FOUND in asyncio.run(converse(headers))
    assert_conversation(provider, trace_id, model)


@pytest.mark.parametrize("model", [OPENAI_MODEL, ANTHROPIC_MODEL])
@pytest.mark.parametrize("client", ["openai", "ai-compatible", "ai-openai"])
def test_node(provider, client, model):
    """`openai`, and Vercel's `ai` with each of its providers for OpenAI's APIs."""
    trace_id, headers = context()
    done = subprocess.run(
        ["node", "converse.mjs", client, provider.url("/v1"), model, json.dumps(headers)],
        cwd=HERE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["cities"] and all(told["cities"])
    assert FOUND in told["text"]
    assert_conversation(provider, trace_id, model)
