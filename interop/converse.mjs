// Holds a streamed conversation with a tool: node converse.mjs CLIENT BASE_URL MODEL HEADERS
import OpenAI from 'openai';
import { jsonSchema, stepCountIs, streamText, tool } from 'ai';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';

const [client, baseURL, model, headersJson] = process.argv.slice(2);
const headers = JSON.parse(headersJson);
const QUESTION = 'What is the weather in Lisbon?';
const parameters = {
  type: 'object',
  properties: { city: { type: 'string' } },
  required: ['city'],
};
const description = 'Current weather of a city';
const cities = [];
const weather = ({ city }) => {
  cities.push(city);
  return '18 degrees, sun';
};

async function withOpenai() {
  const openai = new OpenAI({ baseURL, apiKey: 'unused', maxRetries: 0, defaultHeaders: headers });
  const run = openai.chat.completions.runTools({
    model,
    stream: true,
    messages: [{ role: 'user', content: QUESTION }],
    tools: [
      {
        type: 'function',
        function: { name: 'get_weather', description, parameters, parse: JSON.parse, function: weather },
      },
    ],
  });
  return run.finalContent();
}

async function withAi(named) {
  const run = streamText({
    model: named,
    prompt: QUESTION,
    maxRetries: 0,
    tools: {
      get_weather: tool({ description, inputSchema: jsonSchema(parameters), execute: weather }),
    },
    stopWhen: stepCountIs(3),
    onError: ({ error }) => {
      throw error;
    },
  });
  let text = '';
  for await (const piece of run.textStream) text += piece;
  return text;
}

const settings = { baseURL, apiKey: 'unused', headers };
const clients = {
  openai: withOpenai,
  'ai-compatible': () =>
    withAi(createOpenAICompatible({ name: 'throughline', ...settings })(model)),
  'ai-openai': () => withAi(createOpenAI(settings)(model)),
};
const text = await clients[client]();
console.log(JSON.stringify({ text, cities }));
