//! `[[embedding.providers]]`: who computes the models that this process does not. Meanings and defaults are in
//! `config/default.toml`, as a table that is commented out, since there is none by default.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use serde::Deserialize;
use url::Url;

use super::{ConfigError, EmbeddingConfig, Secret};

/// The most endpoints of one model.
const MAX_ENDPOINTS: usize = 64;
/// The most dimensions that Chroma's collections and this service are used with.
const MAX_DIMENSIONS: u32 = 65_536;

/// What a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// This process, from model files.
    #[default]
    Local,
    /// `POST {endpoint}/embeddings`, as OpenAI, vLLM, TEI, Ollama and llama.cpp have it.
    Openai,
    /// The embed wire of Chroma Cloud.
    ChromaCloud,
}

impl ProviderKind {
    /// As the configuration writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Openai => "openai",
            Self::ChromaCloud => "chroma_cloud",
        }
    }
}

/// One table of `[[embedding.providers]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ProviderConfig {
    pub model: String,
    #[serde(default)]
    pub provider: ProviderKind,
    #[serde(default)]
    pub sparse: bool,
    #[serde(default)]
    pub endpoints: Vec<Url>,
    #[serde(default)]
    pub api_key: Secret,
    #[serde(default)]
    pub remote_model: String,
    #[serde(default)]
    pub dimensions: u32,
    #[serde(default)]
    pub max_tokens: u32,
    #[serde(default)]
    pub takes_instructions: bool,
    #[serde(default)]
    pub tokenizer: PathBuf,
    #[serde(default = "max_batch_texts")]
    pub max_batch_texts: usize,
    #[serde(default = "max_batch_tokens")]
    pub max_batch_tokens: usize,
    #[serde(default = "max_batch_bytes")]
    pub max_batch_bytes: usize,
    #[serde(default = "concurrency")]
    pub concurrency: usize,
    #[serde(default = "connect_timeout_seconds")]
    pub connect_timeout_seconds: u64,
    #[serde(default = "min_timeout_seconds")]
    pub min_timeout_seconds: u64,
    #[serde(default = "max_timeout_seconds")]
    pub max_timeout_seconds: u64,
    #[serde(default = "deadline_seconds")]
    pub deadline_seconds: u64,
}

fn max_batch_texts() -> usize {
    32
}

fn max_batch_tokens() -> usize {
    16_384
}

fn max_batch_bytes() -> usize {
    1_048_576
}

fn concurrency() -> usize {
    4
}

fn connect_timeout_seconds() -> u64 {
    5
}

fn min_timeout_seconds() -> u64 {
    10
}

fn max_timeout_seconds() -> u64 {
    120
}

fn deadline_seconds() -> u64 {
    300
}

impl ProviderConfig {
    /// The model's name there.
    pub fn remote_name(&self) -> &str {
        match self.remote_model.as_str() {
            "" => &self.model,
            name => name,
        }
    }

    /// The least and the most time for one request.
    pub fn timeouts(&self) -> (Duration, Duration) {
        let seconds = Duration::from_secs;
        (
            seconds(self.min_timeout_seconds),
            seconds(self.max_timeout_seconds),
        )
    }

    fn refuse(&self, option: &'static str, problem: &str) -> ConfigError {
        ConfigError::Refused {
            option,
            problem: format!("of model {:?} {problem}", self.model),
        }
    }

    fn validate(&self, served: &[String]) -> Result<(), ConfigError> {
        if self.model.is_empty() {
            return Err(self.refuse("embedding.providers.model", "must name a model"));
        }
        if !self.sparse && !served.contains(&self.model) {
            return Err(self.refuse("embedding.providers.model", "must be one of embedding.models"));
        }
        match self.provider {
            ProviderKind::Local if self.endpoints.is_empty() && !self.sparse => return Ok(()),
            ProviderKind::Local => {
                let problem = "is \"local\", which has no endpoints and is not sparse; name another provider, or \
                               remove the table";
                return Err(self.refuse("embedding.providers.provider", problem));
            }
            ProviderKind::Openai if self.sparse => {
                let problem = "is \"openai\", which has no sparse embeddings; name \"chroma_cloud\"";
                return Err(self.refuse("embedding.providers.provider", problem));
            }
            ProviderKind::Openai | ProviderKind::ChromaCloud => {}
        }
        self.check_endpoints()?;
        self.check_numbers()
    }

    fn check_endpoints(&self) -> Result<(), ConfigError> {
        let option = "embedding.providers.endpoints";
        if self.endpoints.is_empty() || self.endpoints.len() > MAX_ENDPOINTS {
            let problem = format!("must have 1 to {MAX_ENDPOINTS} URLs");
            return Err(self.refuse(option, &problem));
        }
        let is_http = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        if !self.endpoints.iter().all(is_http) {
            return Err(self.refuse(option, "must be http:// or https:// URLs"));
        }
        if self
            .endpoints
            .iter()
            .any(|url| url.query().is_some() || url.fragment().is_some())
        {
            return Err(self.refuse(option, "must not have a query or a fragment"));
        }
        let different: HashSet<&Url> = self.endpoints.iter().collect();
        if different.len() != self.endpoints.len() {
            return Err(self.refuse(option, "must differ from each other"));
        }
        let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        if !self.api_key.expose().bytes().all(printable) {
            return Err(self.refuse(
                "embedding.providers.api_key",
                "must have visible ASCII characters only",
            ));
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        let dimensions = "embedding.providers.dimensions";
        if self.sparse && self.dimensions != 0 {
            return Err(self.refuse(dimensions, "must be left out, since it is sparse"));
        }
        if !self.sparse && !(1..=MAX_DIMENSIONS).contains(&self.dimensions) {
            let problem =
                format!("must be the length of the vectors that its servers give, 1 to {MAX_DIMENSIONS}");
            return Err(self.refuse(dimensions, &problem));
        }
        let positive = [
            ("embedding.providers.max_tokens", u64::from(self.max_tokens)),
            ("embedding.providers.max_batch_texts", self.max_batch_texts as u64),
            (
                "embedding.providers.max_batch_tokens",
                self.max_batch_tokens as u64,
            ),
            ("embedding.providers.max_batch_bytes", self.max_batch_bytes as u64),
            ("embedding.providers.concurrency", self.concurrency as u64),
            (
                "embedding.providers.connect_timeout_seconds",
                self.connect_timeout_seconds,
            ),
            (
                "embedding.providers.min_timeout_seconds",
                self.min_timeout_seconds,
            ),
        ];
        for (option, value) in positive {
            if value == 0 {
                return Err(self.refuse(option, "must be at least 1"));
            }
        }
        if self.max_timeout_seconds < self.min_timeout_seconds {
            return Err(self.refuse(
                "embedding.providers.max_timeout_seconds",
                "must not be less than min_timeout_seconds",
            ));
        }
        if self.deadline_seconds < self.max_timeout_seconds {
            return Err(self.refuse(
                "embedding.providers.deadline_seconds",
                "must not be less than max_timeout_seconds",
            ));
        }
        Ok(())
    }
}

impl EmbeddingConfig {
    /// Who computes `model`; none is this process.
    pub fn provider(&self, model: &str) -> Option<&ProviderConfig> {
        self.providers
            .iter()
            .find(|provider| provider.model == model && provider.provider != ProviderKind::Local)
    }

    pub(super) fn check_providers(&self) -> Result<(), ConfigError> {
        let mut seen = HashSet::new();
        for provider in &self.providers {
            provider.validate(&self.models)?;
            if !seen.insert(&provider.model) {
                return Err(provider.refuse("embedding.providers.model", "must have one table"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, DEFAULT_CONFIG};
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path), [], &[])
    }

    fn provider(lines: &str) -> Result<Config, ConfigError> {
        load(&format!(
            "[embedding]\nmodels = [\"a/b\"]\ndefault_model = \"a/b\"\n[[embedding.providers]]\n{lines}"
        ))
    }

    const WHOLE: &str = "model = \"a/b\"\nprovider = \"openai\"\nendpoints = [\"http://h:1/v1\"]\n\
                         dimensions = 3\nmax_tokens = 8\n";

    /// The commented table of the default file, without its signs.
    fn documented() -> String {
        let lines = DEFAULT_CONFIG
            .lines()
            .skip_while(|line| *line != "# [[embedding.providers]]");
        let lines: Vec<&str> = lines
            .take_while(|line| line.starts_with('#'))
            .map(|line| line.trim_start_matches('#').trim())
            .collect();
        lines[1..].join("\n")
    }

    #[test]
    fn what_the_default_file_documents_is_what_a_short_table_gets() {
        let text: Vec<String> = documented()
            .lines()
            .filter(|line| line.contains(" = ") && !line.ends_with('.'))
            .map(str::to_owned)
            .collect();
        let table: toml::Table = text.join("\n").parse().unwrap();
        let fields = table.len();
        let documented: ProviderConfig = table.try_into().unwrap();
        assert_eq!(fields, 18, "every key is documented");
        let config = load("[embedding]\nmodels = [\"Qwen/Qwen3-Embedding-0.6B\"]\ndefault_model = \"Qwen/Qwen3-Embedding-0.6B\"\n[[embedding.providers]]\nmodel = \"Qwen/Qwen3-Embedding-0.6B\"\nprovider = \"openai\"\nendpoints = [\"http://127.0.0.1:8080/v1\"]\ndimensions = 1024\nmax_tokens = 8192\ntakes_instructions = true\n").unwrap();
        let short = &config.embedding.providers[0];
        assert_eq!(format!("{documented:?}"), format!("{short:?}"));
    }

    #[test]
    fn a_provider_is_found_by_the_name_of_its_model_and_may_call_it_otherwise() {
        let config = provider(&format!("{WHOLE}remote_model = \"c\"\n")).unwrap();
        let found = config.embedding.provider("a/b").unwrap();
        assert_eq!((found.remote_name(), found.max_batch_texts), ("c", 32));
        let config = provider(WHOLE).unwrap();
        assert_eq!(config.embedding.provider("a/b").unwrap().remote_name(), "a/b");
        let config = provider("model = \"a/b\"\n").unwrap();
        assert!(config.embedding.provider("a/b").is_none(), "local");
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_key() {
        let two = format!("{WHOLE}[[embedding.providers]]\n{WHOLE}");
        for (lines, key) in [
            ("model = \"c/d\"", "model"),
            ("model = \"\"", "model"),
            ("model = \"a/b\"\nendpoints = [\"http://h\"]", "provider"),
            (
                "model = \"s/s\"\nsparse = true\nprovider = \"openai\"",
                "provider",
            ),
            ("model = \"a/b\"\nprovider = \"openai\"", "endpoints"),
            (&WHOLE.replace("http://h:1/v1", "ftp://h"), "endpoints"),
            (&WHOLE.replace("/v1", "/v1?key=x"), "endpoints"),
            (
                &WHOLE.replace("\"http://h:1/v1\"", "\"http://h\", \"http://h/\""),
                "endpoints",
            ),
            (&WHOLE.replace("dimensions = 3", ""), "dimensions"),
            (
                &WHOLE.replace("dimensions = 3", "dimensions = 70000"),
                "dimensions",
            ),
            (&WHOLE.replace("max_tokens = 8", ""), "max_tokens"),
            (&format!("{WHOLE}max_batch_texts = 0"), "max_batch_texts"),
            (&format!("{WHOLE}concurrency = 0"), "concurrency"),
            (&format!("{WHOLE}max_timeout_seconds = 1"), "max_timeout_seconds"),
            (&format!("{WHOLE}deadline_seconds = 9"), "deadline_seconds"),
            (&format!("{WHOLE}api_key = \"a\\nb\""), "api_key"),
            (&two, "model"),
        ] {
            let error = provider(lines).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("embedding.providers.{key}: of model ")),
                "{lines}: {error}"
            );
        }
        let unknown = provider(&format!("{WHOLE}endpoint = \"x\"")).unwrap_err();
        assert!(crate::error::chain(&unknown).contains("endpoint"), "{unknown:?}");
    }

    #[test]
    fn providers_may_come_from_the_environment_whole() {
        let value = "[{model=\"sentence-transformers/all-MiniLM-L6-v2\", provider=\"openai\", \
                     endpoints=[\"http://h/v1\"], dimensions=384, max_tokens=256, api_key=\"planted-secret\"}]";
        let name = "CHROMA_SYNC__EMBEDDING__PROVIDERS";
        let config = Config::load(None, [(name.to_owned(), value.to_owned())], &[]).unwrap();
        let provider = config
            .embedding
            .provider("sentence-transformers/all-MiniLM-L6-v2");
        assert_eq!(provider.unwrap().api_key.expose(), "planted-secret");
        assert!(!format!("{config:?}").contains("planted-secret"));
        let wrong = Config::load(None, [(name.to_owned(), "[{".to_owned())], &[]).unwrap_err();
        assert!(wrong.to_string().contains("not valid"), "{wrong}");
    }
}
