//! A request on its way into another form. What it says beyond our types ([`ChatRequest::extra`]) is in
//! the words of the form that it came in, and a provider of another form refuses words that it does
//! not know. So nothing of it is passed on as it is: what the other form can say is said in its
//! words, what changes nothing that a caller would miss is left out and named, and what would make
//! another answer of it is refused.

mod conversation;
mod fields;
mod thinking;

use serde_json::{Map, Value, json};

use crate::anthropic;
use crate::chat::{ChatRequest, ResponseFormat, ToolChoice};
use crate::kept::{Kept, kind_of};
use crate::openai::WireError;
use crate::wire::WireForm;

/// Longest name of a user that OpenAI takes, characters.
const MAX_OPENAI_USER_CHARS: usize = 64;
/// Longest name of a user that Anthropic takes, characters.
const MAX_ANTHROPIC_USER_CHARS: usize = 256;
/// The highest temperature that Anthropic takes.
const MAX_ANTHROPIC_TEMPERATURE: f64 = 1.0;

/// Anthropic's word, in a choice, for tools that are asked for one at a time.
const ONE_AT_A_TIME: &str = "disable_parallel_tool_use";

/// A translation under way.
struct Work<'a> {
    request: &'a mut ChatRequest,
    to: WireForm,
    /// What the request said beyond our types, as far as nobody has dealt with it.
    said: Map<String, Value>,
    /// Names of what is left out.
    left_out: Vec<String>,
}

/// Makes a request that was read in the form `from` one that can be written in the form `to`. Answers
/// the names of the fields that are left out, in the words of `from`.
///
/// # Errors
/// [`WireError::Unsayable`] when leaving a field out would make another answer of it.
pub fn translate(
    request: &mut ChatRequest,
    from: WireForm,
    to: WireForm,
) -> Result<Vec<String>, WireError> {
    if from == to {
        return Ok(Vec::new());
    }
    let mut said = std::mem::take(&mut request.extra);
    let mut kept = Kept::take(from.kept_as(), &mut said);
    let mut work = Work { request, to, said, left_out: Vec::new() };
    conversation::translate(&mut work)?;
    work.tools(kept.tools())?;
    work.parallel_calls(kept.field("/tool_choice", ONE_AT_A_TIME));
    let marks = kept.field_names().into_iter().filter(|name| *name != ONE_AT_A_TIME);
    work.left_out.extend(marks.map(str::to_owned));
    work.user();
    work.sampling();
    work.format()?;
    thinking::translate(&mut work);
    fields::settle(&mut work)?;
    Ok(work.left_out)
}

impl Work<'_> {
    fn is_to_anthropic(&self) -> bool {
        self.to == WireForm::Messages
    }

    fn leave_out(&mut self, name: impl Into<String>) {
        self.left_out.push(name.into());
    }

    fn refuse(&self, field: impl Into<String>, advice: &'static str) -> WireError {
        let form = match self.to {
            WireForm::ChatCompletions | WireForm::Responses => "OpenAI's form",
            WireForm::Messages => "Anthropic's form",
        };
        WireError::Unsayable { field: field.into(), form, advice }
    }

    /// Tools that a provider runs itself are offers that another does not have; a model must not be
    /// told to use one of them.
    fn tools(&mut self, of_provider: Vec<Value>) -> Result<(), WireError> {
        for tool in &of_provider {
            let name = kind_of(tool).or_else(|| tool.get("name").and_then(Value::as_str));
            self.leave_out(format!("tools.{}", name.unwrap_or("unknown")));
        }
        if let Some(choice) = self.said.remove("tool_choice") {
            self.allowed_tools(&choice)?;
        }
        let tools = &self.request.tools;
        let is_there = match &self.request.tool_choice {
            Some(ToolChoice::Named(name)) => tools.iter().any(|tool| tool.name == *name),
            Some(ToolChoice::Required) => !tools.is_empty(),
            _ => true,
        };
        if !is_there {
            let advice = "it asks for a tool that the other provider does not run";
            return Err(self.refuse("tool_choice", advice));
        }
        if tools.is_empty() {
            self.request.tool_choice = None;
        }
        Ok(())
    }

    /// A choice that names several tools: only those are offered.
    fn allowed_tools(&mut self, choice: &Value) -> Result<(), WireError> {
        let advice = "say auto, none, required, or the name of a function";
        if kind_of(choice) != Some("allowed_tools") {
            return Err(self.refuse("tool_choice", advice));
        }
        let allowed = choice.get("allowed_tools").unwrap_or(choice);
        let Some(tools) = allowed["tools"].as_array() else {
            return Err(self.refuse("tool_choice", advice));
        };
        let name = |tool: &Value| {
            let name = tool.pointer("/function/name").or_else(|| tool.get("name"));
            name.and_then(Value::as_str).map(str::to_owned)
        };
        let names: Vec<String> = tools.iter().filter_map(name).collect();
        self.request.tools.retain(|tool| names.contains(&tool.name));
        self.request.tool_choice = Some(match allowed["mode"].as_str() {
            Some("required") => ToolChoice::Required,
            _ => ToolChoice::Auto,
        });
        Ok(())
    }

    /// Whether several tools may be asked for at once; both sides let them when nothing is said.
    fn parallel_calls(&mut self, of_choice: Option<Value>) {
        let of_field = self.said.remove("parallel_tool_calls");
        let is_off = of_field == Some(Value::Bool(false)) || of_choice == Some(Value::Bool(true));
        if !is_off || self.request.tools.is_empty() {
            return;
        }
        if !self.is_to_anthropic() {
            self.request.extra.insert("parallel_tool_calls".to_owned(), Value::from(false));
            return;
        }
        let choice = self.request.tool_choice.get_or_insert(ToolChoice::Auto);
        if *choice == ToolChoice::None {
            return;
        }
        anthropic::keep_one_tool_at_once(choice, &mut self.request.extra);
    }

    /// Whose request it is, where it is a name that the other provider takes: Anthropic refuses what
    /// looks like an address or a telephone number, and both refuse what is long.
    fn user(&mut self) {
        if self.is_to_anthropic() {
            let names = ["safety_identifier", "user"].map(|name| (name, self.said.remove(name)));
            let mut named = names.into_iter().filter_map(|(name, value)| {
                let text = value?.as_str()?.to_owned();
                (!text.is_empty()).then_some((name, text))
            });
            let Some((name, user)) = named.next() else { return };
            if is_opaque(&user) && user.chars().count() <= MAX_ANTHROPIC_USER_CHARS {
                self.request.extra.insert("metadata".to_owned(), json!({ "user_id": user }));
            } else {
                self.leave_out(name);
            }
            return;
        }
        let Some(Value::Object(mut metadata)) = self.said.remove("metadata") else { return };
        match metadata.remove("user_id") {
            Some(Value::String(user)) if user.chars().count() <= MAX_OPENAI_USER_CHARS => {
                self.request.extra.insert("user".to_owned(), Value::from(user));
            }
            None | Some(Value::Null) => {}
            Some(_) => self.leave_out("metadata.user_id"),
        }
    }

    /// How words are chosen.
    fn sampling(&mut self) {
        if !self.is_to_anthropic() {
            return;
        }
        if self.request.seed.take().is_some() {
            self.leave_out("seed");
        }
        let top_k = self.said.remove("top_k").filter(Value::is_u64);
        if anthropic::takes_no_sampling(&self.request.model) {
            let told = [
                ("temperature", self.request.temperature.take().is_some()),
                ("top_p", self.request.top_p.take().is_some()),
                ("top_k", top_k.is_some()),
            ];
            for (name, _) in told.into_iter().filter(|(_, is_told)| *is_told) {
                self.leave_out(name);
            }
            return;
        }
        if let Some(top_k) = top_k {
            self.request.extra.insert("top_k".to_owned(), top_k);
        }
        if self.request.temperature.is_some_and(|is| is > MAX_ANTHROPIC_TEMPERATURE) {
            self.request.temperature = Some(MAX_ANTHROPIC_TEMPERATURE);
        }
    }

    /// The shape of the answer. Any JSON object is nothing that Anthropic can be held to; the prompt
    /// asks for it anyhow, since OpenAI insists on that.
    fn format(&mut self) -> Result<(), WireError> {
        if self.is_to_anthropic()
            && self.request.response_format == Some(ResponseFormat::JsonObject)
        {
            self.request.response_format = None;
            self.leave_out("response_format");
        }
        let in_text = self.said.get("text").is_some_and(|text| text.get("format").is_some());
        let advice = "say text, json_object or json_schema";
        match self.said.remove("response_format") {
            Some(_) => Err(self.refuse("response_format", advice)),
            None if in_text => Err(self.refuse("text.format", advice)),
            None => Ok(()),
        }
    }
}

/// Whether a name tells nothing about who it is, as far as its form shows.
fn is_opaque(user: &str) -> bool {
    let is_of_number = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '(' | ')' | ' ');
    let is_number = user.chars().count() >= 7 && user.chars().all(is_of_number);
    !user.contains('@') && !is_number
}

#[cfg(test)]
mod tests;
