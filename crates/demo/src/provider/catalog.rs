//! The models that the simulated provider offers, and how fast each of them is.

use std::time::Duration;

use super::fault::Fault;

/// One model of the catalogue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Model {
    /// What callers ask for.
    pub(crate) id: &'static str,
    /// The dated name that answers bear.
    pub(crate) snapshot: &'static str,
    /// What it does.
    pub(crate) kind: Kind,
}

/// What a model does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Chat completions.
    Chat {
        /// Tokens a second.
        tokens_per_second: f64,
        /// Milliseconds before the first token.
        first_token_ms: u64,
        /// Whether it spends tokens on thinking before it answers.
        thinks: bool,
        /// A fault that every request meets; callers pick such a model to see how they cope.
        cue: Option<Fault>,
    },
    /// Embeddings of this many dimensions at most.
    Embedding {
        /// Numbers in a vector.
        dimensions: usize,
    },
}

impl Model {
    /// The model that a caller means, by its short or dated name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        MODELS.iter().find(|model| model.id == name || model.snapshot == name)
    }
}

const fn chat(
    id: &'static str,
    snapshot: &'static str,
    tokens_per_second: f64,
    first_token_ms: u64,
    thinks: bool,
) -> Model {
    Model {
        id,
        snapshot,
        kind: Kind::Chat { tokens_per_second, first_token_ms, thinks, cue: None },
    }
}

const fn cue(id: &'static str, fault: Fault) -> Model {
    let kind = Kind::Chat {
        tokens_per_second: 80.0,
        first_token_ms: 200,
        thinks: false,
        cue: Some(fault),
    };
    Model { id, snapshot: id, kind }
}

const fn embedding(id: &'static str, dimensions: usize) -> Model {
    Model { id, snapshot: id, kind: Kind::Embedding { dimensions } }
}

/// Every model, in the order of `GET /v1/models`.
pub(crate) const MODELS: &[Model] = &[
    chat("gpt-4o", "gpt-4o-2024-08-06", 62.0, 480, false),
    chat("gpt-4o-mini", "gpt-4o-mini-2024-07-18", 96.0, 320, false),
    chat("gpt-4.1", "gpt-4.1-2025-04-14", 70.0, 450, false),
    chat("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14", 104.0, 310, false),
    chat("gpt-4.1-nano", "gpt-4.1-nano-2025-04-14", 140.0, 210, false),
    chat("o3", "o3-2025-04-16", 88.0, 700, true),
    chat("o4-mini", "o4-mini-2025-04-16", 130.0, 520, true),
    chat("claude-sonnet-4-5", "claude-sonnet-4-5-20250929", 68.0, 620, false),
    chat("claude-haiku-4-5", "claude-haiku-4-5-20251001", 150.0, 340, false),
    embedding("text-embedding-3-small", 1536),
    embedding("text-embedding-3-large", 3072),
    cue("sim-rate-limited", Fault::RateLimited { retry_after_secs: 1 }),
    cue("sim-server-error", Fault::ServerError),
    cue("sim-overloaded", Fault::Overloaded),
    cue("sim-hangs", Fault::Hangs),
    cue("sim-cut-stream", Fault::CutStream { abrupt: false }),
    cue("sim-broken-connection", Fault::CutStream { abrupt: true }),
    cue("sim-content-filter", Fault::ContentFilter),
];

/// Tokens a second of a model whose own speed is unknown.
pub(crate) const DEFAULT_TOKENS_PER_SECOND: f64 = 60.0;

/// How long a model thinks or starts up before the first token.
pub(crate) fn first_token_delay(
    first_token_ms: u64,
    thinking_tokens: u64,
    per_second: f64,
) -> Duration {
    let thinking = thinking_tokens as f64 / (per_second.max(1.0) * THINKING_SPEEDUP);
    Duration::from_millis(first_token_ms) + Duration::from_secs_f64(thinking)
}

/// Thinking is never shown, and models do it faster than they speak.
const THINKING_SPEEDUP: f64 = 2.0;
