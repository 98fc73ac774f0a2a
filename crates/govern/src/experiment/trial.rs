//! An A/B experiment with a metric, guardrails and a verdict.

use serde::{Deserialize, Serialize};

use super::{Difference, Sequential, SplitCheck, check_split, sequential_difference};
use crate::signals::Direction;
use crate::statistics::Moments;

/// p-value below which traffic was not divided as intended.
const MAX_SPLIT_P_VALUE: f64 = 0.001;

/// A side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// What runs.
    Control,
    /// What is tried.
    Treatment,
}

/// What an experiment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Not known yet, or not to be known: traffic was not divided as intended.
    Undecided,
    /// The treatment is better, and no guardrail is breached.
    Treatment,
    /// The control is better, or the treatment breaches a guardrail.
    Control,
    /// They differ by less than matters.
    NoDifference,
}

impl Verdict {
    /// `undecided`, `treatment`, `control` or `no_difference`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undecided => "undecided",
            Self::Treatment => "treatment",
            Self::Control => "control",
            Self::NoDifference => "no_difference",
        }
    }
}

/// What is measured, and when it is decided. An observation is one of the units that were divided
/// (a session, a user): several of one unit are averaged first, since they are not independent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentConfig {
    /// Name of the metric.
    pub metric: String,
    /// Which way the metric gets worse; up or down.
    pub direction: Direction,
    /// Whether observations are 0 or 1.
    pub is_rate: bool,
    /// Chance of ever calling a difference where there is none, 0 to 1.
    pub alpha: f64,
    /// The least difference that matters, in the unit of the metric.
    pub min_effect: f64,
    /// Units a side below which nothing is decided.
    pub min_units: u64,
    /// Intended share of the treatment, 0 to 1.
    pub treatment_share: f64,
    /// Metrics that must not get worse.
    pub guardrails: Vec<Guardrail>,
}

/// A metric that the treatment must not make worse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guardrail {
    /// Its name.
    pub metric: String,
    /// Which way it gets worse; up or down.
    pub direction: Direction,
    /// Whether observations are 0 or 1.
    pub is_rate: bool,
    /// How much worse is tolerated, in its unit.
    pub tolerance: f64,
}

/// How a guardrail stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuardrailResult {
    /// Its name.
    pub metric: String,
    /// The difference; `None` before there is one.
    pub difference: Option<Difference>,
    /// Whether the treatment makes it worse by more than is tolerated, for sure.
    pub is_breached: bool,
}

/// What is known of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExperimentResult {
    /// The verdict.
    pub verdict: Verdict,
    /// Why, one sentence for people.
    pub reason: String,
    /// The difference of the metric; `None` before there is one.
    pub difference: Option<Difference>,
    /// Units of the control.
    pub control_units: u64,
    /// Units of the treatment.
    pub treatment_units: u64,
    /// Whether traffic was divided as intended; `None` where the intended share is no share.
    pub split: Option<SplitCheck>,
    /// The guardrails.
    pub guardrails: Vec<GuardrailResult>,
}

impl ExperimentConfig {
    /// For a rate where more is better, without guardrails, half and half, α = 5 %.
    pub fn for_rate(min_effect: f64) -> Self {
        Self {
            metric: "success_rate".to_owned(),
            direction: Direction::DownIsBad,
            is_rate: true,
            alpha: 0.05,
            min_effect,
            min_units: 100,
            treatment_share: 0.5,
            guardrails: Vec::new(),
        }
    }
}

/// An experiment with what it has seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    config: ExperimentConfig,
    metric: Sequential,
    guardrails: Vec<Sequential>,
}

impl Experiment {
    /// One that has seen nothing yet.
    pub fn new(config: ExperimentConfig) -> Self {
        let guardrails = vec![Sequential::default(); config.guardrails.len()];
        Self { config, metric: Sequential::default(), guardrails }
    }

    /// What is measured.
    pub fn config(&self) -> &ExperimentConfig {
        &self.config
    }

    /// Takes a unit's metric in; a number that is not finite is left out.
    pub fn observe(&mut self, arm: Arm, value: f64) {
        side(&mut self.metric, arm).add(value);
    }

    /// Takes what was added up elsewhere in.
    pub fn merge(&mut self, arm: Arm, part: &Moments) {
        side(&mut self.metric, arm).merge(part);
    }

    /// Takes a unit's value of a guardrail in, by the guardrail's place in the configuration; one that is
    /// not there is left out.
    pub fn observe_guardrail(&mut self, place: usize, arm: Arm, value: f64) {
        if let Some(of) = self.guardrails.get_mut(place) {
            side(of, arm).add(value);
        }
    }

    /// What is known now. It may be asked as often as one likes.
    pub fn result(&self) -> ExperimentResult {
        let config = &self.config;
        let (control, treatment) = (self.metric.control.count, self.metric.treatment.count);
        let difference =
            sequential_difference(&self.metric, config.alpha, config.min_effect, config.is_rate);
        let shares = [1.0 - config.treatment_share, config.treatment_share];
        let split = check_split(&[control, treatment], &shares, MAX_SPLIT_P_VALUE);
        let guardrails = self.guardrail_results();
        let (verdict, reason) = self.verdict(difference, split, &guardrails);
        ExperimentResult {
            verdict,
            reason,
            difference,
            control_units: control,
            treatment_units: treatment,
            split,
            guardrails,
        }
    }

    fn guardrail_results(&self) -> Vec<GuardrailResult> {
        let count = self.guardrails.len().max(1) as f64;
        let of = |(guardrail, seen): (&Guardrail, &Sequential)| {
            // Each gets its part of α, so that all of them together keep to it.
            let alpha = self.config.alpha / count;
            let tau = guardrail.tolerance.max(self.spread_of(seen));
            let difference = sequential_difference(seen, alpha, tau, guardrail.is_rate);
            let is_enough = self.is_enough(seen);
            let is_breached = is_enough
                && difference.is_some_and(|difference| match guardrail.direction {
                    Direction::DownIsBad => difference.high < -guardrail.tolerance,
                    Direction::UpIsBad => difference.low > guardrail.tolerance,
                    Direction::EitherIsBad => {
                        difference.high < -guardrail.tolerance
                            || difference.low > guardrail.tolerance
                    }
                });
            GuardrailResult { metric: guardrail.metric.clone(), difference, is_breached }
        };
        self.config.guardrails.iter().zip(&self.guardrails).map(of).collect()
    }

    /// A tenth of a standard deviation: effects of this size are expected where nothing is tolerated.
    fn spread_of(&self, seen: &Sequential) -> f64 {
        seen.control.variance().unwrap_or(0.0).sqrt() * 0.1
    }

    fn is_enough(&self, seen: &Sequential) -> bool {
        let least = self.config.min_units.max(2);
        seen.control.count >= least && seen.treatment.count >= least
    }

    fn verdict(
        &self,
        difference: Option<Difference>,
        split: Option<SplitCheck>,
        guardrails: &[GuardrailResult],
    ) -> (Verdict, String) {
        let config = &self.config;
        let (control, treatment) = (self.metric.control.count, self.metric.treatment.count);
        if let Some(split) = split.filter(|split| split.is_mismatch) {
            let reason = format!(
                "traffic was not divided as intended: {control} to {treatment} units where {} of the \
                 traffic was meant for the treatment (p = {:.2e}), so the sides cannot be compared",
                config.treatment_share, split.p_value
            );
            return (Verdict::Undecided, reason);
        }
        if let Some(breached) = guardrails.iter().find(|guardrail| guardrail.is_breached) {
            let reason = format!("the treatment makes {} worse than is tolerated", breached.metric);
            return (Verdict::Control, reason);
        }
        let known = difference.filter(|_| self.is_enough(&self.metric));
        let Some(difference) = known else {
            let least = config.min_units;
            let reason =
                format!("needs at least {least} units a side, has {control} and {treatment}");
            return (Verdict::Undecided, reason);
        };
        let Difference { difference: effect, low, high, .. } = difference;
        let interval = format!(
            "{} differs by {effect:.4} ({low:.4} to {high:.4}) after {control} and {treatment} units",
            config.metric
        );
        if low > -config.min_effect && high < config.min_effect {
            return (Verdict::NoDifference, format!("{interval}: less than matters"));
        }
        if !difference.is_significant() {
            return (Verdict::Undecided, format!("{interval}: it can be none yet"));
        }
        if effect.abs() < config.min_effect {
            return (Verdict::Undecided, format!("{interval}: it is not known whether it matters"));
        }
        match config.direction.is_worse(effect) {
            true => (Verdict::Control, format!("{interval}: worse")),
            false => (Verdict::Treatment, format!("{interval}: better")),
        }
    }
}

fn side(of: &mut Sequential, arm: Arm) -> &mut Moments {
    match arm {
        Arm::Control => &mut of.control,
        Arm::Treatment => &mut of.treatment,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Random;

    /// Looks after every batch; answers the first verdict that is no `Undecided`, and after how many units
    /// a side.
    fn run(
        random: &mut Random,
        config: ExperimentConfig,
        rates: [f64; 2],
        units: u64,
    ) -> (Verdict, u64) {
        let mut experiment = Experiment::new(config);
        for at in 1..=units {
            for (arm, rate) in [Arm::Control, Arm::Treatment].into_iter().zip(rates) {
                experiment.observe(arm, f64::from(u8::from(random.uniform() < rate)));
            }
            if at % 25 == 0 {
                let verdict = experiment.result().verdict;
                if verdict != Verdict::Undecided {
                    return (verdict, at);
                }
            }
        }
        (Verdict::Undecided, units)
    }

    #[test]
    fn peeking_after_each_batch_keeps_false_positives_below_alpha() {
        let mut random = Random::new(101);
        let runs = 400;
        // An effect of two points matters, so no run ends early with "no difference".
        let config = ExperimentConfig::for_rate(0.02);
        let wrong = (0..runs).filter(|_| {
            let (verdict, _) = run(&mut random, config.clone(), [0.8, 0.8], 2_000);
            matches!(verdict, Verdict::Treatment | Verdict::Control)
        });
        let wrong = wrong.count();
        // α is 5 %: 20 of 400.
        assert!(wrong <= 20, "{wrong} of {runs}");
    }

    #[test]
    fn a_fixed_test_would_have_failed_that() {
        // What the test above is there for: the same peeking with |z| > 1.96.
        let mut random = Random::new(101);
        let wrong = (0..200).filter(|_| {
            let mut good = [0_u64; 2];
            (1..=2_000_u64).any(|at| {
                good.iter_mut().for_each(|good| *good += u64::from(random.uniform() < 0.8));
                let both = [(good[0], at), (good[1], at)];
                let side = crate::statistics::Side::Both;
                at >= 100
                    && at % 25 == 0
                    && crate::statistics::two_proportions(both[0], both[1], side)
                        .is_some_and(|test| test.p_value < 0.05)
            })
        });
        assert!(wrong.count() > 40, "more than four times α");
    }

    #[test]
    fn a_true_difference_is_found_and_a_small_one_let_be() {
        let mut random = Random::new(102);
        let better = run(&mut random, ExperimentConfig::for_rate(0.05), [0.70, 0.85], 5_000);
        assert!(better.0 == Verdict::Treatment && better.1 < 1_500, "{better:?}");
        let worse = run(&mut random, ExperimentConfig::for_rate(0.05), [0.85, 0.70], 5_000);
        assert_eq!(worse.0, Verdict::Control);
        let same = run(&mut random, ExperimentConfig::for_rate(0.05), [0.80, 0.80], 20_000);
        assert_eq!(same.0, Verdict::NoDifference, "{same:?}");
        assert_eq!(
            run(&mut random, ExperimentConfig::for_rate(0.05), [0.1, 0.9], 75).0,
            Verdict::Undecided
        );
    }

    #[test]
    fn means_of_long_tails_keep_to_alpha_too() {
        let mut random = Random::new(103);
        let runs = 200;
        let config = ExperimentConfig {
            metric: "latency".to_owned(),
            direction: Direction::UpIsBad,
            is_rate: false,
            min_effect: 0.05,
            ..ExperimentConfig::for_rate(0.05)
        };
        let wrong = (0..runs).filter(|_| {
            let mut experiment = Experiment::new(config.clone());
            (1..=1_500).any(|at| {
                for arm in [Arm::Control, Arm::Treatment] {
                    experiment.observe(arm, 0.4 * (0.5 * random.normal()).exp());
                }
                let verdict = (at % 25 == 0).then(|| experiment.result().verdict);
                matches!(verdict, Some(Verdict::Treatment | Verdict::Control))
            })
        });
        let wrong = wrong.count();
        assert!(wrong <= 10, "{wrong} of {runs}");
    }

    #[test]
    fn guardrails_and_splits_come_first() {
        let mut random = Random::new(104);
        let latency = Guardrail {
            metric: "latency".to_owned(),
            direction: Direction::UpIsBad,
            is_rate: false,
            tolerance: 0.1,
        };
        let config =
            ExperimentConfig { guardrails: vec![latency], ..ExperimentConfig::for_rate(0.05) };
        let mut experiment = Experiment::new(config);
        for _ in 0..600 {
            for (arm, rate, seconds) in [(Arm::Control, 0.7, 0.4), (Arm::Treatment, 0.9, 1.2)] {
                experiment.observe(arm, f64::from(u8::from(random.uniform() < rate)));
                let latency = seconds * (0.4 * random.normal()).exp();
                experiment.observe_guardrail(0, arm, latency);
                experiment.observe_guardrail(7, arm, latency);
            }
        }
        let result = experiment.result();
        assert_eq!(result.verdict, Verdict::Control, "{}", result.reason);
        assert_eq!(result.reason, "the treatment makes latency worse than is tolerated");
        (0..400).for_each(|_| experiment.observe(Arm::Treatment, 1.0));
        let result = experiment.result();
        assert_eq!(result.verdict, Verdict::Undecided);
        assert!(
            result.reason.starts_with("traffic was not divided as intended"),
            "{}",
            result.reason
        );
    }
}
