//! A small deterministic tokenizer. Its counts are near those of real ones for English prose and
//! JSON, but they are the simulated provider's own: compare them with nothing else.

/// Longest run of letters that is one token, bytes; longer words are cut into pieces.
const WHOLE_WORD_BYTES: usize = 8;

/// Length of the pieces of a long word, bytes.
const WORD_PIECE_BYTES: usize = 5;

/// Digits that share a token.
const DIGITS_PER_TOKEN: usize = 3;

/// Tokens that frame one message (role and separators).
pub(crate) const MESSAGE_FRAME_TOKENS: u64 = 4;

/// Tokens that open every answer.
pub(crate) const ANSWER_FRAME_TOKENS: u64 = 3;

/// How many tokens the text has.
pub(crate) fn count(text: &str) -> u64 {
    pieces(text).len() as u64
}

/// The tokens of the text; put together they are the text again.
pub(crate) fn pieces(text: &str) -> Vec<&str> {
    let mut found = Vec::with_capacity(text.len() / 4 + 1);
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(first_piece_bytes(rest));
        found.push(piece);
        rest = tail;
    }
    found
}

/// Length of the first token of a text that is not empty: one space may lead a word or a number.
fn first_piece_bytes(text: &str) -> usize {
    let lead = usize::from(text.starts_with(' '));
    let body = &text[lead..];
    let Some(first) = body.chars().next() else { return lead };
    if first.is_ascii_alphabetic() {
        let word = body.bytes().take_while(u8::is_ascii_alphabetic).count();
        return lead + if word <= WHOLE_WORD_BYTES { word } else { WORD_PIECE_BYTES };
    }
    if first.is_ascii_digit() {
        return lead + body.bytes().take(DIGITS_PER_TOKEN).take_while(u8::is_ascii_digit).count();
    }
    if lead == 1 && first.is_whitespace() {
        return text.bytes().take_while(|byte| *byte == b' ').count().max(1);
    }
    if first == '\n' {
        return lead + body.bytes().take_while(|byte| *byte == b'\n').count();
    }
    lead + first.len_utf8()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_and_json_have_a_believable_number_of_tokens() {
        assert_eq!(
            pieces("The payment of 1249.00 EUR was unbelievably quick."),
            [
                "The", " payment", " of", " 124", "9", ".", "00", " EUR", " was", " unbel",
                "ievably", " quick", "."
            ]
        );
        assert_eq!(count(r#"{"card":"4417"}"#), 10);
        assert_eq!(count(""), 0);
    }

    proptest::proptest! {
        #[test]
        fn pieces_make_up_the_text_and_none_is_empty(text in "\\PC*|[ \n a-z0-9äß漢]*") {
            let pieces = pieces(&text);
            proptest::prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
            proptest::prop_assert_eq!(pieces.concat(), text);
        }
    }
}
