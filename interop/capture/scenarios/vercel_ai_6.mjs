// Vercel's AI SDK 6 with `experimental_telemetry`: a tool loop, and the same as a stream.
import { readFileSync } from 'node:fs';
import { NodeTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { createOpenAI } from '@ai-sdk/openai';
import { generateText, streamText, embed, stepCountIs, tool } from 'ai';
import { z } from 'zod';

const provider = new NodeTracerProvider({
  spanProcessors: [new SimpleSpanProcessor(new OTLPTraceExporter())],
});
provider.register();
const openai = createOpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: 'unused' });
const get_weather = tool({
  description: 'Current weather of a city',
  inputSchema: z.object({ city: z.string() }),
  execute: async () => ({ celsius: 21 }),
});
const request = {
  model: openai.chat('gpt-4o-mini'),
  system: 'You are a weather assistant.',
  prompt: 'What is the weather in Bern?',
  tools: { get_weather },
  stopWhen: stepCountIs(3),
  maxRetries: 0,
  temperature: 0.2,
  experimental_telemetry: {
    isEnabled: true,
    functionId: 'forecaster',
    metadata: { sessionId: 's-42', userId: 'u-7' },
  },
};
await generateText(request);
await streamText(request).consumeStream();
await embed({ model: openai.embedding('text-embedding-3-small'), value: 'Bern',
  experimental_telemetry: { isEnabled: true } });
await provider.forceFlush();
await provider.shutdown();
const version = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version;
console.log(JSON.stringify(Object.fromEntries(['ai', '@ai-sdk/openai'].map((n) => [n, version(n)]))));
