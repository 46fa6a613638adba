//! Configuration: the compiled-in default file, then a file, then the environment, then flags.
//!
//! Every option lives in `config/default.toml` with its meaning and default, and nowhere else. An
//! unknown key is an error, so a misspelt option never goes unnoticed. Combinations are checked by
//! [`Config::validate`]. Secrets are of type [`Secret`], which never prints.

mod embedding;
mod metrics;
mod providers;
mod s3;
mod sections;

use std::path::{Path, PathBuf};

pub use crate::secret::Secret;
pub use embedding::{EmbeddingConfig, EmbeddingDevice, EmbeddingPrecision};
pub use metrics::MetricsConfig;
pub use providers::{ProviderConfig, ProviderKind};
pub use s3::{S3Config, SqsConfig};
pub use sections::*;

/// The default file, which is also the documentation of every option.
pub const DEFAULT_CONFIG: &str = include_str!("../../config/default.toml");

/// Prefix of environment variables: `CHROMA_SYNC__SECTION__KEY`.
pub const ENVIRONMENT_PREFIX: &str = "CHROMA_SYNC__";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {path} is not valid TOML")]
    Syntax {
        /// Its path.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// An environment variable or flag names no option.
    #[error("{origin} does not name an option; see config/default.toml for all of them")]
    UnknownKey {
        /// The variable or flag.
        origin: String,
    },
    /// A key is unknown or a value has the wrong type.
    #[error("the configuration is not valid")]
    Invalid {
        /// Which key and why.
        source: Box<toml::de::Error>,
    },
    /// A value or combination of values makes no sense.
    #[error("{option}: {problem}")]
    Refused {
        /// The option, as `section.key`.
        option: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// The whole configuration.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The listening side.
    pub server: ServerConfig,
    /// Where counts are read.
    pub metrics: MetricsConfig,
    /// The service's own database.
    pub store: StoreConfig,
    /// The Chroma server.
    pub chroma: ChromaConfig,
    /// Who may call.
    pub auth: AuthConfig,
    /// Secrets at rest.
    pub encryption: EncryptionConfig,
    /// Git repositories.
    pub github: GithubConfig,
    /// Buckets.
    pub s3: S3Config,
    /// The queue of events about objects.
    pub sqs: SqsConfig,
    /// Web sites.
    pub web: WebConfig,
    /// Uploaded files.
    pub uploads: UploadsConfig,
    /// Model files.
    pub models: ModelsConfig,
    /// Embedding.
    pub embedding: EmbeddingConfig,
    /// Documents to Markdown.
    pub parse: ParseConfig,
    /// The worker.
    pub worker: WorkerConfig,
    /// Watches.
    pub watch: WatchConfig,
    /// Deliveries to webhooks.
    pub webhooks: WebhooksConfig,
    /// What fetches and webhooks may reach.
    pub egress: EgressConfig,
    /// Logging.
    pub log: LogConfig,
}

impl Config {
    /// Reads the default file, `file`, then `environment`, then `flags` (`section.key`, value).
    ///
    /// # Errors
    /// See [`ConfigError`]. The result is validated.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let mut table: toml::Table = DEFAULT_CONFIG.parse().map_err(|source| ConfigError::Invalid {
            source: Box::new(source),
        })?;
        if let Some(path) = file {
            merge(&mut table, read(path)?);
        }
        for (name, value) in environment {
            if let Some(option) = name.strip_prefix(ENVIRONMENT_PREFIX) {
                let option = option.to_ascii_lowercase().replace("__", ".");
                set(&mut table, &name, &option, &value)?;
            }
        }
        for (option, value) in flags {
            set(&mut table, option, option, value)?;
        }
        let config: Self = table.try_into().map_err(|source| ConfigError::Invalid {
            source: Box::new(source),
        })?;
        config.validate()?;
        Ok(config)
    }
}

fn read(path: &Path) -> Result<toml::Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    text.parse().map_err(|source| ConfigError::Syntax {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

fn merge(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Sets one option from text, read as the type that the default has.
fn set(table: &mut toml::Table, origin: &str, option: &str, text: &str) -> Result<(), ConfigError> {
    let unknown = || ConfigError::UnknownKey {
        origin: origin.to_owned(),
    };
    let (sections, key) = option.rsplit_once('.').ok_or_else(unknown)?;
    let section = sections
        .split('.')
        .try_fold(table, |table, name| table.get_mut(name)?.as_table_mut())
        .ok_or_else(unknown)?;
    let slot = section.get_mut(key).ok_or_else(unknown)?;
    *slot = match slot {
        toml::Value::String(_) => toml::Value::String(text.to_owned()),
        toml::Value::Integer(_) => text
            .parse()
            .map(toml::Value::Integer)
            .unwrap_or(toml::Value::String(text.to_owned())),
        toml::Value::Float(_) => text
            .parse()
            .map(toml::Value::Float)
            .unwrap_or(toml::Value::String(text.to_owned())),
        toml::Value::Boolean(_) => text
            .parse()
            .map(toml::Value::Boolean)
            .unwrap_or(toml::Value::String(text.to_owned())),
        // An array of tables is written as in the file.
        toml::Value::Array(_) if text.trim_start().starts_with('[') => {
            let mut parsed: toml::Table =
                format!("value = {text}")
                    .parse()
                    .map_err(|source| ConfigError::Invalid {
                        source: Box::new(source),
                    })?;
            parsed.remove("value").ok_or_else(unknown)?
        }
        toml::Value::Array(_) => toml::Value::Array(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| toml::Value::String(item.to_owned()))
                .collect(),
        ),
        toml::Value::Datetime(_) | toml::Value::Table(_) => return Err(unknown()),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(None, environment, &[])
    }

    #[test]
    fn the_default_file_is_a_valid_configuration() {
        let config = load(&[]).unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:50051");
        assert_eq!(config.worker.lease().as_secs(), 30);
    }

    #[test]
    fn the_environment_overrides_the_default() {
        let config = load(&[
            ("CHROMA_SYNC__STORE__URL", "postgres://localhost/x"),
            ("CHROMA_SYNC__WORKER__CONCURRENCY", "7"),
            ("CHROMA_SYNC__EGRESS__ALLOW", "10.0.0.0/8, localhost"),
            ("UNRELATED", "x"),
        ])
        .unwrap();
        assert_eq!(config.store.url.expose(), "postgres://localhost/x");
        assert_eq!(config.worker.concurrency, 7);
        assert_eq!(config.egress.allow, ["10.0.0.0/8", "localhost"]);
    }

    #[test]
    fn the_environment_reaches_a_section_in_a_section() {
        let config = load(&[("CHROMA_SYNC__PARSE__IMAGE_DESCRIPTIONS__MODEL", "m")]).unwrap();
        assert_eq!(config.parse.image_descriptions.model, "m");
        for name in [
            "CHROMA_SYNC__PARSE__IMAGE_DESCRIPTIONS",
            "CHROMA_SYNC__PARSE__X__MODEL",
        ] {
            assert!(load(&[(name, "m")]).is_err(), "{name}");
        }
    }

    #[test]
    fn descriptions_of_pictures_need_a_model() {
        let url = (
            "CHROMA_SYNC__PARSE__IMAGE_DESCRIPTIONS__URL",
            "http://localhost:11434/v1",
        );
        let error = load(&[url]).unwrap_err();
        assert!(
            error.to_string().starts_with("parse.image_descriptions.model"),
            "{error}"
        );
        let wrong = ("CHROMA_SYNC__PARSE__IMAGE_DESCRIPTIONS__URL", "localhost:11434");
        let error = load(&[wrong]).unwrap_err();
        assert!(
            error.to_string().starts_with("parse.image_descriptions.url"),
            "{error}"
        );
        let model = ("CHROMA_SYNC__PARSE__IMAGE_DESCRIPTIONS__MODEL", "m");
        let base = load(&[url, model]).unwrap().parse.image_descriptions.base();
        assert_eq!(base.unwrap().as_str(), "http://localhost:11434/v1");
    }

    #[test]
    fn the_device_of_models_is_the_cpu_or_a_gpu_by_its_number() {
        let device = |text: &str| {
            let config = load(&[("CHROMA_SYNC__EMBEDDING__DEVICE", text)]);
            config.map(|config| config.embedding.device)
        };
        assert_eq!(load(&[]).unwrap().embedding.device, EmbeddingDevice::Cpu);
        assert_eq!(device("cpu").unwrap(), EmbeddingDevice::Cpu);
        for (text, ordinal) in [("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)] {
            assert_eq!(device(text).unwrap(), EmbeddingDevice::Cuda { ordinal });
        }
        for text in [
            "",
            "gpu",
            "CUDA",
            "cuda:",
            "cuda:+1",
            "cuda:-1",
            "cuda:1 ",
            "cuda:99999999999999999999",
        ] {
            let problem = crate::error::chain(&device(text).unwrap_err());
            let expected = format!("embedding.device is {text:?}, not \"cpu\", \"cuda\", or \"cuda:N\"");
            assert!(problem.contains(&expected), "{problem}");
        }
    }

    #[test]
    fn a_flag_overrides_the_environment() {
        let environment = [("CHROMA_SYNC__SERVER__LISTEN".to_owned(), "127.0.0.1:1".to_owned())];
        let config = Config::load(None, environment, &[("server.listen", "127.0.0.1:2".to_owned())]).unwrap();
        assert_eq!(config.server.listen.port(), 2);
    }

    #[test]
    fn an_unknown_variable_is_an_error_that_names_it() {
        let error = load(&[("CHROMA_SYNC__SERVER__LISTN", "x")]).unwrap_err();
        assert!(
            error.to_string().contains("CHROMA_SYNC__SERVER__LISTN"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_key_in_the_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, "[server]\nlistn = \"x\"\n").unwrap();
        let error = Config::load(Some(&path), [], &[]).unwrap_err();
        assert!(crate::error::chain(&error).contains("listn"), "{error:?}");
    }

    #[test]
    fn mode_none_is_refused_beyond_loopback() {
        let mode = ("CHROMA_SYNC__AUTH__MODE", "none");
        assert!(load(&[mode]).is_ok());
        let error = load(&[mode, ("CHROMA_SYNC__SERVER__LISTEN", "0.0.0.0:50051")]).unwrap_err();
        assert!(error.to_string().starts_with("auth.mode"), "{error}");
    }

    #[test]
    fn secrets_never_print() {
        let config = load(&[
            ("CHROMA_SYNC__GITHUB__TOKEN", "planted-secret"),
            ("CHROMA_SYNC__STORE__URL", "postgres://u:planted-secret@h/d"),
            (
                "CHROMA_SYNC__PARSE__IMAGE_DESCRIPTIONS__API_KEY",
                "planted-secret",
            ),
        ])
        .unwrap();
        assert!(!format!("{config:?}").contains("planted-secret"));
    }
}
