//! What a verification says: what it walked, and what differs.

use std::fmt;

use serde::Serialize;
use throughline_trace::DecisionId;

/// Most problems that one report names; the rest are counted.
pub const MAX_PROBLEMS: usize = 1_000;

/// In which way something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProblemKind {
    /// A field, the content or a link is not what it was.
    Changed,
    /// A record or its content is gone, and nothing says that it was erased or retired.
    Missing,
    /// A record stands at another number than it was made for.
    Reordered,
    /// The chain ends before a record that something vouches for.
    Truncated,
    /// Something was put in beside the chain.
    Inserted,
    /// The chain is another one than a checkpoint or anchor vouches for.
    Rewritten,
    /// A statement or a record is not made with a key that is trusted.
    Signature,
    /// A key that is needed was not given.
    Key,
    /// A row cannot be read.
    Unreadable,
}

impl ProblemKind {
    /// Lowercase name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Reordered => "reordered",
            Self::Truncated => "truncated",
            Self::Inserted => "inserted",
            Self::Rewritten => "rewritten",
            Self::Signature => "signature",
            Self::Key => "key",
            Self::Unreadable => "unreadable",
        }
    }
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// In which way.
    pub kind: ProblemKind,
    /// Chain number of the record.
    pub number: Option<u64>,
    /// The decision of the record.
    pub decision_id: Option<DecisionId>,
    /// What differs: what was expected, what is there.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        if let Some(number) = self.number {
            write!(f, ": record {number}")?;
        }
        if let Some(id) = self.decision_id {
            write!(f, ", decision {id}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What one anchor said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AnchorFinding {
    /// Which anchor.
    pub name: String,
    /// Checkpoints that were read from it.
    pub checkpoints: u64,
    /// Those that agree with the chain.
    pub agreed: u64,
    /// The highest record that it vouches for.
    pub highest_number: u64,
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Id of the log.
    pub log: String,
    /// Number of the record at the head; 0 for an empty chain.
    pub head_number: u64,
    /// Its link, hexadecimal.
    pub head: String,
    /// Records that were walked.
    pub records: u64,
    /// Decisions among them whose content is there.
    pub decisions: u64,
    /// Decisions whose content was erased.
    pub erased: u64,
    /// Records that retention took, behind signed bridges.
    pub retired: u64,
    /// Checkpoints in the database.
    pub checkpoints: u64,
    /// Number of the newest checkpoint.
    pub last_checkpoint_number: Option<u64>,
    /// What each anchor said.
    pub anchors: Vec<AnchorFinding>,
    /// What differs, in the order of the walk.
    pub problems: Vec<Problem>,
    /// Problems beyond [`MAX_PROBLEMS`].
    pub further_problems: u64,
    /// When it began, nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// How long it took, milliseconds.
    pub took_ms: u64,
}

impl Verification {
    /// Whether nothing differs.
    pub fn is_good(&self) -> bool {
        self.problem_count() == 0
    }

    /// All problems, named and not named.
    pub fn problem_count(&self) -> u64 {
        self.problems.len() as u64 + self.further_problems
    }

    pub(crate) fn add(
        &mut self,
        kind: ProblemKind,
        number: Option<u64>,
        decision_id: Option<DecisionId>,
        what: impl Into<String>,
    ) {
        if self.problems.len() >= MAX_PROBLEMS {
            self.further_problems += 1;
            return;
        }
        self.problems.push(Problem { kind, number, decision_id, what: what.into() });
    }
}
