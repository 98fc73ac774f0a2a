//! A model provider: where it is, what it speaks, which key opens it.

use std::fs::File;
use std::io::Read as _;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::uri::{Authority, Scheme, Uri};
use throughline::telling;

use crate::api::Api;
use crate::config::{ProviderConfig, ProviderKind};
use crate::plan::PlanError;
use crate::way::Way;

/// Largest key file that is read, bytes: a wrong path should not fill the memory.
const MAX_KEY_FILE_BYTES: u64 = 16 * 1024;

/// The version of Azure's API that is asked for when the configuration names none.
pub(crate) const AZURE_API_VERSION: &str = "2024-10-21";

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// A provider, ready to be asked.
#[derive(Debug, Clone)]
pub(crate) struct Provider {
    pub(crate) name: String,
    pub(crate) kind: ProviderKind,
    /// `gen_ai.provider.name`.
    pub(crate) known_as: String,
    scheme: Scheme,
    authority: Authority,
    host: String,
    port: u16,
    /// The addresses of its APIs, where they are the same for all models, by the number of the API.
    addresses: Vec<Uri>,
    /// Path of the base address, without a slash at the end.
    path: String,
    key: Option<(HeaderName, HeaderValue)>,
    api_version: String,
    /// Streams are asked for their usage.
    pub(crate) streams_usage: bool,
    /// How it is reached.
    pub(crate) way: Way,
}

impl Provider {
    /// A provider of the configuration.
    pub(crate) fn of(
        config: &ProviderConfig,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, PlanError> {
        let wrong = |expected: &str, got: String| PlanError::Field {
            field: format!("gateway.providers[{}]", config.name),
            expected: expected.to_owned(),
            got,
        };
        if config.name.is_empty() || config.name.contains(char::is_whitespace) {
            let field = "gateway.providers[].name".to_owned();
            let expected = "a name without blanks".to_owned();
            return Err(PlanError::Field { field, expected, got: format!("{:?}", config.name) });
        }
        let base = match (&config.base_url, config.kind) {
            (Some(url), _) => url.as_str(),
            (None, ProviderKind::OpenAi) => throughline::OPENAI_BASE_URL,
            (None, ProviderKind::Anthropic) => throughline::ANTHROPIC_BASE_URL,
            (None, _) => return Err(wrong("a `base_url`", "none".to_owned())),
        };
        let shown = || base.rsplit('@').next().unwrap_or_default().to_owned();
        let uri: Uri = base
            .parse()
            .map_err(|_| wrong("a `base_url` such as https://api.openai.com/v1", shown()))?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(wrong("a `base_url` that begins with http:// or https://", shown()));
        };
        if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS {
            return Err(wrong("a `base_url` that begins with http:// or https://", shown()));
        }
        if authority.as_str().contains('@') || uri.query().is_some() {
            let expected = "a `base_url` without user, password and query; keys come from \
                            `api_key_env` or `api_key_file`";
            return Err(wrong(expected, shown()));
        }
        let mut path = uri.path().trim_end_matches('/').to_owned();
        // What Anthropic's own clients call the base address has no version in it.
        if config.kind == ProviderKind::Anthropic && path.is_empty() {
            path.push_str("/v1");
        }
        let key = key_of(config, env)?;
        let known_as = match config.kind {
            ProviderKind::OpenAi => "openai",
            ProviderKind::Anthropic => "anthropic",
            ProviderKind::AzureOpenAi => "azure.ai.openai",
            ProviderKind::OpenAiCompatible => {
                telling::provider_of_host(authority.host()).unwrap_or(&config.name)
            }
        };
        let usual_port = if *scheme == Scheme::HTTPS { 443 } else { 80 };
        let mut provider = Self {
            name: config.name.clone(),
            kind: config.kind,
            known_as: known_as.to_owned(),
            scheme: scheme.clone(),
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(usual_port),
            authority: authority.clone(),
            addresses: Vec::new(),
            path,
            key: key.map(|text| header_of(config, &text)).transpose()?,
            api_version: config.api_version.clone().unwrap_or_else(|| AZURE_API_VERSION.to_owned()),
            streams_usage: config.stream_usage.unwrap_or(true),
            way: Way::to(&uri, config, env)?,
        };
        if config.kind != ProviderKind::AzureOpenAi {
            let all = Api::ALL.into_iter().map(|api| provider.address_of(api, "")).collect();
            let all: Result<Vec<Uri>, http::Error> = all;
            provider.addresses = all.map_err(|error| wrong("a `base_url`", error.to_string()))?;
        }
        Ok(provider)
    }

    /// Whether it speaks OpenAI's API.
    pub(crate) fn is_openai_like(&self) -> bool {
        self.kind != ProviderKind::Anthropic
    }

    /// The API in which it is asked for what a client asks through `api`; `None` when it has none.
    pub(crate) fn api_for(&self, api: Api) -> Option<Api> {
        match (self.kind, api) {
            (ProviderKind::Anthropic, Api::Chat | Api::Responses | Api::Messages) => {
                Some(Api::Messages)
            }
            (ProviderKind::Anthropic, Api::Completions | Api::Embeddings) => None,
            (_, Api::Messages) => Some(Api::Chat),
            (_, own) => Some(own),
        }
    }

    /// The address of an API for a model.
    pub(crate) fn address(&self, api: Api, model: &str) -> Result<Uri, http::Error> {
        match self.addresses.get(api as usize) {
            Some(address) => Ok(address.clone()),
            None => self.address_of(api, model),
        }
    }

    fn address_of(&self, api: Api, model: &str) -> Result<Uri, http::Error> {
        let path = api.path();
        let path = match self.kind {
            ProviderKind::AzureOpenAi if api == Api::Responses => {
                format!("{}/openai{path}?api-version={}", self.path, self.api_version)
            }
            ProviderKind::AzureOpenAi => {
                let model = escaped(model);
                let version = &self.api_version;
                format!("{}/openai/deployments/{model}{path}?api-version={version}", self.path)
            }
            _ => format!("{}{path}", self.path),
        };
        self.uri(&path)
    }

    /// The address of the list of its models.
    pub(crate) fn models_address(&self) -> Result<Uri, http::Error> {
        match self.kind {
            ProviderKind::AzureOpenAi => {
                let (path, version) = (&self.path, &self.api_version);
                self.uri(&format!("{path}/openai/models?api-version={version}"))
            }
            _ => self.uri(&format!("{}/models", self.path)),
        }
    }

    fn uri(&self, path: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
    }

    /// The header with its key.
    pub(crate) fn key(&self) -> Option<&(HeaderName, HeaderValue)> {
        self.key.as_ref()
    }

    /// Host, for spans and messages.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Port, for spans.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

/// A part of a path, with everything but letters, digits and `-._~` escaped (RFC 3986, 2.1).
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

fn key_of(
    config: &ProviderConfig,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, PlanError> {
    let field = |key: &str| format!("gateway.providers[{}].{key}", config.name);
    match (&config.api_key_env, &config.api_key_file) {
        (Some(_), Some(_)) => Err(PlanError::Field {
            field: field("api_key_env"),
            expected: "one of `api_key_env` and `api_key_file`".to_owned(),
            got: "both".to_owned(),
        }),
        (Some(variable), None) => {
            let text = env(variable).map(|text| text.trim().to_owned());
            let text = text.filter(|text| !text.is_empty());
            text.map(Some).ok_or_else(|| PlanError::Field {
                field: field("api_key_env"),
                expected: format!("a key in the environment variable {variable}"),
                got: "none".to_owned(),
            })
        }
        (None, Some(path)) => {
            let mut text = String::new();
            File::open(path)
                .and_then(|file| file.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text))
                .map_err(|error| PlanError::Field {
                    field: field("api_key_file"),
                    expected: format!("a key in the file {}", path.display()),
                    got: error.to_string(),
                })?;
            match text.trim() {
                "" => Err(PlanError::Field {
                    field: field("api_key_file"),
                    expected: format!("a key in the file {}", path.display()),
                    got: "an empty file".to_owned(),
                }),
                text => Ok(Some(text.to_owned())),
            }
        }
        (None, None) => Ok(None),
    }
}

fn header_of(config: &ProviderConfig, key: &str) -> Result<(HeaderName, HeaderValue), PlanError> {
    let (name, text) = match config.kind {
        ProviderKind::Anthropic => (X_API_KEY, key.to_owned()),
        ProviderKind::AzureOpenAi => (API_KEY, key.to_owned()),
        ProviderKind::OpenAi | ProviderKind::OpenAiCompatible => {
            (AUTHORIZATION, format!("Bearer {key}"))
        }
    };
    let mut value = HeaderValue::try_from(text).map_err(|_| PlanError::Field {
        field: format!("gateway.providers[{}]", config.name),
        expected: "a key of visible ASCII characters".to_owned(),
        got: format!("another character among its {} bytes", key.len()),
    })?;
    value.set_sensitive(true);
    Ok((name, value))
}
