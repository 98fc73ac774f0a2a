//! The builder of the clients.

use std::fmt;
use std::marker::PhantomData;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;

use super::client::{Form, ModelClient, Spec};
use super::wire::Wire;
use crate::chat::Endpoint;
use crate::http_client::{self, without_userinfo};

/// Hosts of providers, with the names that the GenAI conventions give them.
const PROVIDERS: [(&str, &str); 12] = [
    ("api.openai.com", "openai"),
    ("openai.azure.com", "azure.ai.openai"),
    ("services.ai.azure.com", "azure.ai.inference"),
    ("api.anthropic.com", "anthropic"),
    ("api.cohere.com", "cohere"),
    ("api.deepseek.com", "deepseek"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.moonshot.ai", "moonshot_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.x.ai", "x_ai"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
];

/// `gen_ai.provider.name` of whoever is at this host, if it is known.
pub fn provider_of_host(host: &str) -> Option<&'static str> {
    let is_at = |suffix: &str| host == suffix || host.ends_with(&format!(".{suffix}"));
    PROVIDERS.iter().find(|(suffix, _)| is_at(suffix)).map(|(_, name)| *name)
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The base address is no HTTP address.
    #[error(
        "expected an http or https address such as {example}, got {got:?}; set {variable} or call base_url"
    )]
    BaseUrl {
        /// What came, without user and password.
        got: String,
        /// An address of this kind.
        example: &'static str,
        /// The variable that it may come from.
        variable: &'static str,
    },
    /// The environment has no key, which the provider itself wants of everybody.
    #[error(
        "expected a key in {key_variable}, got none; set it, or set {url_variable} to the address of a server that takes requests without one"
    )]
    NoKey {
        /// The variable of the key.
        key_variable: &'static str,
        /// That of the address.
        url_variable: &'static str,
    },
    /// A key or header has characters that HTTP cannot carry.
    #[error("expected a header value of visible ASCII characters in {name}, got others")]
    Header {
        /// The header.
        name: String,
    },
    /// TLS or the connection pool could not be set up.
    #[error("cannot set up the HTTP client: {0}")]
    Client(String),
}

/// [`ClientError`] under its first name.
pub type OpenAiError = ClientError;

/// How a client is to be.
pub struct ClientBuilder<F> {
    base_url: String,
    api_key: Option<String>,
    provider: Option<String>,
    headers: Vec<(String, String)>,
    query: Vec<(String, String)>,
    propagates_baggage: bool,
    form: PhantomData<fn() -> F>,
}

impl<F> Clone for ClientBuilder<F> {
    fn clone(&self) -> Self {
        Self {
            base_url: self.base_url.clone(),
            api_key: self.api_key.clone(),
            provider: self.provider.clone(),
            headers: self.headers.clone(),
            query: self.query.clone(),
            propagates_baggage: self.propagates_baggage,
            form: PhantomData,
        }
    }
}

impl<F> fmt::Debug for ClientBuilder<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |pairs: &[(String, String)]| -> Vec<String> {
            pairs.iter().map(|(name, _)| name.clone()).collect()
        };
        f.debug_struct("ClientBuilder")
            .field("base_url", &shown(&self.base_url))
            .field("has_api_key", &self.api_key.is_some())
            .field("provider", &self.provider)
            .field("headers", &names(&self.headers))
            .field("query", &names(&self.query))
            .field("propagates_baggage", &self.propagates_baggage)
            .finish()
    }
}

impl<F: Form> ClientBuilder<F> {
    pub(super) fn new() -> Self {
        Self {
            base_url: F::SPEC.base_url.to_owned(),
            api_key: None,
            provider: None,
            headers: Vec::new(),
            query: Vec::new(),
            propagates_baggage: false,
            form: PhantomData,
        }
    }

    /// With what the variables of the provider say.
    ///
    /// # Errors
    /// [`ClientError::NoKey`] when they say neither a key nor an address.
    pub(super) fn from_env() -> Result<Self, ClientError> {
        let variable =
            |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let (url_variable, key_variable) = (F::SPEC.url_variable, F::SPEC.key_variable);
        let (url, key) = (variable(url_variable), variable(key_variable));
        if url.is_none() && key.is_none() {
            return Err(ClientError::NoKey { key_variable, url_variable });
        }
        let mut builder = Self::new();
        if let Some(url) = url {
            builder = builder.base_url(url);
        }
        if let Some(key) = key {
            builder = builder.api_key(key);
        }
        Ok(builder)
    }

    /// The address below which the provider's paths are: for OpenAI's forms with the version
    /// (`http://127.0.0.1:4319/v1`), for Anthropic's with or without it. A query in it is kept.
    #[must_use]
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = url.into();
        self
    }

    /// The key: a bearer token for OpenAI, `x-api-key` for Anthropic.
    #[must_use]
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// `gen_ai.provider.name`; known by the host when not said, else as the form's inventor is called.
    #[must_use]
    pub fn provider(mut self, name: impl Into<String>) -> Self {
        self.provider = Some(name.into());
        self
    }

    /// A header of every request (`api-key`, `OpenAI-Organization`, `anthropic-beta`).
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A parameter of every request's address (`api-version`, for Azure).
    #[must_use]
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// Whether requests carry the agent, session and workflow ids, and what else of the baggage may
    /// cross processes ([`propagation`](crate::propagation)). They do not when nobody says: a
    /// provider is a third party, to whom these ids say who asks. Say yes for a gateway or a model
    /// server of your own, whose spans are to bear them. The trace context always goes: its ids mean
    /// nothing to others.
    #[must_use]
    pub fn propagate_baggage(mut self, wanted: bool) -> Self {
        self.propagates_baggage = wanted;
        self
    }

    /// Makes the client. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ClientError`] when the address, the key or a header cannot be meant, or TLS not be set up.
    pub fn build(self) -> Result<ModelClient<F>, ClientError> {
        let spec = F::SPEC;
        let base = self.base(spec)?;
        let host = base.host_str().unwrap_or_default().to_owned();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in spec.headers {
            insert(&mut headers, name, value)?;
        }
        if let Some(key) = &self.api_key {
            let value = format!("{}{}", spec.key_prefix, key.trim());
            insert(&mut headers, spec.key_header, &value)?;
        }
        for (name, value) in &self.headers {
            insert(&mut headers, name, value)?;
        }
        let known = provider_of_host(&host);
        let endpoint = Endpoint {
            provider: self.provider.unwrap_or_else(|| known.unwrap_or(spec.provider).to_owned()),
            server_port: base.port_or_known_default(),
            server_address: Some(host),
        };
        Ok(ModelClient::of(Wire {
            form: spec.form,
            http: http_client::client(&base).map_err(ClientError::Client)?,
            base,
            endpoint,
            headers,
            propagates_baggage: self.propagates_baggage,
        }))
    }

    fn base(&self, spec: &Spec) -> Result<Url, ClientError> {
        let bad_url = || ClientError::BaseUrl {
            got: shown(&self.base_url),
            example: spec.base_url,
            variable: spec.url_variable,
        };
        let mut url = Url::parse(self.base_url.trim()).map_err(|_| bad_url())?;
        if url.host_str().is_none() || !matches!(url.scheme(), "http" | "https") {
            return Err(bad_url());
        }
        if !url.path().trim_end_matches('/').ends_with(spec.prefix) {
            url = below(&url, spec.prefix);
        }
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }
}

/// An address as it may be shown: without user, password and parameters, which may be keys.
pub(super) fn shown(address: &str) -> String {
    let end = address.find('?').unwrap_or(address.len());
    without_userinfo(&address[..end])
}

/// The address of a path below another.
pub(super) fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), ClientError> {
    let bad = || ClientError::Header { name: name.to_owned() };
    let key = HeaderName::try_from(name).map_err(|_| bad())?;
    let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
    value.set_sensitive(true);
    headers.insert(key, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::chat::ChatModel as _;
    use crate::providers::{Anthropic, OpenAi, OpenAiBuilder, OpenAiResponses};

    #[test]
    fn providers_are_known_by_their_host() {
        let provider =
            |url: &str| OpenAi::builder().base_url(url).build().map(|c| c.endpoint().provider);
        assert_eq!(provider("https://api.groq.com/openai/v1").ok().as_deref(), Some("groq"));
        assert_eq!(
            provider("https://acme.openai.azure.com/").ok().as_deref(),
            Some("azure.ai.openai")
        );
        assert_eq!(provider("http://127.0.0.1:4319/v1/").ok().as_deref(), Some("openai"));
        let other = Anthropic::builder().base_url("http://127.0.0.1:1").build().expect("a client");
        assert_eq!(other.endpoint().provider, "anthropic");
    }

    #[test]
    fn paths_go_below_the_base_address_and_queries_stay() {
        let openai = |url: &str| {
            let client = OpenAi::builder().base_url(url).query("api-version", "2024-10-21").build();
            client.expect("a client").chat_address()
        };
        insta::assert_snapshot!(openai("http://127.0.0.1:1/v1/"), @"http://127.0.0.1:1/v1/chat/completions?api-version=2024-10-21");
        insta::assert_snapshot!(openai("https://acme.openai.azure.com/openai/deployments/gpt?x=1"), @"https://acme.openai.azure.com/openai/deployments/gpt/chat/completions?x=1&api-version=2024-10-21");
        let responses = OpenAiResponses::builder().build().expect("a client");
        insta::assert_snapshot!(responses.chat_address(), @"https://api.openai.com/v1/responses");
        let anthropic = |url: &str| {
            Anthropic::builder().base_url(url).build().expect("a client").chat_address()
        };
        insta::assert_snapshot!(anthropic("http://127.0.0.1:1"), @"http://127.0.0.1:1/v1/messages");
        insta::assert_snapshot!(anthropic("http://127.0.0.1:1/v1"), @"http://127.0.0.1:1/v1/messages");
        insta::assert_snapshot!(anthropic("http://127.0.0.1:1/proxy/"), @"http://127.0.0.1:1/proxy/v1/messages");
    }

    #[test]
    fn secrets_do_not_show() {
        let builder = OpenAi::builder()
            .base_url("http://user:hunter2@127.0.0.1:1/v1")
            .api_key("hunter2")
            .header("api-key", "hunter2")
            .query("key", "hunter2");
        insta::assert_snapshot!(format!("{builder:?}"), @r#"ClientBuilder { base_url: "http://127.0.0.1:1/v1", has_api_key: true, provider: None, headers: ["api-key"], query: ["key"], propagates_baggage: false }"#);
        for bad in ["ftp://user:hunter2@x", "user:hunter2@x", "http://user:hunter2@x:port"] {
            let error = OpenAi::builder().base_url(bad).build().expect_err("a bad address");
            let told = format!("{error} {error:?}");
            assert!(!told.contains("hunter2"), "{told}");
        }
        let client = OpenAi::builder().base_url("http://user:hunter2@127.0.0.1:1/v1?key=hunter2");
        let client = format!("{:?}", client.api_key("hunter2").build().expect("a client"));
        assert!(client.contains("127.0.0.1") && !client.contains("hunter2"), "{client}");
    }

    #[test]
    fn bad_settings_say_what_is_expected() {
        let message = |builder: OpenAiBuilder| builder.build().map(|_| ()).unwrap_err().to_string();
        insta::assert_snapshot!(message(OpenAi::builder().base_url("ftp://x")), @r#"expected an http or https address such as https://api.openai.com/v1, got "ftp://x"; set OPENAI_BASE_URL or call base_url"#);
        insta::assert_snapshot!(message(OpenAi::builder().api_key("a\nb")), @"expected a header value of visible ASCII characters in authorization, got others");
        let anthropic = Anthropic::builder().base_url("x").build().map(|_| ()).unwrap_err();
        insta::assert_snapshot!(anthropic.to_string(), @r#"expected an http or https address such as https://api.anthropic.com, got "x"; set ANTHROPIC_BASE_URL or call base_url"#);
    }
}
