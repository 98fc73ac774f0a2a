// Sends one trace, one log and one metric with the official exporters: node send.js WIRE ENDPOINT SERVICE
const [wire, endpoint, service] = process.argv.slice(2);
const { context, trace, SpanKind } = require('@opentelemetry/api');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { NodeTracerProvider, BatchSpanProcessor } = require('@opentelemetry/sdk-trace-node');
const { LoggerProvider, BatchLogRecordProcessor } = require('@opentelemetry/sdk-logs');
const { MeterProvider, PeriodicExportingMetricReader } = require('@opentelemetry/sdk-metrics');

const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${wire}`);
const { OTLPLogExporter } = require(`@opentelemetry/exporter-logs-otlp-${wire}`);
const { OTLPMetricExporter } = require(`@opentelemetry/exporter-metrics-otlp-${wire}`);
const at = (signal) => ({ url: wire === 'grpc' ? endpoint : `${endpoint}/v1/${signal}` });

async function main() {
  const resource = resourceFromAttributes({ 'service.name': service });
  const tracers = new NodeTracerProvider({
    resource,
    spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter(at('traces')))],
  });
  const loggers = new LoggerProvider({
    resource,
    processors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter(at('logs')) })],
  });
  const meters = new MeterProvider({
    resource,
    readers: [
      new PeriodicExportingMetricReader({
        exporter: new OTLPMetricExporter(at('metrics')),
        exportIntervalMillis: 3_600_000,
      }),
    ],
  });

  const tracer = tracers.getTracer('interop');
  const root = tracer.startSpan('GET /cart', { kind: SpanKind.SERVER });
  const inRoot = trace.setSpan(context.active(), root);
  const child = tracer.startSpan('load cart', { attributes: { items: ['apple', 'pear'] } }, inRoot);
  loggers.getLogger('interop').emit({
    severityNumber: 9,
    body: 'cart loaded',
    context: trace.setSpan(context.active(), child),
  });
  child.end();
  root.end();
  meters.getMeter('interop').createCounter('carts').add(2, { test: service });

  for (const each of [tracers, loggers, meters]) await each.forceFlush();
  for (const each of [tracers, loggers, meters]) await each.shutdown();
  console.log(JSON.stringify({ traceId: root.spanContext().traceId }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
