//! Tokens of calls whose provider tells none, or not all (requirement R3.1): counted by the model's
//! tokenizer, or else a quarter of the bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use throughline_llm::tokens::{self, CountMethod, TokenCount};
use throughline_llm::{ChatRequest, ChatResponse, EmbeddingRequest};
use throughline_trace::Usage;

/// Whether a tokenizer is being read for the next time: a thousand streams that are cut off at once
/// must not take a thread each.
static IS_LOADING: AtomicBool = AtomicBool::new(false);

/// A usage, and how it was counted if the provider did not tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedUsage {
    /// The tokens.
    pub usage: Usage,
    /// How they were counted; `None` when the provider told them.
    pub method: Option<CountMethod>,
}

/// What is kept of a request until its usage is known.
#[derive(Debug)]
pub enum Prompt {
    /// The count by bytes, where there is no better one: a stream must not hold its prompt for long.
    Counted(TokenCount),
    /// The request, to be counted by its model's tokenizer.
    Whole(Arc<ChatRequest>),
    /// The inputs of embeddings.
    Inputs(Arc<EmbeddingRequest>),
}

impl Prompt {
    /// Of a request that is about to be made.
    pub fn of(request: &Arc<ChatRequest>) -> Self {
        if !request.stream || tokens::has_tokenizer(&request.model) {
            return Self::Whole(Arc::clone(request));
        }
        Self::Counted(tokens::count_prompt(&request.model, &request.messages, &request.tools))
    }

    /// The tokens of a whole answer.
    pub fn usage_of(&self, model: &str, response: &ChatResponse) -> CountedUsage {
        match response.usage {
            Some(usage) => CountedUsage { usage, method: None },
            None => self.estimate(model, response),
        }
    }

    /// The tokens of an answer that broke off. What the provider had told is true so far; its tokens
    /// out are those that came, at least.
    pub fn usage_of_part(&self, model: &str, response: &ChatResponse) -> CountedUsage {
        let Some(told) = response.usage else { return self.estimate(model, response) };
        let answer = tokens::count_answer(model, &response.choices);
        if answer.tokens <= told.output_tokens {
            return CountedUsage { usage: told, method: None };
        }
        let usage = Usage { output_tokens: answer.tokens, ..told };
        CountedUsage { usage, method: Some(answer.method) }
    }

    fn estimate(&self, model: &str, response: &ChatResponse) -> CountedUsage {
        load_for_next_time(model);
        let prompt = match self {
            Self::Counted(count) => *count,
            Self::Whole(request) => tokens::count_prompt(model, &request.messages, &request.tools),
            Self::Inputs(request) => tokens::count_inputs(model, &request.inputs),
        };
        let answer = tokens::count_answer(model, &response.choices);
        let usage =
            Usage { input_tokens: prompt.tokens, output_tokens: answer.tokens, ..Usage::default() };
        CountedUsage { usage, method: Some(answer.method) }
    }
}

/// Reads the tokenizer of a model on a thread for such work, if it has one and it is not read yet:
/// some tenths of a second, once in a process.
#[expect(clippy::disallowed_methods, reason = "what is read serves every trace")]
pub async fn load_tokenizer(model: &str) {
    if tokens::is_loadable(model) {
        let model = model.to_owned();
        // Without the tokenizer the bytes are counted.
        let _ = tokio::task::spawn_blocking(move || tokens::load(&model)).await;
    }
}

/// Reads the tokenizer where nobody can wait for it: a stream that ends is counted by bytes then, the
/// next one by the tokenizer.
#[expect(clippy::disallowed_methods, reason = "what is read serves every trace")]
fn load_for_next_time(model: &str) {
    if tokens::is_loadable(model)
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
        && !IS_LOADING.swap(true, Ordering::AcqRel)
    {
        let model = model.to_owned();
        drop(runtime.spawn_blocking(move || {
            tokens::load(&model);
            IS_LOADING.store(false, Ordering::Release);
        }));
    }
}
