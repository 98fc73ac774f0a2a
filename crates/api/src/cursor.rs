//! Where a page of a list begins: `cursor` names the item that was last on the page before, by its key. It begins with
//! characters that stand for the list and the version of its form, so that it is good for its own list only.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most items of a page, of all lists.
pub const MAX_LIMIT: usize = 500;

/// What a request should have as `cursor`.
pub const EXPECTED: &str =
    "a cursor as `next` of the page before gave it (leave it out for the first page)";

/// What a request should have as `limit`.
pub fn expected_limit() -> String {
    format!("a whole number from 1 to {MAX_LIMIT}")
}

/// The cursor for what comes behind the item with this key.
///
/// # Errors
/// When the key cannot be written as JSON.
pub fn of(list: &str, key: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(format!("{list}{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(key)?)))
}

/// The key that a cursor of this list holds; `None` when it is none of it.
pub fn key<K: DeserializeOwned>(list: &str, cursor: &str) -> Option<K> {
    let key = URL_SAFE_NO_PAD.decode(cursor.strip_prefix(list)?).ok()?;
    serde_json::from_slice(&key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_its_own_list_only() {
        let cursor = of("a1", &(7_u64, "route:chat")).expect("a cursor");
        assert_eq!(key("a1", &cursor), Some((7_u64, "route:chat".to_owned())));
        assert_eq!(key::<(u64, String)>("b1", &cursor), None);
        for wrong in ["", "a1", "a1!", "a1e30", "x"] {
            assert_eq!(key::<(u64, String)>("a1", wrong), None, "{wrong}");
        }
    }
}
