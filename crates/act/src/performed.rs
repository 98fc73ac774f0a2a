//! What became of an action, in memory and in words.

use std::time::Duration;

use throughline_store::ActionState;
use throughline_trace::Operation;

/// What became of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Performed {
    /// It was done; says what.
    Done(String),
    /// It did not succeed and will not; says why.
    Failed(String),
    /// It may not be done, or no longer fits what is; says why.
    Refused(String),
    /// It would have been done; says what.
    DryRun(String),
    /// It did not succeed now and is tried again; says why.
    Later(String, Duration),
}

impl Performed {
    /// The state that it leaves the action in.
    pub fn state(&self) -> ActionState {
        match self {
            Self::Done(_) => ActionState::Done,
            Self::Failed(_) => ActionState::Failed,
            Self::Refused(_) => ActionState::Refused,
            Self::DryRun(_) => ActionState::DryRun,
            Self::Later(..) => ActionState::Asked,
        }
    }

    /// One sentence about it.
    pub fn detail(&self) -> &str {
        match self {
            Self::Done(detail)
            | Self::Failed(detail)
            | Self::Refused(detail)
            | Self::DryRun(detail)
            | Self::Later(detail, _) => detail,
        }
    }
}

/// What an operation is, on one line, as decisions and lists have it.
pub fn told(operation: &Operation) -> String {
    match operation {
        Operation::Directive { action, .. } => format!("directive {action}"),
        Operation::Weights { weights } => {
            let shares: Vec<String> =
                weights.targets.iter().map(|one| format!("{}={}", one.name, one.weight)).collect();
            format!("weights {} {}", weights.route, shares.join(" "))
        }
        Operation::Start { rollout, version } => format!("start {rollout} with {version}"),
        Operation::RollBack { rollout } => format!("roll_back {rollout}"),
        Operation::Advance { rollout } => format!("advance {rollout}"),
        Operation::Freeze { ttl_s } => format!("freeze for {ttl_s} s"),
        Operation::Investigate => "investigate".to_owned(),
        Operation::HandOver { to } if to.is_empty() => "hand_over to anybody".to_owned(),
        Operation::HandOver { to } => format!("hand_over to {to}"),
        Operation::Notify { receiver } => format!("notify {receiver}"),
        Operation::Workflow { workflow, .. } => format!("workflow {workflow}"),
        Operation::Contract { contract, step } => format!("{} contract {contract}", step.kind()),
    }
}
