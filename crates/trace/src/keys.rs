//! Attribute keys: those of REQUIREMENTS (part of the contract, users search by them), those of the
//! OpenTelemetry GenAI conventions in both generations, and our own under `throughline.`.

macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*
    };
}

keys! {
    // Dimensions on every span (R1.2).
    /// Which agent.
    AGENT_ID = "agent_id";
    /// Which conversation or job.
    SESSION_ID = "session_id";
    /// On whose behalf (OpenTelemetry's user conventions).
    USER_ID = "user.id";
    /// The same, as older conventions have it.
    ENDUSER_ID = "enduser.id";
    /// Which workflow, across agents.
    WORKFLOW_ID = "workflow_id";
    /// The agent's role, on logs.
    AGENT_ROLE = "agent_role";
    /// Index on an attempt (0 is the first try), total on its parent when it ends.
    RETRY_COUNT = "retry_count";
    /// Wire status of a call, on spans and metrics.
    STATUS_CODE = "status_code";
    /// Model, on metrics.
    MODEL_NAME = "model_name";
    /// Whether the answer came from a cache.
    IS_CACHED = "is_cached";
    /// Business outcome (R1.3): `ok`, `policy_rejected`, `model_timeout`, `timeout` (of
    /// anything but a model), `retry_succeeded`, `fallback_degraded`, `circuit_open`, `cancelled`,
    /// `error`.
    OUTCOME = "outcome";

    // Steps (R2.5).
    /// `plan`, `act`, `observe` or `reflect`.
    AI_PHASE = "ai.phase";
    /// The tool that the step or span used, with its version (`web_search_v2`).
    AI_TOOL_USED = "ai.tool_used";
    /// Why, in at most 128 characters.
    AI_REASONING_TRACE = "ai.reasoning_trace";
    /// Number of the step in its run, from 0.
    AI_STEP_INDEX = "ai.step_index";
    /// Keeps several agents in one process apart.
    AI_AGENT_NAME = "ai.agent.name";

    // Streaming (R3.2).
    /// Which stream a segment belongs to.
    STREAM_ID = "stream_id";
    /// Running number of the chunk, from 0.
    CHUNK_SEQ = "chunk_seq";
    /// Set to `true` on a segment that broke.
    ERROR = "error";

    // Routing and A/B (R3.3).
    /// `control` or `treatment`.
    AB_TEST_GROUP = "ab_test_group";
    /// Version of the model or prompt strategy.
    MODEL_VERSION = "model_version";
    /// `weighted`, `header_based`, …
    ROUTING_STRATEGY = "routing_strategy";
    /// Share of traffic, 0 to 1.
    ROUTING_WEIGHT = "routing_weight";
    /// The model that the router chose.
    MODEL_ID = "model_id";
    /// Time the call may take, milliseconds.
    LATENCY_BUDGET_MS = "latency_budget_ms";

    // Tools (R4.1).
    /// `tool-registry` on registry spans.
    COMPONENT = "component";
    /// `register` or `lookup` on registry spans.
    METHOD = "method";
    /// How the request to the registry ended: `found`, `missing`, `registered`, …
    RESULT = "result";
    /// A field of the context bag that a tool was not given.
    CONTEXT_FIELD = "throughline.context.field";

    // Fallback (R4.2).
    /// `triggered` or `skipped`.
    FALLBACK_DECISION = "fallback.decision";
    /// `primary` or `degraded`.
    FALLBACK_BRANCH = "fallback.branch";
    /// `success` or `failed`.
    FALLBACK_RESULT = "fallback.result";

    // Errors (R4.3).
    /// One of [`ErrorType`](crate::ErrorType).
    ERROR_TYPE = "error.type";
    /// For people, with the parameters that matter.
    ERROR_MESSAGE = "error.message";
    /// Where a panic of this process came from, and its backtrace; in telemetry only, never in an
    /// answer.
    ERROR_STACK = "error.stack";
    /// The provider's raw code.
    ERROR_CODE = "throughline.error.code";

    // Decisions (R4.4), attributes of the log event.
    /// `event_name` of a decision.
    DECISION_EVENT = "agent.decision";
    /// UUIDv4.
    DECISION_ID = "decision_id";
    /// UUIDv4 of the decision that led here.
    PARENT_DECISION_ID = "parent_decision_id";
    /// Nanoseconds since the Unix epoch, by the agent's clock.
    TIMESTAMP_NS = "timestamp_ns";
    /// Where in the agent's work.
    STAGE = "stage";
    /// Keyed hash of the input.
    INPUT_HASH = "input_hash";
    /// The key of the hash; `ephemeral:…` when it lives as long as its process.
    INPUT_HASH_KEY_ID = "input_hash_key_id";
    /// What was chosen.
    DECISION_ACTION = "decision.action";
    /// Why.
    DECISION_REASON = "decision.reason";
    /// How sure, 0 to 1.
    DECISION_CONFIDENCE = "decision.confidence";
    /// What could have been chosen instead, a list.
    DECISION_ALTERNATIVES = "decision.alternatives";
    /// Guidelines, policies or documents that a decision follows, a list.
    GUIDELINE_REFS = "guideline_refs";
    /// Why a decision's input has no hash.
    DECISION_INPUT_PROBLEM = "throughline.decision.input_problem";
    /// Id of the directive that was obeyed.
    DIRECTIVE_ID = "throughline.directive.id";
    /// Traces that justify a directive, a list.
    DIRECTIVE_EVIDENCE = "throughline.directive.evidence";
    /// The rule that gave a directive.
    DIRECTIVE_RULE = "throughline.directive.rule";
    // What governance did (R5.2), attributes of spans `act …` and of their decisions.
    /// The rule that spoke; empty when a person did.
    RULE = "throughline.rule";
    /// Id of the finding that led to it.
    FINDING = "throughline.finding";
    /// Id of the action.
    ACTION_ID = "throughline.action.id";
    /// What became of the action: `done`, `failed`, `refused` or `dry_run`.
    ACTION_STATE = "throughline.action.state";
    /// Traces that justify it, a list.
    EVIDENCE = "throughline.evidence";
    /// The process that recorded it.
    INSTANCE_ID = "instance_id";
    /// Running number within the instance.
    SEQ = "seq";
    /// Set to `true` when the server derived the decision.
    DERIVED = "derived";

    // Our own.
    /// What kind of span the SDK made: the values of [`SpanRole`](crate::SpanRole).
    ROLE = "throughline.role";
    /// Cost of a call, US dollars.
    COST_USD = "throughline.cost_usd";
    /// Version of the price table that the cost was worked out with.
    PRICE_VERSION = "throughline.price_version";
    /// `true` when token counts were counted by us rather than reported by the provider.
    USAGE_ESTIMATED = "throughline.usage.estimated";
    /// How estimated token counts were made: `tokenizer` (the model's own) or `bytes` (a quarter of
    /// them).
    USAGE_METHOD = "throughline.usage.method";
    /// Of the tokens written to a cache: those that it keeps for an hour.
    USAGE_CACHE_WRITE_1H = "throughline.usage.cache_write_1h.input_tokens";
    /// Set to `true` where the tokens in that were reported leave out those read from a cache and written
    /// to one, which come on top of them.
    USAGE_CACHE_BESIDE_INPUT = "throughline.usage.cache_beside_input";
    /// Requests that a provider's rate limit still allows.
    LIMIT_REQUESTS = "throughline.rate_limit.remaining_requests";
    /// Tokens that a provider's rate limit still allows.
    LIMIT_TOKENS = "throughline.rate_limit.remaining_tokens";
    /// What an attempt failed with that was tried again (it bears no `error.type`: the call may
    /// still succeed).
    ATTEMPT_ERROR_TYPE = "throughline.attempt.error_type";
    /// The provider's raw code of a failure that was tried again.
    ATTEMPT_ERROR_CODE = "throughline.attempt.error_code";
    /// The message of a failure that was tried again.
    ATTEMPT_MESSAGE = "throughline.attempt.message";
    /// Pause before the next attempt, milliseconds.
    RETRY_DELAY_MS = "throughline.retry.delay_ms";
    /// Why an operation was not tried again.
    GIVE_UP = "throughline.give_up";
    /// Chunks of a stream, or of one of its segments.
    STREAM_CHUNKS = "throughline.stream.chunks";
    /// Bytes of text of a stream, or of one of its segments.
    STREAM_BYTES = "throughline.stream.bytes";
    /// How often a stream went on after it was cut.
    STREAM_RESUMES = "throughline.stream.resumes";
    /// Why a segment ended: `first_token`, `done`, `idle`, `rotated`, `gap`, `failed`,
    /// `cancelled`, `timeout`.
    STREAM_END = "throughline.stream.end";
    /// Number of the copy of an attempt that was sent more than once, from 0.
    HEDGE = "throughline.hedge";
    /// What a breaker guards (`openai/gpt-4o`).
    BREAKER_TARGET = "throughline.breaker.target";
    /// State of a breaker: `closed`, `open`, `half_open`.
    BREAKER_STATE = "throughline.breaker.state";
    /// The state that a breaker left.
    BREAKER_FROM = "throughline.breaker.from";
    /// The route that a router chose a target of.
    ROUTE = "throughline.route";
    /// Generation of the weights that it chose by.
    ROUTE_GENERATION = "throughline.route.generation";
    /// Name of a branch of a fallback.
    FALLBACK_NAME = "throughline.fallback.name";
    /// Names of the problems that ingest put right on this item, joined by commas; an id that could
    /// not be read follows its problem's name after a colon.
    MENDED = "throughline.mended";
    /// How many traces the one of an exported span stands for, 1 or more: what sampling left behind
    /// looks like it.
    SAMPLING_WEIGHT = "throughline.sampling.weight";
    /// What redaction took out of this item: a map from rule to how often.
    REDACTED = "throughline.redacted";
    /// Original sizes of values that were cut: a map from attribute key to bytes. Those of an event or a
    /// link stand under its number (`events[0].exception.stacktrace`).
    TRUNCATED_BYTES = "throughline.truncated_bytes";
    /// Hashes, in hex, of the same values before they were cut: BLAKE3 with a key of the server.
    TRUNCATED_HASHES = "throughline.truncated_hashes";
    /// Bytes that `gen_ai.input.messages` had before it was cut to the limit of content.
    CONTENT_INPUT_BYTES = "throughline.content.input.bytes";
    /// SHA-256, in hex, of `gen_ai.input.messages` before it was cut.
    CONTENT_INPUT_SHA256 = "throughline.content.input.sha256";
    /// Whole messages that were left out of `gen_ai.input.messages`.
    CONTENT_INPUT_LEFT_OUT = "throughline.content.input.left_out";
    /// Bytes that `gen_ai.output.messages` had before it was cut to the limit of content.
    CONTENT_OUTPUT_BYTES = "throughline.content.output.bytes";
    /// SHA-256, in hex, of `gen_ai.output.messages` before it was cut.
    CONTENT_OUTPUT_SHA256 = "throughline.content.output.sha256";
    /// Whole messages that were left out of `gen_ai.output.messages`.
    CONTENT_OUTPUT_LEFT_OUT = "throughline.content.output.left_out";
    /// Bytes that `gen_ai.tool.definitions` had before it was cut to the limit of content.
    CONTENT_TOOLS_BYTES = "throughline.content.tools.bytes";
    /// SHA-256, in hex, of `gen_ai.tool.definitions` before it was cut.
    CONTENT_TOOLS_SHA256 = "throughline.content.tools.sha256";
    /// Whole definitions that were left out of `gen_ai.tool.definitions`.
    CONTENT_TOOLS_LEFT_OUT = "throughline.content.tools.left_out";
    /// In a part or definition that was cut: bytes of what was taken out or shortened.
    CONTENT_BYTES = "throughline.content.bytes";
    /// In a part or definition that was cut: SHA-256, in hex, of what was taken out or shortened.
    CONTENT_SHA256 = "throughline.content.sha256";
    /// In a message that was cut: parts that were left out.
    CONTENT_PARTS_LEFT_OUT = "throughline.content.parts_left_out";
    /// What an agent's task was taken to be about.
    INTENT = "throughline.intent";
    /// What the task names, a JSON object.
    ENTITIES = "throughline.entities";
    /// The policy that judged a step.
    POLICY = "throughline.policy";
    /// Who decided, when it was a human.
    DECIDED_BY = "throughline.decided_by";
    /// The plugin that a span belongs to.
    PLUGIN = "throughline.plugin";
    /// Messages that a memory gave or took.
    MEMORY_MESSAGES = "throughline.memory.messages";
    // What signals are made of (docs/detection.md).
    /// Embedding of a session's context at a decision, a list of numbers.
    CONTEXT_EMBEDDING = "throughline.context.embedding";
    /// What a decision foretells, a number.
    FORECAST_VALUE = "throughline.forecast.value";
    /// What came, a number; on the forecast's decision or on a later one of the same id.
    FORECAST_ACTUAL = "throughline.forecast.actual";
    /// What tells a forecast and its actual from others.
    FORECAST_ID = "throughline.forecast.id";
    /// Whether a response keeps to its JSON Schema; left out where it has none.
    RESPONSE_SCHEMA_VALID = "throughline.response.schema_valid";
    /// Fields of a request that the provider's form does not have, and that were left out.
    REQUEST_LEFT_OUT = "throughline.request.left_out";
    /// Id of a run that goes on in the background.
    RUN_ID = "throughline.run_id";

    // Resource.
    /// Logical name of the service.
    SERVICE_NAME = "service.name";
    /// Version of the service.
    SERVICE_VERSION = "service.version";
    /// Unique id of the running instance.
    SERVICE_INSTANCE_ID = "service.instance.id";

    // Exceptions.
    /// Class of an exception.
    EXCEPTION_TYPE = "exception.type";
    /// Message of an exception.
    EXCEPTION_MESSAGE = "exception.message";
    /// Stack of an exception.
    EXCEPTION_STACKTRACE = "exception.stacktrace";

    // OpenTelemetry GenAI.
    /// `chat`, `embeddings`, `invoke_agent`, `execute_tool`, …
    GEN_AI_OPERATION_NAME = "gen_ai.operation.name";
    /// `openai`, `anthropic`, …
    GEN_AI_PROVIDER_NAME = "gen_ai.provider.name";
    /// Older name of the provider.
    GEN_AI_SYSTEM = "gen_ai.system";
    /// Model asked for.
    GEN_AI_REQUEST_MODEL = "gen_ai.request.model";
    /// Longest answer allowed, tokens.
    GEN_AI_REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens";
    /// Sampling temperature.
    GEN_AI_REQUEST_TEMPERATURE = "gen_ai.request.temperature";
    /// Nucleus sampling.
    GEN_AI_REQUEST_TOP_P = "gen_ai.request.top_p";
    /// How many of the likeliest tokens are drawn from.
    GEN_AI_REQUEST_TOP_K = "gen_ai.request.top_k";
    /// How much what was said often is avoided.
    GEN_AI_REQUEST_FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty";
    /// How much what was said at all is avoided.
    GEN_AI_REQUEST_PRESENCE_PENALTY = "gen_ai.request.presence_penalty";
    /// How many answers are asked for, where it is not one.
    GEN_AI_REQUEST_CHOICE_COUNT = "gen_ai.request.choice.count";
    /// Set to `true` when the answer was asked for as a stream.
    GEN_AI_REQUEST_STREAM = "gen_ai.request.stream";
    /// Seed of the sampling.
    GEN_AI_REQUEST_SEED = "gen_ai.request.seed";
    /// Texts that end the answer.
    GEN_AI_REQUEST_STOP_SEQUENCES = "gen_ai.request.stop_sequences";
    /// How much the model is to think.
    GEN_AI_REQUEST_REASONING_LEVEL = "gen_ai.request.reasoning.level";
    /// The answer that the request goes on from.
    GEN_AI_REQUEST_PREVIOUS_RESPONSE = "gen_ai.request.previous_response.id";
    /// What kind of answer is asked for: `text`, `json`, `image`, `speech`.
    GEN_AI_OUTPUT_TYPE = "gen_ai.output.type";
    /// How the numbers of embeddings are to travel: `float`, `base64`, a list.
    GEN_AI_REQUEST_ENCODING_FORMATS = "gen_ai.request.encoding_formats";
    /// Length of the vectors of embeddings.
    GEN_AI_EMBEDDINGS_DIMENSION_COUNT = "gen_ai.embeddings.dimension.count";
    /// `event_name` of a model call told as an event.
    INFERENCE_DETAILS_EVENT = "gen_ai.client.inference.operation.details";
    /// Model that answered.
    GEN_AI_RESPONSE_MODEL = "gen_ai.response.model";
    /// The provider's id of the answer.
    GEN_AI_RESPONSE_ID = "gen_ai.response.id";
    /// Why the answer ended.
    GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons";
    /// Seconds to the first chunk.
    GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk";
    /// Tokens in, all of them.
    GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens";
    /// Tokens out, all of them.
    GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens";
    /// Older name of the tokens in.
    GEN_AI_USAGE_PROMPT_TOKENS = "gen_ai.usage.prompt_tokens";
    /// Older name of the tokens out.
    GEN_AI_USAGE_COMPLETION_TOKENS = "gen_ai.usage.completion_tokens";
    /// Subset of the tokens in that came from a cache.
    GEN_AI_USAGE_CACHE_READ = "gen_ai.usage.cache_read.input_tokens";
    /// Subset of the tokens in that were written to a cache.
    GEN_AI_USAGE_CACHE_WRITE = "gen_ai.usage.cache_write.input_tokens";
    /// Older name of the tokens written to a cache.
    GEN_AI_USAGE_CACHE_CREATION = "gen_ai.usage.cache_creation.input_tokens";
    /// Subset of the tokens out spent on reasoning.
    GEN_AI_USAGE_REASONING = "gen_ai.usage.reasoning.output_tokens";
    /// Subset of the tokens in that are sound.
    GEN_AI_USAGE_AUDIO_INPUT = "gen_ai.usage.audio.input_tokens";
    /// Subset of the tokens in that are images.
    GEN_AI_USAGE_IMAGE_INPUT = "gen_ai.usage.image.input_tokens";
    /// Subset of the tokens out that are sound.
    GEN_AI_USAGE_AUDIO_OUTPUT = "gen_ai.usage.audio.output_tokens";
    /// Subset of the tokens out that are images.
    GEN_AI_USAGE_IMAGE_OUTPUT = "gen_ai.usage.image.output_tokens";
    /// `input` or `output`, on metrics of the older names.
    GEN_AI_TOKEN_TYPE = "gen_ai.token.type";
    /// `text`, `image`, `audio` or `unknown`, on metrics.
    GEN_AI_TOKEN_MODALITY = "gen_ai.token.modality";
    /// The conversation.
    GEN_AI_CONVERSATION_ID = "gen_ai.conversation.id";
    /// Id of the agent.
    GEN_AI_AGENT_ID = "gen_ai.agent.id";
    /// Name of the agent.
    GEN_AI_AGENT_NAME = "gen_ai.agent.name";
    /// Version of the agent.
    GEN_AI_AGENT_VERSION = "gen_ai.agent.version";
    /// Name of the workflow.
    GEN_AI_WORKFLOW_NAME = "gen_ai.workflow.name";
    /// Name of the tool.
    GEN_AI_TOOL_NAME = "gen_ai.tool.name";
    /// Description of the tool.
    GEN_AI_TOOL_DESCRIPTION = "gen_ai.tool.description";
    /// `function`, `extension` or `datastore`.
    GEN_AI_TOOL_TYPE = "gen_ai.tool.type";
    /// The call that the model asked for.
    GEN_AI_TOOL_CALL_ID = "gen_ai.tool.call.id";
    /// Arguments of the call, JSON.
    GEN_AI_TOOL_CALL_ARGUMENTS = "gen_ai.tool.call.arguments";
    /// Result of the call, JSON.
    GEN_AI_TOOL_CALL_RESULT = "gen_ai.tool.call.result";
    /// Tools that the model may use.
    GEN_AI_TOOL_DEFINITIONS = "gen_ai.tool.definitions";
    /// Messages sent to the model.
    GEN_AI_INPUT_MESSAGES = "gen_ai.input.messages";
    /// Messages that the model answered.
    GEN_AI_OUTPUT_MESSAGES = "gen_ai.output.messages";
    /// Instructions apart from the messages.
    GEN_AI_SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions";
    /// Host of the provider.
    SERVER_ADDRESS = "server.address";
    /// Port of the provider.
    SERVER_PORT = "server.port";
    /// HTTP status that came back.
    HTTP_RESPONSE_STATUS_CODE = "http.response.status_code";

    // OpenTelemetry HTTP and RPC.
    /// `GET`, `POST`, …; `_OTHER` for a method that nobody knows.
    HTTP_REQUEST_METHOD = "http.request.method";
    /// The method that nobody knows.
    HTTP_REQUEST_METHOD_ORIGINAL = "http.request.method_original";
    /// The form of the path that the server matched (`/stock/{item}`).
    HTTP_ROUTE = "http.route";
    /// `http` or `https`.
    URL_SCHEME = "url.scheme";
    /// Path of the request.
    URL_PATH = "url.path";
    /// Address of the request, without user, password and query.
    URL_FULL = "url.full";
    /// The form of the path that the client asked for (`/stock/{item}`).
    URL_TEMPLATE = "url.template";
    /// Version of HTTP: `1.1`, `2`, …
    NETWORK_PROTOCOL_VERSION = "network.protocol.version";
    /// How messages travel: `tcp`, `pipe`, …
    NETWORK_TRANSPORT = "network.transport";
    /// Id of a JSON-RPC request.
    JSONRPC_REQUEST_ID = "jsonrpc.request.id";
    /// Method of an MCP message.
    MCP_METHOD_NAME = "mcp.method.name";
    /// Version of MCP that both sides agreed on.
    MCP_PROTOCOL_VERSION = "mcp.protocol.version";
    /// The session of MCP, as its transport names it.
    MCP_SESSION_ID = "mcp.session.id";
    /// `grpc`, …
    RPC_SYSTEM_NAME = "rpc.system.name";
    /// The remote method, as `package.Service/Method`.
    RPC_METHOD = "rpc.method";
    /// The status of a remote call, by its name: `OK`, `UNAVAILABLE`, …
    RPC_RESPONSE_STATUS_CODE = "rpc.response.status_code";
}

/// Attributes that hold conversation messages or their parts as a JSON list; the store keeps each
/// element once.
pub const MESSAGE_KEYS: [&str; 4] = [
    GEN_AI_INPUT_MESSAGES,
    GEN_AI_OUTPUT_MESSAGES,
    GEN_AI_SYSTEM_INSTRUCTIONS,
    GEN_AI_TOOL_DEFINITIONS,
];
