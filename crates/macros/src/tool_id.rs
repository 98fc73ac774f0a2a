//! The rule of tool ids, at compile time. A test of `throughline` holds that it is the same one.

use syn::{Error, LitStr};

/// Characters of a tool id at most.
const TOOL_ID_MAX_CHARS: usize = 64;

/// Name and version of an id such as `web_search_v2`.
pub(crate) fn parse(id: &LitStr) -> Result<(String, u32), Error> {
    let text = id.value();
    let wrong = |what: &str| {
        let message = format!("{what}, got {text:?}; write for example \"web_search_v2\"");
        Error::new(id.span(), message)
    };
    let Some((name, version)) = text.rsplit_once("_v") else {
        return Err(wrong("expected a tool id with its version"));
    };
    let is_number = !version.is_empty() && version.bytes().all(|c| c.is_ascii_digit());
    let Some(number) = version.parse::<u32>().ok().filter(|_| is_number) else {
        return Err(wrong("expected a number after the _v of a tool id"));
    };
    if number.to_string() != version {
        return Err(wrong("expected the version of a tool id without leading zeros"));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(fits) {
        return Err(wrong("expected a tool name of a-z, A-Z, 0-9, '_' and '-'"));
    }
    if text.len() > TOOL_ID_MAX_CHARS {
        let most = format!("expected a tool id of at most {TOOL_ID_MAX_CHARS} characters");
        return Err(wrong(&most));
    }
    Ok((name.to_owned(), number))
}
