//! The clients: one type for each wire form, all over the same connection.

use std::fmt;
use std::marker::PhantomData;

use futures_util::future::BoxFuture;
use throughline_llm::{
    ChatRequest, ChatResponse, EmbeddingRequest, EmbeddingResponse, WireForm, anthropic,
};

use super::builder::{ClientBuilder, ClientError, shown};
use super::wire::Wire;
use crate::chat::{ChatError, ChatModel, ChatStream, Endpoint};
use crate::embedding::EmbeddingModel;
use crate::stream::CutStream;

/// Where OpenAI itself is.
pub const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";

/// Where Anthropic itself is.
pub const ANTHROPIC_BASE_URL: &str = "https://api.anthropic.com";

/// A client of OpenAI's chat completions and embeddings, and of the many servers that speak the same
/// forms.
///
/// ```no_run
/// use throughline::{OpenAi, Traced};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let openai = Traced::new(OpenAi::from_env()?);
/// let local = Traced::new(OpenAi::builder().base_url("http://127.0.0.1:11434/v1").build()?);
/// let azure = OpenAi::builder()
///     .base_url("https://acme.openai.azure.com/openai/deployments/gpt-4o")
///     .query("api-version", "2024-10-21")
///     .header("api-key", std::env::var("AZURE_OPENAI_API_KEY")?)
///     .build()?;
/// # drop((openai, local, azure)); Ok(()) }
/// ```
pub type OpenAi = ModelClient<ChatCompletions>;

/// Describes an [`OpenAi`] client.
pub type OpenAiBuilder = ClientBuilder<ChatCompletions>;

/// A client of OpenAI's responses. A request goes on from an earlier answer when its
/// `extra["previous_response_id"]` names it.
///
/// ```no_run
/// use throughline::llm::ChatRequest;
/// use throughline::{ChatModel, OpenAiResponses, Traced};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let model = Traced::new(OpenAiResponses::from_env()?);
/// let first = model.chat(ChatRequest::new("gpt-5.1").user("a joke, please")).await?;
/// let mut next = ChatRequest::new("gpt-5.1").user("explain it");
/// next.extra.insert("previous_response_id".to_owned(), first.id.into());
/// let second = model.chat(next).await?;
/// # drop(second); Ok(()) }
/// ```
pub type OpenAiResponses = ModelClient<Responses>;

/// Describes an [`OpenAiResponses`] client.
pub type OpenAiResponsesBuilder = ClientBuilder<Responses>;

/// A client of Anthropic's messages.
///
/// ```no_run
/// use throughline::llm::ChatRequest;
/// use throughline::{Anthropic, ChatModel, Traced};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let model = Traced::new(Anthropic::from_env()?);
/// let request = ChatRequest::new("claude-sonnet-4-5").system("be brief").user("hi");
/// println!("{}", model.chat(request).await?.text());
/// # Ok(()) }
/// ```
pub type Anthropic = ModelClient<Messages>;

/// Describes an [`Anthropic`] client.
pub type AnthropicBuilder = ClientBuilder<Messages>;

/// A wire form as the clients speak it. Only the three here do.
pub trait Form: sealed::Sealed + Send + Sync + 'static {}

/// The form of [`OpenAi`].
#[derive(Debug)]
pub enum ChatCompletions {}

/// The form of [`OpenAiResponses`].
#[derive(Debug)]
pub enum Responses {}

/// The form of [`Anthropic`].
#[derive(Debug)]
pub enum Messages {}

impl Form for ChatCompletions {}
impl Form for Responses {}
impl Form for Messages {}

pub(super) mod sealed {
    /// What the clients of a form have in common.
    pub trait Sealed {
        /// Their settings.
        const SPEC: &'static super::Spec;
    }
}

/// What is particular to the clients of a form.
#[derive(Debug)]
pub struct Spec {
    pub(super) form: WireForm,
    pub(super) base_url: &'static str,
    /// What stands between the base address and the path of the form, unless the base has it.
    pub(super) prefix: &'static str,
    /// `gen_ai.provider.name`, when the host does not tell another.
    pub(super) provider: &'static str,
    pub(super) url_variable: &'static str,
    pub(super) key_variable: &'static str,
    pub(super) key_header: &'static str,
    pub(super) key_prefix: &'static str,
    pub(super) headers: &'static [(&'static str, &'static str)],
}

const OPENAI: Spec = Spec {
    form: WireForm::ChatCompletions,
    base_url: OPENAI_BASE_URL,
    prefix: "",
    provider: "openai",
    url_variable: "OPENAI_BASE_URL",
    key_variable: "OPENAI_API_KEY",
    key_header: "authorization",
    key_prefix: "Bearer ",
    headers: &[],
};

impl sealed::Sealed for ChatCompletions {
    const SPEC: &'static Spec = &OPENAI;
}

impl sealed::Sealed for Responses {
    const SPEC: &'static Spec = &Spec { form: WireForm::Responses, ..OPENAI };
}

impl sealed::Sealed for Messages {
    const SPEC: &'static Spec = &Spec {
        form: WireForm::Messages,
        base_url: ANTHROPIC_BASE_URL,
        prefix: "/v1",
        provider: "anthropic",
        url_variable: "ANTHROPIC_BASE_URL",
        key_variable: "ANTHROPIC_API_KEY",
        key_header: "x-api-key",
        key_prefix: "",
        headers: &[("anthropic-version", anthropic::VERSION)],
    };
}

/// A client of one provider, in the wire form `F`. Clones share its connections.
///
/// Requests carry the trace context of the current context, and its allow-listed baggage only when
/// [`ClientBuilder::propagate_baggage`] says so. The client neither retries nor makes spans: wrap it
/// in [`Traced`](crate::Traced).
pub struct ModelClient<F> {
    pub(super) wire: Wire,
    form: PhantomData<fn() -> F>,
}

impl<F: Form> ModelClient<F> {
    /// A client of the provider itself, or of the address in `OPENAI_BASE_URL` or
    /// `ANTHROPIC_BASE_URL`, with the key in `OPENAI_API_KEY` or `ANTHROPIC_API_KEY`. A server at an address of
    /// its own may need none.
    ///
    /// # Errors
    /// [`ClientError`] when neither is set, or one has a value that cannot be meant.
    pub fn from_env() -> Result<Self, ClientError> {
        ClientBuilder::from_env()?.build()
    }

    /// A client of the provider itself without a key, to be changed.
    pub fn builder() -> ClientBuilder<F> {
        ClientBuilder::new()
    }

    pub(super) fn of(wire: Wire) -> Self {
        Self { wire, form: PhantomData }
    }
}

impl<F> ModelClient<F> {
    /// Where chats go.
    pub(super) fn chat_address(&self) -> String {
        self.wire.address(self.wire.form.path()).to_string()
    }
}

impl<F> Clone for ModelClient<F> {
    fn clone(&self) -> Self {
        Self { wire: self.wire.clone(), form: PhantomData }
    }
}

impl<F> fmt::Debug for ModelClient<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelClient")
            .field("form", &self.wire.form)
            .field("url", &shown(&self.chat_address()))
            .field("endpoint", &self.wire.endpoint)
            .field("propagates_baggage", &self.wire.propagates_baggage)
            .finish_non_exhaustive()
    }
}

impl<F: Form> ChatModel for ModelClient<F> {
    fn endpoint(&self) -> Endpoint {
        self.wire.endpoint.clone()
    }

    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>> {
        Box::pin(self.wire.chat(request))
    }

    fn stream(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        Box::pin(self.wire.stream(request))
    }

    fn resume(
        &self,
        request: ChatRequest,
        cut: CutStream,
    ) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        Box::pin(self.wire.resume(request, cut))
    }
}

impl EmbeddingModel for ModelClient<ChatCompletions> {
    fn endpoint(&self) -> Endpoint {
        self.wire.endpoint.clone()
    }

    fn embed(
        &self,
        request: EmbeddingRequest,
    ) -> BoxFuture<'_, Result<EmbeddingResponse, ChatError>> {
        Box::pin(self.wire.embed(request))
    }
}
