//! What of a trace is compared with others: features that are unusual together, although each may be within its
//! range.

use throughline_trace::TraceSummary;

/// Features of a trace.
pub const TRACE_FEATURES: usize = 7;

/// The features of a trace, as logarithms because all have long tails: how long it took (milliseconds), tokens in
/// and out, model calls, tool runs, spans, and attempts beyond the first.
pub fn trace_features(of: &TraceSummary) -> [f64; TRACE_FEATURES] {
    let counts = [
        of.duration_nano() / 1_000_000,
        of.input_tokens,
        of.output_tokens,
        of.llm_calls,
        of.tool_calls,
        of.span_count,
        of.retries,
    ];
    counts.map(|count| (count as f64).ln_1p())
}

/// The agent that a trace counts for: the one that its first span names, else the one that is named alone.
pub fn trace_agent(of: &TraceSummary) -> Option<&str> {
    let root = of.root.as_ref().and_then(|root| root.agent.as_deref());
    root.or_else(|| {
        let mut agents = of.agents.iter();
        match (agents.next(), agents.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        }
    })
}
