//! What pages load: built into the binary, served under an address that holds the content's hash,
//! so that browsers keep it for good and get the new one with a new version.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use throughline_api::InPath;

use crate::api::contract::{etag, known_versions, unless_known};
use crate::failure::Failure;

/// Hexadecimal characters of the hash in an address.
const HASH_CHARS: usize = 12;

struct Asset {
    name: &'static str,
    content_type: &'static str,
    body: Bytes,
    url: String,
}

impl Asset {
    /// The version of its content: the hash in its address.
    fn version(&self) -> Result<HeaderValue, Failure> {
        etag(&[self.url.as_bytes()])
    }
}

/// Style sheets in the order in which they apply.
const STYLES: [&str; 6] = [
    include_str!("../assets/theme.css"),
    include_str!("../assets/shell.css"),
    include_str!("../assets/lists.css"),
    include_str!("../assets/trace.css"),
    include_str!("../assets/panel.css"),
    include_str!("../assets/pages.css"),
];

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    const JS: &str = "text/javascript; charset=utf-8";
    let mut assets = vec![
        asset("geist.woff2", "font/woff2", include_bytes!("../assets/geist.woff2").as_slice()),
        asset(
            "geist-mono.woff2",
            "font/woff2",
            include_bytes!("../assets/geist-mono.woff2").as_slice(),
        ),
        asset("htmx.js", JS, include_bytes!("../assets/htmx.min.js").as_slice()),
        asset("app.js", JS, include_bytes!("../assets/app.js").as_slice()),
        asset("trace.js", JS, include_bytes!("../assets/trace.js").as_slice()),
        asset("mark.svg", "image/svg+xml", include_bytes!("../assets/mark.svg").as_slice()),
    ];
    let mut css = STYLES.concat();
    for font in &assets {
        css = css.replace(&format!("@asset({})", font.name), &font.url);
    }
    assets.push(asset("app.css", "text/css; charset=utf-8", css));
    assets
});

fn asset(name: &'static str, content_type: &'static str, body: impl Into<Bytes>) -> Asset {
    let body = body.into();
    let hash = blake3::hash(&body).to_hex();
    let url = format!("/assets/{}/{name}", &hash.as_str()[..HASH_CHARS]);
    Asset { name, content_type, body, url }
}

/// The address of an asset; empty for a name that is none (a test looks at every page's).
pub(crate) fn url(name: &str) -> &'static str {
    ASSETS.iter().find(|asset| asset.name == name).map_or("", |asset| asset.url.as_str())
}

/// `GET /assets/{hash}/{name}`
pub(crate) async fn serve(
    InPath((hash, name)): InPath<(String, String)>,
    headers_of_request: HeaderMap,
) -> Result<Response, Failure> {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return Err(Failure::not_found("asset", &name));
    };
    // An address of another version gets today's content, which must then not be kept.
    let is_current = asset.url.contains(&format!("/{hash}/"));
    let caching = if is_current { "public, max-age=31536000, immutable" } else { "no-store" };
    let headers = [(header::CONTENT_TYPE, asset.content_type), (header::CACHE_CONTROL, caching)];
    let mut response = (StatusCode::OK, headers, asset.body.clone()).into_response();
    response.headers_mut().insert(header::ETAG, asset.version()?);
    Ok(unless_known(response, known_versions(&headers_of_request).as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn style_sheets_point_to_hashed_addresses_only() {
        let css = &ASSETS.iter().find(|asset| asset.name == "app.css").unwrap().body;
        let css = std::str::from_utf8(css).unwrap();
        assert!(!css.contains("@asset("), "an asset was not replaced");
        assert!(css.contains(url("geist.woff2")));
        assert!(!css.contains("http:") && !css.contains("https:"), "nothing comes from elsewhere");
    }

    #[test]
    fn scripts_ask_nobody_else() {
        for name in ["app.js", "trace.js"] {
            let body = &ASSETS.iter().find(|asset| asset.name == name).unwrap().body;
            let text = std::str::from_utf8(body).unwrap();
            assert!(!text.contains("://"), "{name} names another site");
        }
    }
}
