//! Answers policies in Rego in JSON lines, one line a question: `{"text": …, "query": …, "input": …}`, answered with
//! `{"is_breach": …, "messages": […]}` or `{"error": …}`. `interop/test_rego.py` compares the answers with OPA's.

use std::error::Error;
use std::io::{self, BufRead as _, Write as _};

use serde_json::{Value, json};
use throughline_rules::rego::{InputShape, RegoLimits, RegoPolicy};

fn answer(question: &Value) -> Value {
    let of = |name: &str| question[name].as_str().unwrap_or_default();
    let names = question["input"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let shape = InputShape::open(names.chain(["signals", "request", "response"]));
    let policy = match RegoPolicy::compile(of("text"), of("query"), &shape, RegoLimits::default()) {
        Ok(policy) => policy,
        Err(mistakes) => return json!({"error": mistakes.to_string()}),
    };
    match policy.ask(question["input"].clone()) {
        Ok(said) => json!({"is_breach": said.is_breach, "messages": said.messages}),
        Err(error) => json!({"error": error.to_string()}),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let question: Value = serde_json::from_str(&line?)?;
        serde_json::to_writer(&mut out, &answer(&question))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}
