//! Messages of a conversation: who says what, in parts.

use serde_json::Value;

/// Who a message comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions of whoever runs the agent.
    System,
    /// The same, as OpenAI's newer models call it.
    Developer,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool.
    Tool,
    /// A role that we do not know, kept as it came.
    Other(String),
}

impl Role {
    /// The name on the wire and in GenAI messages.
    pub fn as_str(&self) -> &str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
            Self::Other(name) => name,
        }
    }

    /// The role of a name, other frameworks' names included (`human`, `ai`, `model`, `function`).
    pub fn from_text(text: &str) -> Self {
        match text {
            "system" => Self::System,
            "developer" => Self::Developer,
            "user" | "human" => Self::User,
            "assistant" | "ai" | "model" => Self::Assistant,
            "tool" | "function" => Self::Tool,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who it comes from.
    pub role: Role,
    /// What it says, in order.
    pub parts: Vec<Part>,
    /// Name of the participant, where several share a role.
    pub name: Option<String>,
}

impl Message {
    /// A message of one text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, parts: vec![Part::Text(text.into())], name: None }
    }

    /// Instructions.
    pub fn system(text: impl Into<String>) -> Self {
        Self::text(Role::System, text)
    }

    /// A question or task.
    pub fn user(text: impl Into<String>) -> Self {
        Self::text(Role::User, text)
    }

    /// An answer of the model.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::text(Role::Assistant, text)
    }

    /// What a tool answered to the call `id`.
    pub fn tool_result(id: impl Into<String>, result: impl Into<Value>) -> Self {
        let result = ToolResult { id: Some(id.into()), result: result.into() };
        Self { role: Role::Tool, parts: vec![Part::ToolResult(result)], name: None }
    }

    /// All text parts, joined by line breaks.
    pub fn joined_text(&self) -> String {
        let texts: Vec<&str> = self
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        texts.join("\n")
    }

    /// The tool calls that the message asks for.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|part| match part {
            Part::ToolCall(call) => Some(call),
            _ => None,
        })
    }
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text.
    Text(String),
    /// What the model thought before it answered.
    Reasoning(String),
    /// The model declines, and says so apart from the answer.
    Refusal(String),
    /// The model wants a tool to run.
    ToolCall(ToolCall),
    /// What a tool answered.
    ToolResult(ToolResult),
    /// An image, a sound, a document.
    Media(Media),
    /// A part that we do not know, kept whole.
    Other(Value),
}

/// A call of a tool, as the model wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolCall {
    /// The provider's id of the call; the result names it.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments as the model wrote them: JSON text if all went well.
    pub arguments: String,
}

impl ToolCall {
    /// The arguments as JSON. No arguments at all are an empty object.
    ///
    /// # Errors
    /// The JSON error when the model wrote something else.
    pub fn arguments_json(&self) -> Result<Value, serde_json::Error> {
        if self.arguments.trim().is_empty() {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        serde_json::from_str(&self.arguments)
    }
}

/// What a tool answered.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolResult {
    /// The call that it answers.
    pub id: Option<String>,
    /// The answer; text is a JSON string.
    pub result: Value,
}

/// Something that is not text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// `image`, `audio`, `video`, `document`; as the source said.
    pub modality: String,
    /// Media type (`image/png`), if said.
    pub mime_type: Option<String>,
    /// Where the content is.
    pub source: MediaSource,
}

/// Where the content of a [`Media`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaSource {
    /// At an address.
    Uri(String),
    /// Here, in base64.
    Base64(String),
    /// In a file that was uploaded to the provider.
    FileId(String),
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model was done, or met a stop sequence.
    Stop,
    /// The longest allowed length was reached.
    Length,
    /// The provider withheld content.
    ContentFilter,
    /// The model wants tools to run.
    ToolCall,
    /// It failed, or the provider never said why it ended.
    Error,
    /// A reason that we do not know, kept as it came.
    Other(String),
}

impl FinishReason {
    /// The name that the GenAI conventions give it (`tool_call`).
    pub fn as_str(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
            Self::ToolCall => "tool_call",
            Self::Error => "error",
            Self::Other(name) => name,
        }
    }

    /// The reason of a name, those of OpenAI, Anthropic and Google included.
    pub fn from_text(text: &str) -> Self {
        match text {
            "stop" | "end_turn" | "stop_sequence" | "STOP" => Self::Stop,
            "length" | "max_tokens" | "model_context_window_exceeded" | "MAX_TOKENS" => {
                Self::Length
            }
            "content_filter" | "refusal" | "SAFETY" => Self::ContentFilter,
            "tool_call" | "tool_calls" | "tool_use" | "function_call" => Self::ToolCall,
            "error" => Self::Error,
            other => Self::Other(other.to_owned()),
        }
    }
}
