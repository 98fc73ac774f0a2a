//! The fields that a query may name.

/// Fields that hold names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameField {
    /// An agent that some span or decision names.
    Agent,
    /// A session.
    Session,
    /// A user.
    User,
    /// A model that answered.
    Model,
    /// A service that sent spans.
    Service,
    /// A tool that ran.
    Tool,
    /// Type of an error.
    ErrorType,
    /// Name of the span that stands for the trace.
    Name,
    /// Its business outcome.
    Outcome,
    /// Id of the trace.
    Trace,
    /// Name of any span.
    Span,
}

/// Fields that hold numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NumberField {
    /// Tokens in and out.
    Tokens,
    /// Tokens in.
    InputTokens,
    /// Tokens out.
    OutputTokens,
    /// US dollars.
    Cost,
    /// From the earliest start to the latest end, nanoseconds.
    Duration,
    /// Spans.
    Spans,
    /// Failed spans.
    Errors,
    /// Model calls.
    LlmCalls,
    /// Tool runs.
    ToolCalls,
    /// Attempts beyond the first.
    Retries,
    /// Decisions.
    Decisions,
    /// Log records.
    Logs,
}

/// What a name in a query stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Name(NameField),
    Number(NumberField),
    Start,
    Since,
    Until,
    Error,
    Status,
    Fallback,
}

const FIELDS: [(&str, Field); 29] = [
    ("agent", Field::Name(NameField::Agent)),
    ("session", Field::Name(NameField::Session)),
    ("user", Field::Name(NameField::User)),
    ("model", Field::Name(NameField::Model)),
    ("service", Field::Name(NameField::Service)),
    ("tool", Field::Name(NameField::Tool)),
    ("error.type", Field::Name(NameField::ErrorType)),
    ("name", Field::Name(NameField::Name)),
    ("outcome", Field::Name(NameField::Outcome)),
    ("trace", Field::Name(NameField::Trace)),
    ("span", Field::Name(NameField::Span)),
    ("tokens", Field::Number(NumberField::Tokens)),
    ("input_tokens", Field::Number(NumberField::InputTokens)),
    ("output_tokens", Field::Number(NumberField::OutputTokens)),
    ("cost", Field::Number(NumberField::Cost)),
    ("duration", Field::Number(NumberField::Duration)),
    ("spans", Field::Number(NumberField::Spans)),
    ("errors", Field::Number(NumberField::Errors)),
    ("llm_calls", Field::Number(NumberField::LlmCalls)),
    ("tool_calls", Field::Number(NumberField::ToolCalls)),
    ("retries", Field::Number(NumberField::Retries)),
    ("decisions", Field::Number(NumberField::Decisions)),
    ("logs", Field::Number(NumberField::Logs)),
    ("start", Field::Start),
    ("since", Field::Since),
    ("until", Field::Until),
    ("error", Field::Error),
    ("status", Field::Status),
    ("fallback", Field::Fallback),
];

/// Names up to this long are near a field when one letter is wrong; longer ones may have two.
const SHORT_NAME_CHARS: usize = 5;

impl Field {
    /// The field of this name.
    pub(super) fn find(name: &str) -> Option<Self> {
        FIELDS.iter().find(|(known, _)| *known == name).map(|(_, field)| *field)
    }

    /// The field that somebody probably meant.
    pub(super) fn near(name: &str) -> Option<&'static str> {
        let name: Vec<char> = name.to_lowercase().chars().collect();
        let most = if name.len() <= SHORT_NAME_CHARS { 1 } else { 2 };
        FIELDS
            .iter()
            .map(|(known, _)| (distance(&name, &known.chars().collect::<Vec<_>>()), *known))
            .filter(|(distance, _)| *distance <= most)
            .min()
            .map(|(_, known)| known)
    }
}

#[cfg(test)]
fn name_of(field: Field) -> &'static str {
    FIELDS.iter().find(|(_, known)| *known == field).map_or("", |(name, _)| name)
}

#[cfg(test)]
impl NameField {
    /// As a query writes it.
    pub(crate) fn as_str(self) -> &'static str {
        name_of(Field::Name(self))
    }
}

#[cfg(test)]
impl NumberField {
    /// As a query writes it.
    pub(crate) fn as_str(self) -> &'static str {
        name_of(Field::Number(self))
    }
}

/// Letters to change, add, leave out or swap with their neighbour, to get from one to the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
