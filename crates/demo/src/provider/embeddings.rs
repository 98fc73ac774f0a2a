//! `POST /v1/embeddings`: deterministic vectors in which texts with common words are near.

use base64::Engine as _;
use serde_json::{Value, json};

use super::catalog::{Kind, Model};
use super::error::ApiError;
use super::tokens;
use crate::seed::{Seed, hash};

/// Most texts in one request.
const MAX_INPUTS: usize = 2048;

/// Answers a request.
pub(crate) fn answer(body: &Value) -> Result<Value, ApiError> {
    let name = body.get("model").and_then(Value::as_str);
    let name =
        name.ok_or_else(|| ApiError::invalid("model", "you must provide a model parameter"))?;
    let model = Model::find(name).ok_or_else(|| ApiError::no_such_model(name))?;
    let Kind::Embedding { dimensions: most } = model.kind else {
        let message =
            format!("You are not allowed to generate embeddings from this model: {name}.");
        return Err(ApiError::invalid("model", message));
    };
    let dimensions = match body.get("dimensions") {
        None | Some(Value::Null) => most,
        Some(value) => value
            .as_u64()
            .and_then(|wanted| usize::try_from(wanted).ok())
            .filter(|wanted| (1..=most).contains(wanted))
            .ok_or_else(|| {
                let message =
                    format!("Invalid 'dimensions': expected 1 to {most}, but got {value}.");
                ApiError::invalid("dimensions", message)
            })?,
    };
    let is_base64 = match body.get("encoding_format").and_then(Value::as_str) {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let message =
                format!("Invalid value: '{other}'. Supported values are: 'float' and 'base64'.");
            return Err(ApiError::invalid("encoding_format", message));
        }
    };
    let inputs = read_inputs(body)?;
    let size: u64 = inputs.iter().map(Input::tokens).sum();
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let vector = embed(input, dimensions);
            let embedding = if is_base64 { json!(to_base64(&vector)) } else { json!(vector) };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    Ok(json!({
        "object": "list",
        "data": data,
        "model": model.snapshot,
        "usage": {"prompt_tokens": size, "total_tokens": size},
    }))
}

/// One text, given as words or as token numbers.
enum Input {
    Text(String),
    Tokens(Vec<u64>),
}

impl Input {
    fn tokens(&self) -> u64 {
        match self {
            Self::Text(text) => tokens::count(text),
            Self::Tokens(numbers) => numbers.len() as u64,
        }
    }

    fn features(&self) -> Vec<u64> {
        match self {
            Self::Text(text) => tokens::pieces(text)
                .into_iter()
                .map(|piece| hash(piece.trim().to_lowercase().as_bytes()))
                .collect(),
            Self::Tokens(numbers) => numbers.clone(),
        }
    }
}

fn read_inputs(body: &Value) -> Result<Vec<Input>, ApiError> {
    let expected = "one of a string, an array of strings, or an array of token numbers";
    let input = body.get("input").ok_or_else(|| ApiError::missing("input"))?;
    let numbers = |list: &[Value]| list.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>();
    let inputs = match input {
        Value::String(text) => vec![Input::Text(text.clone())],
        Value::Array(list) if list.first().is_some_and(Value::is_number) => {
            let numbers = numbers(list);
            vec![Input::Tokens(
                numbers.ok_or_else(|| ApiError::invalid_type("input", expected, input))?,
            )]
        }
        Value::Array(list) => list
            .iter()
            .map(|item| match item {
                Value::String(text) => Some(Input::Text(text.clone())),
                Value::Array(list) => numbers(list).map(Input::Tokens),
                _ => None,
            })
            .collect::<Option<Vec<Input>>>()
            .ok_or_else(|| ApiError::invalid_type("input", expected, input))?,
        other => return Err(ApiError::invalid_type("input", expected, other)),
    };
    let is_empty = |input: &Input| matches!(input, Input::Text(text) if text.is_empty());
    if inputs.is_empty() || inputs.iter().any(is_empty) {
        return Err(ApiError::invalid(
            "input",
            "Invalid 'input': input cannot be an empty string or array.",
        ));
    }
    if inputs.len() > MAX_INPUTS {
        let message = format!(
            "Invalid 'input': expected at most {MAX_INPUTS} items, but got {}.",
            inputs.len()
        );
        return Err(ApiError::invalid("input", message));
    }
    Ok(inputs)
}

/// The sum of one pseudo-random direction for each word, of length 1.
fn embed(input: &Input, dimensions: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; dimensions];
    for feature in input.features() {
        let mut dice = Seed::new(feature).dice();
        for sum in &mut sums {
            *sum += dice.between(-1.0, 1.0);
        }
    }
    let length = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    sums.into_iter().map(|sum| (sum / length) as f32).collect()
}

fn to_base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosine(a: &str, b: &str) -> f32 {
        let embed = |text: &str| embed(&Input::Text(text.to_owned()), 256);
        embed(a).iter().zip(embed(b)).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn common_words_bring_texts_near() {
        let near = cosine("a chest pain that spreads", "chest pain spreads to the arm");
        let far = cosine("a chest pain that spreads", "two tents and one stove");
        assert!(near > far + 0.2, "near {near}, far {far}");
        assert!((cosine("same", "same") - 1.0).abs() < 1e-5);
    }
}
