//! A request for embeddings, and its answer: one vector for each input.

use serde_json::{Map, Value};
use throughline_trace::Usage;

use crate::chat::RateLimits;

/// What is asked of a model of embeddings.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EmbeddingRequest {
    /// The model.
    pub model: String,
    /// What is to be embedded.
    pub inputs: Vec<EmbeddingInput>,
    /// Length that the vectors shall have, for models that can shorten them.
    pub dimensions: Option<u32>,
    /// How the numbers shall travel; as the provider likes (`float`) when not said.
    pub encoding_format: Option<EncodingFormat>,
    /// Who the request is for, as the provider may know it.
    pub user: Option<String>,
    /// Fields of the wire form that we do not know, kept.
    pub extra: Map<String, Value>,
}

impl EmbeddingRequest {
    /// A request without inputs.
    pub fn new(model: impl Into<String>) -> Self {
        Self { model: model.into(), ..Self::default() }
    }

    /// Adds a text.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.inputs.push(EmbeddingInput::Text(text.into()));
        self
    }

    /// Adds texts.
    #[must_use]
    pub fn texts(mut self, texts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.inputs.extend(texts.into_iter().map(|text| EmbeddingInput::Text(text.into())));
        self
    }

    /// Adds a text that is in tokens already.
    #[must_use]
    pub fn tokens(mut self, tokens: impl Into<Vec<u32>>) -> Self {
        self.inputs.push(EmbeddingInput::Tokens(tokens.into()));
        self
    }

    /// Sets the length of the vectors.
    #[must_use]
    pub fn dimensions(mut self, dimensions: u32) -> Self {
        self.dimensions = Some(dimensions);
        self
    }

    /// Sets how the numbers travel.
    #[must_use]
    pub fn encoding_format(mut self, format: EncodingFormat) -> Self {
        self.encoding_format = Some(format);
        self
    }

    /// Says who the request is for.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }
}

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbeddingInput {
    /// A text.
    Text(String),
    /// A text as the model's tokens.
    Tokens(Vec<u32>),
}

/// How the numbers of vectors travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EncodingFormat {
    /// As JSON numbers.
    Float,
    /// As base64 of 32-bit floats, little-endian: a quarter of the bytes.
    Base64,
}

impl EncodingFormat {
    /// The name on the wire, and in `gen_ai.request.encoding_formats`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Base64 => "base64",
        }
    }
}

/// What a model of embeddings answers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EmbeddingResponse {
    /// The model that answered; empty if not said.
    pub model: String,
    /// One vector for each input, in their order.
    pub embeddings: Vec<Vec<f32>>,
    /// Tokens, if the provider said; there are none out.
    pub usage: Option<Usage>,
    /// The HTTP status of the answer, when it came over HTTP.
    pub status_code: Option<u16>,
    /// Whether a gateway answered out of its cache.
    pub is_cached: bool,
    /// What is left of the caller's rate limits, if the provider said.
    pub limits: Option<RateLimits>,
}

impl EmbeddingResponse {
    /// Length of the vectors; `None` when there is no vector.
    pub fn dimensions(&self) -> Option<usize> {
        self.embeddings.first().map(Vec::len)
    }

    /// Whether this answers the request.
    ///
    /// # Errors
    /// [`EmbeddingFault`] when there is not one vector for each input, a vector has not the length
    /// that was asked for or that of the first, or a number of one is not finite.
    pub fn check(&self, request: &EmbeddingRequest) -> Result<(), EmbeddingFault> {
        let (expected, got) = (request.inputs.len(), self.embeddings.len());
        if expected != got {
            return Err(EmbeddingFault::Count { expected, got });
        }
        let wanted = request.dimensions.and_then(|wanted| usize::try_from(wanted).ok());
        let expected = wanted.or(self.dimensions()).unwrap_or_default();
        for (index, vector) in self.embeddings.iter().enumerate() {
            if vector.len() != expected || vector.is_empty() {
                let expected = expected.max(1);
                return Err(EmbeddingFault::Dimensions { index, expected, got: vector.len() });
            }
            if let Some(at) = vector.iter().position(|number| !number.is_finite()) {
                return Err(EmbeddingFault::NotFinite { index, at, got: vector[at] });
            }
        }
        Ok(())
    }
}

/// Why an answer is none to its request.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum EmbeddingFault {
    /// Another number of vectors than of inputs.
    #[error("expected {expected} vectors, one for each input, got {got}")]
    Count {
        /// The inputs.
        expected: usize,
        /// The vectors.
        got: usize,
    },
    /// Not one vector for each input: one is there twice, or belongs to none.
    #[error("expected the numbers of {inputs} inputs, each once, got a vector for input {got}{}", if *.got < *.inputs { " twice" } else { "" })]
    Index {
        /// The inputs.
        inputs: usize,
        /// The number that came, from 0.
        got: usize,
    },
    /// A vector of another length.
    #[error("expected {expected} dimensions in vector {index}, got {got}")]
    Dimensions {
        /// Number of the vector, from 0.
        index: usize,
        /// What was asked for, or what the first vector has.
        expected: usize,
        /// What it has.
        got: usize,
    },
    /// A number that is infinite or none.
    #[error("expected finite numbers in vector {index}, got {got} at {at}")]
    NotFinite {
        /// Number of the vector, from 0.
        index: usize,
        /// Place in the vector, from 0.
        at: usize,
        /// What stands there.
        got: f32,
    },
}
