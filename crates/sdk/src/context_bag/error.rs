//! Why a field could not be put into a bag or given to a tool. No message has a field's value.

use throughline_trace::ErrorType;

use super::schema::SourceLayer;
use crate::resilient::Fault;

/// Why a field could not be put into a [`ContextBag`](super::ContextBag), or given to a tool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BagError {
    /// The bag's schema has no such field.
    #[error("expected a field of the bag's schema ({}), got {field:?}; declare it with BagSchema::with", known.join(", "))]
    Unknown {
        /// What was asked for.
        field: String,
        /// What the schema has.
        known: Vec<String>,
    },
    /// Another layer than the declared one wrote the field.
    #[error("expected {field} from the {declared} layer, got it from {got}")]
    WrongSource {
        /// The field.
        field: String,
        /// Where it comes from by the schema.
        declared: SourceLayer,
        /// Who wrote it.
        got: SourceLayer,
    },
    /// The value does not fit the field's schema.
    #[error("expected {field} to fit its schema: {reason}")]
    Malformed {
        /// The field.
        field: String,
        /// Where and what, without the value.
        reason: String,
    },
    /// A tool needs the field, and nobody set it.
    #[error(
        "expected the context field {field} for {tool}, got none; set it on the ContextBag before the tool is called"
    )]
    Missing {
        /// The field.
        field: String,
        /// The tool.
        tool: String,
    },
    /// A tool needs the field, which was given to this hop alone.
    #[error(
        "expected the context field {field} for {tool}, got none: it does not pass through to further hops; set it anew"
    )]
    Withheld {
        /// The field.
        field: String,
        /// The tool.
        tool: String,
    },
    /// A tool needs a field that asks for consent, and nobody authorised it.
    #[error(
        "expected {field} to be authorised before {tool} is given it; call ContextBag::authorise"
    )]
    NotAuthorised {
        /// The field.
        field: String,
        /// The tool.
        tool: String,
    },
    /// The schema of a field is none.
    #[error("expected a JSON Schema for {field}: {reason}")]
    Schema {
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What came is no bag.
    #[error("expected a throughline.context_bag of version 1: {reason}")]
    Form {
        /// What is wrong with it.
        reason: String,
    },
    /// The bag is too large to be carried.
    #[error(
        "expected a context bag of at most {limit_bytes} bytes, got {bytes}; declare fewer or shorter fields"
    )]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        limit_bytes: usize,
    },
}

impl BagError {
    /// The field that it is about, where it is about one.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Unknown { field, .. }
            | Self::WrongSource { field, .. }
            | Self::Malformed { field, .. }
            | Self::Missing { field, .. }
            | Self::Withheld { field, .. }
            | Self::NotAuthorised { field, .. }
            | Self::Schema { field, .. } => Some(field),
            Self::Form { .. } | Self::TooLarge { .. } => None,
        }
    }
}

impl Fault for BagError {
    fn error_type(&self) -> ErrorType {
        match self {
            Self::NotAuthorised { .. } => ErrorType::PolicyRejected,
            Self::Form { .. } => ErrorType::InvalidRequest,
            _ => ErrorType::InvalidArguments,
        }
    }
}
