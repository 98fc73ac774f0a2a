// Vercel's AI SDK 7 with `@ai-sdk/otel`: spans of the GenAI conventions, and one a step.
import { readFileSync } from 'node:fs';
import { NodeTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { OpenTelemetry } from '@ai-sdk/otel';
import { createOpenAI } from '@ai-sdk/openai';
import { generateText, streamText, embed, registerTelemetry, stepCountIs, tool } from 'ai';
import { z } from 'zod';

const provider = new NodeTracerProvider({
  spanProcessors: [new SimpleSpanProcessor(new OTLPTraceExporter())],
});
provider.register();
registerTelemetry(new OpenTelemetry());
const openai = createOpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: 'unused' });
const get_weather = tool({
  description: 'Current weather of a city',
  inputSchema: z.object({ city: z.string() }),
  execute: async () => ({ celsius: 21 }),
});
const request = {
  model: openai.chat('gpt-4o-mini'),
  instructions: 'You are a weather assistant.',
  prompt: 'What is the weather in Bern?',
  tools: { get_weather },
  stopWhen: stepCountIs(3),
  maxRetries: 0,
  temperature: 0.2,
  telemetry: { functionId: 'forecaster' },
};
await generateText(request);
await streamText(request).consumeStream();
await embed({ model: openai.embedding('text-embedding-3-small'), value: 'Bern' });
await provider.forceFlush();
await provider.shutdown();
const version = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version;
const names = ['ai', '@ai-sdk/otel', '@ai-sdk/openai'];
console.log(JSON.stringify(Object.fromEntries(names.map((n) => [n, version(n)]))));
