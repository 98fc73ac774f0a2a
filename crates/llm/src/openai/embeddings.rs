//! OpenAI's embeddings (`POST /v1/embeddings`), as a client speaks them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use throughline_trace::Usage;

use super::{WireError, api_error};
use crate::embedding::{EmbeddingFault, EmbeddingInput, EmbeddingRequest, EmbeddingResponse};

/// Path of embeddings below the base address.
pub const EMBEDDINGS_PATH: &str = "/embeddings";

/// Bytes of one number in base64.
const NUMBER_BYTES: usize = size_of::<f32>();

/// Builds the body of a request. Texts alone are a list of texts, tokens alone a list of lists; the
/// form leaves open whether the two may be mixed, and then it is the server's to say.
pub fn embeddings_request_to_json(request: &EmbeddingRequest) -> Value {
    let mut wire = request.extra.clone();
    let inputs = request.inputs.iter().map(|input| match input {
        EmbeddingInput::Text(text) => Value::from(text.as_str()),
        EmbeddingInput::Tokens(tokens) => Value::from(tokens.clone()),
    });
    wire.insert("model".to_owned(), Value::from(request.model.as_str()));
    wire.insert("input".to_owned(), inputs.collect());
    let said = [
        ("dimensions", request.dimensions.map(Value::from)),
        ("encoding_format", request.encoding_format.map(|format| Value::from(format.as_str()))),
        ("user", request.user.as_deref().map(Value::from)),
    ];
    for (key, value) in said {
        if let Some(value) = value {
            wire.insert(key.to_owned(), value);
        }
    }
    Value::Object(wire)
}

#[derive(Deserialize)]
struct WireAnswer {
    #[serde(default)]
    model: Option<String>,
    data: Vec<WireVector>,
    #[serde(default)]
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct WireVector {
    #[serde(default)]
    index: Option<usize>,
    embedding: Numbers,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Numbers {
    /// `null` stands for a number that JSON cannot say.
    Floats(Vec<Option<f32>>),
    Base64(String),
}

#[derive(Deserialize)]
struct WireUsage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    total_tokens: Option<u64>,
}

/// Reads the body of an answer, whichever encoding it has, and puts its vectors in the order of the
/// inputs.
///
/// # Errors
/// [`WireError::Api`] when the body is an error, [`WireError::Json`] when it is neither,
/// [`WireError::Field`] for base64 that is none, and [`WireError::Embeddings`] when the vectors do
/// not answer the request.
pub fn parse_embeddings_response(
    body: &[u8],
    request: &EmbeddingRequest,
) -> Result<EmbeddingResponse, WireError> {
    let wire: WireAnswer = serde_json::from_slice(body).map_err(|source| {
        let told = serde_json::from_slice(body).ok().and_then(|body| api_error(&body));
        told.map_or(WireError::Json { expected: "embeddings", source }, WireError::Api)
    })?;
    let embeddings = in_order(wire.data, request.inputs.len())?;
    let usage = wire.usage.and_then(|usage| usage.prompt_tokens.or(usage.total_tokens));
    let answer = EmbeddingResponse {
        model: wire.model.unwrap_or_default(),
        embeddings,
        usage: usage.map(|input_tokens| Usage { input_tokens, ..Usage::default() }),
        ..EmbeddingResponse::default()
    };
    answer.check(request)?;
    Ok(answer)
}

/// The vectors by the number of their input; one that does not say it is for the input of its place.
fn in_order(data: Vec<WireVector>, inputs: usize) -> Result<Vec<Vec<f32>>, WireError> {
    if data.len() != inputs {
        return Err(EmbeddingFault::Count { expected: inputs, got: data.len() }.into());
    }
    let mut slots: Vec<Option<Vec<f32>>> = vec![None; inputs];
    for (place, item) in data.into_iter().enumerate() {
        let got = item.index.unwrap_or(place);
        match slots.get_mut(got) {
            Some(slot @ None) => *slot = Some(numbers_of(item.embedding, place)?),
            _ => return Err(EmbeddingFault::Index { inputs, got }.into()),
        }
    }
    // As many vectors as slots, and none twice: each slot is filled.
    Ok(slots.into_iter().flatten().collect())
}

fn numbers_of(numbers: Numbers, place: usize) -> Result<Vec<f32>, WireError> {
    let text = match numbers {
        Numbers::Floats(floats) => {
            return Ok(floats.into_iter().map(|number| number.unwrap_or(f32::NAN)).collect());
        }
        Numbers::Base64(text) => text,
    };
    let wrong = |expected, got| WireError::Field {
        field: format!("data[{place}].embedding"),
        expected,
        got,
    };
    let bytes = STANDARD
        .decode(text.trim())
        .map_err(|_| wrong("base64 of 32-bit floats", quoted(&text)))?;
    let (numbers, rest) = bytes.as_chunks::<NUMBER_BYTES>();
    if !rest.is_empty() {
        let got = format!("{} bytes", bytes.len());
        return Err(wrong("base64 of 32-bit floats, of 4 bytes each", got));
    }
    Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// The beginning of a text.
fn quoted(text: &str) -> String {
    const QUOTED_CHARS: usize = 20;
    format!("{:?}", text.chars().take(QUOTED_CHARS).collect::<String>())
}

/// Builds the body of an answer, with numbers as JSON.
pub fn embeddings_response_to_json(response: &EmbeddingResponse) -> Value {
    let data: Vec<Value> = response
        .embeddings
        .iter()
        .enumerate()
        .map(|(index, vector)| json!({"object": "embedding", "index": index, "embedding": vector}))
        .collect();
    let mut wire = json!({ "object": "list", "data": data, "model": response.model });
    if let Some(usage) = response.usage {
        let tokens = usage.input_tokens;
        wire["usage"] = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    }
    wire
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::embedding::EncodingFormat;

    fn two() -> EmbeddingRequest {
        EmbeddingRequest::new("text-embedding-3-small").texts(["a tent", "a stove"])
    }

    fn problem(body: &str) -> String {
        parse_embeddings_response(body.as_bytes(), &two()).expect_err("no answer").to_string()
    }

    #[test]
    fn a_request_says_what_was_said_and_no_more() {
        insta::assert_snapshot!(embeddings_request_to_json(&two()), @r#"{"input":["a tent","a stove"],"model":"text-embedding-3-small"}"#);
        let mut request = EmbeddingRequest::new("text-embedding-3-large")
            .tokens([1, 2, 3])
            .dimensions(256)
            .encoding_format(EncodingFormat::Base64)
            .user("u-1");
        request.extra.insert("input_type".to_owned(), "query".into());
        insta::assert_snapshot!(embeddings_request_to_json(&request), @r#"{"dimensions":256,"encoding_format":"base64","input":[[1,2,3]],"input_type":"query","model":"text-embedding-3-large","user":"u-1"}"#);
    }

    #[test]
    fn vectors_are_in_the_order_of_the_inputs_in_either_encoding() {
        // 0.5 and -2 as 32-bit floats, little-endian: 00 00 00 3f, 00 00 00 c0.
        let body = r#"{"object":"list","model":"text-embedding-3-small","data":[
            {"index":1,"embedding":"AAAAPwAAAMA="},{"index":0,"embedding":[1,0.25]}],
            "usage":{"prompt_tokens":4,"total_tokens":4}}"#;
        let answer = parse_embeddings_response(body.as_bytes(), &two()).expect("an answer");
        assert_eq!(answer.embeddings, [vec![1.0, 0.25], vec![0.5, -2.0]]);
        assert_eq!(answer.dimensions(), Some(2));
        assert_eq!(answer.usage.map(|usage| usage.input_tokens), Some(4));
        let unnumbered = r#"{"data":[{"embedding":[1]},{"embedding":[2]}]}"#;
        let answer = parse_embeddings_response(unnumbered.as_bytes(), &two()).expect("an answer");
        assert_eq!((answer.embeddings, answer.usage), (vec![vec![1.0], vec![2.0]], None));
    }

    #[test]
    fn an_answer_that_does_not_fit_is_told() {
        insta::assert_snapshot!(problem(r#"{"data":[{"index":0,"embedding":[1]}]}"#), @"the embeddings do not answer the request: expected 2 vectors, one for each input, got 1");
        insta::assert_snapshot!(problem(r#"{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]}"#), @"the embeddings do not answer the request: expected the numbers of 2 inputs, each once, got a vector for input 0 twice");
        insta::assert_snapshot!(problem(r#"{"data":[{"index":7,"embedding":[1]},{"index":0,"embedding":[1]}]}"#), @"the embeddings do not answer the request: expected the numbers of 2 inputs, each once, got a vector for input 7");
        insta::assert_snapshot!(problem(r#"{"data":[{"embedding":[1,2]},{"embedding":[1]}]}"#), @"the embeddings do not answer the request: expected 2 dimensions in vector 1, got 1");
        insta::assert_snapshot!(problem(r#"{"data":[{"embedding":[]},{"embedding":[]}]}"#), @"the embeddings do not answer the request: expected 1 dimensions in vector 0, got 0");
        insta::assert_snapshot!(problem(r#"{"data":[{"embedding":[1,null]},{"embedding":[1,2]}]}"#), @"the embeddings do not answer the request: expected finite numbers in vector 0, got NaN at 1");
        // 7f c0 00 00 is no number, as a 32-bit float.
        insta::assert_snapshot!(problem(r#"{"data":[{"embedding":[1]},{"embedding":"AADAfw=="}]}"#), @"the embeddings do not answer the request: expected finite numbers in vector 1, got NaN at 0");
        insta::assert_snapshot!(problem(r#"{"data":[{"embedding":[1e300]},{"embedding":[1]}]}"#), @"the embeddings do not answer the request: expected finite numbers in vector 0, got inf at 0");
        insta::assert_snapshot!(problem(r#"{"data":[{"embedding":"AAA="},{"embedding":[1]}]}"#), @"expected base64 of 32-bit floats, of 4 bytes each in `data[0].embedding`, got 2 bytes");
        insta::assert_snapshot!(problem(r#"{"data":[{"embedding":"?"},{"embedding":[1]}]}"#), @r#"expected base64 of 32-bit floats in `data[0].embedding`, got "?""#);
        insta::assert_snapshot!(problem(r#"{"error":{"message":"no","code":"bad"}}"#), @"the provider answered with an error: no (bad)");
        insta::assert_snapshot!(problem("{}"), @"expected embeddings as JSON, got something else: missing field `data` at line 1 column 2");
        let wanted = two().dimensions(3);
        let body = r#"{"data":[{"embedding":[1,2]},{"embedding":[1,2]}]}"#;
        let short = parse_embeddings_response(body.as_bytes(), &wanted).expect_err("too short");
        insta::assert_snapshot!(short, @"the embeddings do not answer the request: expected 3 dimensions in vector 0, got 2");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            vectors in proptest::collection::vec(proptest::collection::vec(-1e6f32..1e6, 3), 1..5),
        ) {
            let texts = vectors.iter().map(|_| "x");
            let request = EmbeddingRequest::new("m").texts(texts);
            let answer = EmbeddingResponse { embeddings: vectors, ..EmbeddingResponse::default() };
            let body = embeddings_response_to_json(&answer).to_string();
            let read = parse_embeddings_response(body.as_bytes(), &request).expect("an answer");
            prop_assert_eq!(read, answer);
        }

        #[test]
        fn any_body_is_read_without_a_panic(body in "\\PC{0,80}") {
            let _ = parse_embeddings_response(body.as_bytes(), &two());
        }
    }
}
