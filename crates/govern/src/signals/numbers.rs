//! Quantiles, errors and shapes of numbers.

use throughline_trace::Sketch;

use super::{Estimate, Name};
use crate::statistics::{Binned, Moments};

/// Nanoseconds in a second.
const NANOS: f64 = 1e9;

fn count_of(sketch: &Sketch) -> u64 {
    u64::try_from(sketch.count()).unwrap_or(0)
}

fn seconds_at(name: Name, nanos: &Sketch, share: f64) -> Estimate {
    Estimate::of(name, nanos.quantile(share).map(|nanos| nanos / NANOS), count_of(nanos))
}

/// `agent_decision_latency_p95`, seconds, of the durations (nanoseconds) of steps that bear a decision.
pub fn agent_decision_latency_p95(durations: &Sketch) -> Estimate {
    seconds_at(Name::AgentDecisionLatencyP95, durations, 0.95)
}

/// `intent_resolution_delay_p99`, seconds, of each session's nanoseconds from its start to its first
/// decision of stage `intent-resolved`.
pub fn intent_resolution_delay_p99(delays: &Sketch) -> Estimate {
    seconds_at(Name::IntentResolutionDelayP99, delays, 0.99)
}

/// `forecast_error_mape`, per cent, of forecasts and what came: pairs (forecast, actual). Actuals of 0
/// have no percentage and are left out.
pub fn forecast_error_mape(pairs: impl IntoIterator<Item = (f64, f64)>) -> Estimate {
    let errors: Moments = pairs
        .into_iter()
        .filter(|(_, actual)| *actual != 0.0)
        .map(|(forecast, actual)| 100.0 * ((actual - forecast) / actual).abs())
        .collect();
    let mean = (errors.count > 0).then_some(errors.mean);
    Estimate::of(Name::ForecastErrorMape, mean, errors.count)
}

/// `prompt_token_distribution_skewness` of prompt token counts; missing where all are equal.
pub fn prompt_token_distribution_skewness(tokens: &Sketch) -> Estimate {
    let mut moments = Moments::default();
    for (number, count) in Binned::of_sketch(tokens).bins() {
        moments.add_times(*number, *count);
    }
    Estimate::of(Name::PromptTokenDistributionSkewness, moments.skewness(), moments.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(numbers: impl IntoIterator<Item = u64>) -> Sketch {
        let mut sketch = Sketch::default();
        numbers.into_iter().for_each(|number| sketch.add(number, 1));
        sketch
    }

    #[test]
    fn quantiles_are_seconds_and_need_enough() {
        // 0.1 s to 10 s: the 95th of 100 is 9.5 s, the 99th 9.9 s.
        let hundred = sketch((1..=100).map(|at| at * 100_000_000));
        let p95 = agent_decision_latency_p95(&hundred);
        assert!((p95.usable().expect("enough") - 9.5).abs() < 0.095, "{p95:?}");
        let p99 = intent_resolution_delay_p99(&hundred);
        assert!((p99.usable().expect("enough") - 9.9).abs() < 0.099, "{p99:?}");
        let few = sketch((1..=19).map(|at| at * 100_000_000));
        assert_eq!(agent_decision_latency_p95(&few).usable(), None);
        assert!(agent_decision_latency_p95(&few).value.is_some(), "it can be shown");
    }

    #[test]
    fn percentages_of_nothing_are_left_out() {
        let error = forecast_error_mape([(90.0, 100.0), (130.0, 100.0), (5.0, 0.0)]);
        assert_eq!((error.usable(), error.count), (Some(20.0), 2));
        assert_eq!(forecast_error_mape([(5.0, 0.0)]).usable(), None);
    }

    #[test]
    fn a_long_tail_is_skewed_to_the_right() {
        let even = prompt_token_distribution_skewness(&sketch((0..200).map(|at| 500 + at)));
        assert!(even.usable().expect("enough").abs() < 0.1, "{even:?}");
        let tail = sketch((0..200).map(|at| if at % 20 == 0 { 20_000 } else { 500 }));
        // Ten of 200 far out: (1 − 2p) / √(p (1 − p)) with p = 0.05, 4.129, and G₁ a little more.
        let tail = prompt_token_distribution_skewness(&tail).usable().expect("enough");
        assert!((tail - 4.161).abs() < 0.01, "{tail}");
        assert_eq!(prompt_token_distribution_skewness(&sketch([7; 150])).usable(), None);
    }
}
