//! The traces of one minute by their agent, and how many of them are looked at: those who read them whole share one bound.

use std::collections::BTreeMap;

use throughline_govern::trace_agent;
use throughline_store::{Reader, TraceFilter};
use throughline_trace::TraceSummary;

use super::signals::summaries;
use super::{MINUTE_NANOS, RoundError};

/// Traces of one minute that are looked at, the newest.
const MAX_TRACES: usize = 1_000;

/// Traces of one minute that are read whole, the newest of each agent.
const MAX_WHOLE_TRACES: usize = 200;

/// By how many agents the place moves at which a minute begins.
const AGENTS_A_TURN: usize = 20;

/// The traces that began in a minute (since the Unix epoch) by agent, the newest first. Those of nobody are left out.
pub(super) async fn of_minute(
    reader: &Reader,
    minute: u64,
) -> Result<BTreeMap<String, Vec<TraceSummary>>, RoundError> {
    let filter = TraceFilter {
        start_after_unix_nano: Some(minute * MINUTE_NANOS),
        start_before_unix_nano: Some((minute + 1) * MINUTE_NANOS),
        ..TraceFilter::default()
    };
    let (all, _) = summaries(reader, &filter, MAX_TRACES).await?;
    let mut found: BTreeMap<String, Vec<TraceSummary>> = BTreeMap::new();
    for summary in all {
        if let Some(agent) = trace_agent(&summary).map(str::to_owned) {
            found.entry(agent).or_default().push(summary);
        }
    }
    Ok(found)
}

/// All of them in the order of their names, from another one on each minute: where only some can be served, everybody
/// is in time.
pub(super) fn in_turn<T>(
    of: &BTreeMap<String, T>,
    minute: u64,
) -> impl Iterator<Item = (&String, &T)> {
    let turn = usize::try_from(minute).unwrap_or(0).wrapping_mul(AGENTS_A_TURN);
    let begin = turn.checked_rem(of.len()).unwrap_or(0);
    of.iter().skip(begin).chain(of.iter().take(begin))
}

/// What is left of the traces of a minute that may be read whole.
pub(super) struct WholeTraces {
    left: usize,
    each: usize,
}

impl WholeTraces {
    /// Shared by so many agents.
    pub(super) fn of(agents: usize) -> Self {
        let each = (MAX_WHOLE_TRACES / agents.max(1)).max(1);
        Self { left: MAX_WHOLE_TRACES, each }
    }

    /// How many the next agent may have, which has so many.
    pub(super) fn take(&mut self, has: usize) -> usize {
        let taken = has.min(self.each).min(self.left);
        self.left -= taken;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_whole_than_is_said_and_everybody_has_a_turn() {
        let agents: BTreeMap<String, usize> = (0..700).map(|at| (format!("{at:03}"), 3)).collect();
        let mut reads: BTreeMap<&str, usize> = BTreeMap::new();
        for minute in 1_000..1_035 {
            let (mut whole, mut of_minute) = (WholeTraces::of(agents.len()), 0);
            for (agent, has) in in_turn(&agents, minute) {
                let taken = whole.take(*has);
                *reads.entry(agent.as_str()).or_default() += taken;
                of_minute += taken;
            }
            assert_eq!(of_minute, MAX_WHOLE_TRACES);
        }
        assert_eq!(reads.len(), 700);
        assert!(reads.values().all(|reads| *reads > 0), "those late in the alphabet too");
        let mut few = WholeTraces::of(3);
        assert_eq!([few.take(100), few.take(10), few.take(100)], [66, 10, 66]);
        assert_eq!(WholeTraces::of(0).take(0), 0);
        assert_eq!(in_turn(&BTreeMap::<String, ()>::new(), 7).count(), 0);
    }
}
