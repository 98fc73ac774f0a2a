//! Reads a price table, and says where it is wrong.

use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{LongPrompt, ModelPrice, PriceError, PriceTable, Rates, Tiers};

/// Largest file that is read, bytes: the built-in table has 15 kB.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Fields of prices.
const RATES: [&str; 9] = [
    "input",
    "cached_input",
    "cache_write",
    "cache_write_1h",
    "output",
    "audio_input",
    "audio_output",
    "image_input",
    "image_output",
];

#[derive(Deserialize)]
struct WireTable<'a> {
    version: String,
    #[serde(borrow)]
    models: Vec<&'a RawValue>,
    #[serde(default)]
    tiers: Map<String, Value>,
}

/// What is wrong with a field.
struct Wrong {
    field: String,
    expected: &'static str,
    got: String,
}

impl Wrong {
    fn new(field: impl Into<String>, expected: &'static str, got: Option<&Value>) -> Self {
        let got = got.map_or_else(|| "none".to_owned(), Value::to_string);
        Self { field: field.into(), expected, got }
    }
}

pub(super) fn from_file(path: &Path) -> Result<PriceTable, PriceError> {
    let cannot = |source| PriceError::File { path: path.display().to_string(), source };
    let bytes = std::fs::metadata(path).map_err(cannot)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(PriceError::TooLarge { bytes, limit_bytes: MAX_FILE_BYTES });
    }
    from_json(&std::fs::read_to_string(path).map_err(cannot)?)
}

pub(super) fn from_json(text: &str) -> Result<PriceTable, PriceError> {
    let wire: WireTable<'_> = serde_json::from_str(text)?;
    let at = |wrong: Wrong, line: usize, model: String| PriceError::Field {
        line,
        model,
        field: wrong.field,
        expected: wrong.expected,
        got: wrong.got,
    };
    let mut tiers = std::collections::BTreeMap::new();
    for (provider, value) in &wire.tiers {
        let read = tiers_of(value, &format!("tiers.{provider}"))
            .map_err(|wrong| at(wrong, 1, String::new()))?;
        tiers.insert(provider.clone(), read);
    }
    let mut models: Vec<ModelPrice> = Vec::with_capacity(wire.models.len());
    for raw in wire.models {
        let line = line_of(text, raw.get());
        let value: Value = serde_json::from_str(raw.get())?;
        let name = value["name"].as_str().unwrap_or_default().to_owned();
        let model = model_of(&value).map_err(|wrong| at(wrong, line, name))?;
        if models.iter().any(|other| other.name == model.name) {
            let wrong = Wrong::new("name", "each model once", value.get("name"));
            return Err(at(wrong, line, model.name));
        }
        models.push(model);
    }
    Ok(PriceTable::new(wire.version, models, tiers))
}

/// The line, from 1, on which a part of a text begins.
fn line_of(text: &str, part: &str) -> usize {
    let offset = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

fn model_of(value: &Value) -> Result<ModelPrice, Wrong> {
    let object = object_of(value, "", &["name", "provider", "long_prompt", "tiers", "note"])?;
    let name = object.get("name").and_then(Value::as_str).map(str::trim).unwrap_or_default();
    if name.is_empty() {
        return Err(Wrong::new("name", "the name of a model", object.get("name")));
    }
    let provider = match object.get("provider") {
        None | Some(Value::Null) => "",
        Some(Value::String(provider)) => provider,
        other => return Err(Wrong::new("provider", "text", other)),
    };
    let long_prompt = match object.get("long_prompt") {
        None | Some(Value::Null) => None,
        Some(long) => {
            let inner = object_of(long, "long_prompt.", &["above_input_tokens"])?;
            let above = inner.get("above_input_tokens");
            let above_input_tokens = above.and_then(Value::as_u64).ok_or_else(|| {
                Wrong::new("long_prompt.above_input_tokens", "a number of tokens", above)
            })?;
            Some(LongPrompt { above_input_tokens, rates: rates_of(inner, "long_prompt.")? })
        }
    };
    let tiers = match object.get("tiers") {
        None | Some(Value::Null) => Tiers::new(),
        Some(tiers) => tiers_of(tiers, "tiers")?,
    };
    Ok(ModelPrice {
        name: name.to_ascii_lowercase(),
        provider: provider.to_owned(),
        rates: rates_of(object, "")?,
        long_prompt,
        tiers,
    })
}

/// An object without fields that nobody reads: a misspelt price would count as none.
fn object_of<'v>(
    value: &'v Value,
    path: &str,
    others: &[&str],
) -> Result<&'v Map<String, Value>, Wrong> {
    let object = value.as_object().ok_or_else(|| {
        Wrong::new(path.trim_end_matches('.'), "an object with prices", Some(value))
    })?;
    let is_known = |key: &str| RATES.contains(&key) || others.contains(&key);
    match object.iter().find(|(key, _)| !is_known(key)) {
        Some((key, value)) => Err(Wrong::new(
            format!("{path}{key}"),
            "one of the fields input, cached_input, cache_write, cache_write_1h, output, \
             audio_input, audio_output, image_input, image_output, name, provider, long_prompt, \
             tiers, note",
            Some(value),
        )),
        None => Ok(object),
    }
}

fn rates_of(object: &Map<String, Value>, path: &str) -> Result<Rates, Wrong> {
    let price = |field: &str| match object.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(price) if price.is_finite() && price >= 0.0 => Ok(Some(price)),
            _ => Err(Wrong::new(format!("{path}{field}"), "a price of at least 0", Some(value))),
        },
    };
    let needed = |field: &str| {
        price(field)?.ok_or_else(|| Wrong::new(format!("{path}{field}"), "a price", None))
    };
    Ok(Rates {
        input: needed("input")?,
        cached_input: price("cached_input")?,
        cache_write: price("cache_write")?,
        cache_write_1h: price("cache_write_1h")?,
        output: needed("output")?,
        audio_input: price("audio_input")?,
        audio_output: price("audio_output")?,
        image_input: price("image_input")?,
        image_output: price("image_output")?,
    })
}

fn tiers_of(value: &Value, path: &str) -> Result<Tiers, Wrong> {
    let expected = "factors of at least 0 by the name of the tier";
    let object = value.as_object().ok_or_else(|| Wrong::new(path, expected, Some(value)))?;
    let read = object.iter().map(|(tier, factor)| match factor.as_f64() {
        Some(number) if number.is_finite() && number >= 0.0 => Ok((tier.clone(), number)),
        _ => Err(Wrong::new(format!("{path}.{tier}"), expected, Some(factor))),
    });
    read.collect()
}
