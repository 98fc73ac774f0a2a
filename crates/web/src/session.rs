//! Signing in: cookies that need no memory on the server, form tokens, and a brake on guessing.
//!
//! A session cookie is `{key id}.{expiry}.{MAC}`. It names a key and never holds one; the key is
//! looked up in the live keyring at every request, so revoking it ends the session.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, header};

use crate::format::NANOS_PER_SEC;

/// How long a sign-in lasts, seconds.
pub(crate) const SESSION_SECS: u64 = 7 * 24 * 3_600;
/// Failed sign-ins that one address may have in a window.
pub(crate) const MAX_FAILED_SIGN_INS: u32 = 10;
/// Length of that window, seconds.
pub(crate) const SIGN_IN_WINDOW_SECS: u64 = 60;
/// Most addresses remembered; beyond it the oldest windows are forgotten first.
const MAX_ADDRESSES: usize = 4_096;

/// Cookie that binds the sign-in form to the browser that asked for it.
pub(crate) const PRE_COOKIE: &str = "tl_pre";
/// Cookie with the colour theme that a person chose; written by the script.
pub(crate) const THEME_COOKIE: &str = "tl_theme";

/// Name of the session cookie; under TLS with the prefix that ties it to this host.
pub(crate) fn session_cookie_name(is_tls: bool) -> &'static str {
    if is_tls { "__Host-tl_session" } else { "tl_session" }
}

/// The value of a session cookie for the key with this id.
pub(crate) fn seal(secret: &[u8; 32], key_id: &str, now_unix_nano: u64) -> String {
    let expires = now_unix_nano / NANOS_PER_SEC + SESSION_SECS;
    format!("{key_id}.{expires}.{}", session_mac(secret, key_id, expires).to_hex())
}

/// What a session cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session<'a> {
    /// Id of the key that signed in.
    pub(crate) key_id: &'a str,
    /// When it ends, seconds since the Unix epoch.
    pub(crate) expires_unix_secs: u64,
}

/// The session of a cookie that we made and that has not expired.
pub(crate) fn unseal<'a>(
    secret: &[u8; 32],
    cookie: &'a str,
    now_unix_nano: u64,
) -> Option<Session<'a>> {
    let (rest, mac) = cookie.rsplit_once('.')?;
    let (key_id, expires) = rest.rsplit_once('.')?;
    let expires: u64 = expires.parse().ok()?;
    let mac = blake3::Hash::from_hex(mac).ok()?;
    // `blake3::Hash` compares in constant time.
    let is_ours = session_mac(secret, key_id, expires) == mac;
    (is_ours && now_unix_nano / NANOS_PER_SEC < expires)
        .then_some(Session { key_id, expires_unix_secs: expires })
}

/// The token that a form must carry, bound to a cookie of the browser that shows the form.
pub(crate) fn form_token(secret: &[u8; 32], cookie: &str) -> String {
    blake3::keyed_hash(secret, format!("form\0{cookie}").as_bytes()).to_hex().to_string()
}

/// Whether a form carried the token of this cookie.
pub(crate) fn is_form_token(secret: &[u8; 32], cookie: &str, token: &str) -> bool {
    let expected = blake3::keyed_hash(secret, format!("form\0{cookie}").as_bytes());
    blake3::Hash::from_hex(token).is_ok_and(|token| token == expected)
}

fn session_mac(secret: &[u8; 32], key_id: &str, expires: u64) -> blake3::Hash {
    blake3::keyed_hash(secret, format!("session\0{key_id}\0{expires}").as_bytes())
}

/// The value of a cookie of a request.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// Counts failed sign-ins by address.
#[derive(Debug, Default)]
pub(crate) struct SignInLimiter {
    failed: Mutex<HashMap<Option<IpAddr>, (u64, u32)>>,
}

impl SignInLimiter {
    /// Seconds to wait before this address may try again; `None` when it may try now.
    pub(crate) fn wait_secs(&self, from: Option<IpAddr>, now_unix_nano: u64) -> Option<u64> {
        let now = now_unix_nano / NANOS_PER_SEC;
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = failed.get(&from)?;
        let ends = since + SIGN_IN_WINDOW_SECS;
        (*count >= MAX_FAILED_SIGN_INS && now < ends).then(|| ends - now)
    }

    /// Notes a failed sign-in.
    pub(crate) fn note_failure(&self, from: Option<IpAddr>, now_unix_nano: u64) {
        let now = now_unix_nano / NANOS_PER_SEC;
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= MAX_ADDRESSES && !failed.contains_key(&from) {
            failed.retain(|_, (since, _)| now < *since + SIGN_IN_WINDOW_SECS);
            let oldest = failed.iter().min_by_key(|(_, (since, _))| *since).map(|(at, _)| *at);
            if let (true, Some(oldest)) = (failed.len() >= MAX_ADDRESSES, oldest) {
                failed.remove(&oldest);
            }
        }
        let entry = failed.entry(from).or_insert((now, 0));
        if now >= entry.0 + SIGN_IN_WINDOW_SECS {
            *entry = (now, 0);
        }
        entry.1 += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [7; 32];
    const NOW: u64 = 1_700_000_000 * NANOS_PER_SEC;

    #[test]
    fn a_session_holds_until_it_expires_and_only_as_it_was_sealed() {
        let sealed = seal(&SECRET, "k1.2", NOW);
        let expires_unix_secs = NOW / NANOS_PER_SEC + SESSION_SECS;
        let session = Some(Session { key_id: "k1.2", expires_unix_secs });
        assert_eq!(unseal(&SECRET, &sealed, NOW), session);
        let last = NOW + (SESSION_SECS - 1) * NANOS_PER_SEC;
        assert_eq!(unseal(&SECRET, &sealed, last), session);
        assert_eq!(unseal(&SECRET, &sealed, last + NANOS_PER_SEC), None);
        assert_eq!(unseal(&[8; 32], &sealed, NOW), None);
        assert_eq!(unseal(&SECRET, &sealed.replace("k1.2", "k1.3"), NOW), None);
    }

    proptest::proptest! {
        /// No cookie that we did not make opens anything, and none makes us panic.
        #[test]
        fn foreign_cookies_open_nothing(cookie in "\\PC{0,120}") {
            proptest::prop_assert_eq!(unseal(&SECRET, &cookie, NOW), None);
        }

        /// Any other expiry than the sealed one is refused.
        #[test]
        fn the_expiry_is_sealed(expires in proptest::prelude::any::<u64>()) {
            let sealed = seal(&SECRET, "k", NOW);
            let true_expiry = NOW / NANOS_PER_SEC + SESSION_SECS;
            proptest::prop_assume!(expires != true_expiry);
            let forged = sealed.replace(&true_expiry.to_string(), &expires.to_string());
            proptest::prop_assert_eq!(unseal(&SECRET, &forged, NOW), None);
        }
    }

    #[test]
    fn guessing_is_slowed_by_address_and_forgiven_after_the_window() {
        let limiter = SignInLimiter::default();
        let here: Option<IpAddr> = Some([192, 0, 2, 1].into());
        for _ in 0..MAX_FAILED_SIGN_INS {
            assert_eq!(limiter.wait_secs(here, NOW), None);
            limiter.note_failure(here, NOW);
        }
        assert_eq!(limiter.wait_secs(here, NOW), Some(SIGN_IN_WINDOW_SECS));
        assert_eq!(limiter.wait_secs(Some([192, 0, 2, 2].into()), NOW), None);
        let later = NOW + SIGN_IN_WINDOW_SECS * NANOS_PER_SEC;
        assert_eq!(limiter.wait_secs(here, later), None);
        limiter.note_failure(here, later);
        assert_eq!(limiter.wait_secs(here, later), None);
    }

    #[test]
    fn the_memory_of_addresses_is_bounded() {
        let limiter = SignInLimiter::default();
        for at in 0..(MAX_ADDRESSES as u32 + 100) {
            limiter.note_failure(Some(IpAddr::V4(at.into())), NOW + u64::from(at));
        }
        assert_eq!(limiter.failed.lock().unwrap().len(), MAX_ADDRESSES);
    }
}
