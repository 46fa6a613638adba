//! What the files beside the weights say of a model: its architecture, how much it reads, how it pools.
//!
//! Source of the formats: the `sentence-transformers` package, which writes `modules.json`,
//! `sentence_bert_config.json` and `1_Pooling/config.json`. A BERT without them is pooled by the mean, as that
//! package does, unless it has the head of a masked language model: then it is a sparse model. A Qwen3
//! without them is pooled by the last token, as all that are published are.

use serde::Deserialize;

use chroma_sync_encoder::{ConfigError, EncoderConfig, Qwen3Config};

use crate::embed::{LoadError, ModelFiles};

/// The largest JSON file that describes a model, in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

const CONFIG: &str = "config.json";
const MODULES: &str = "modules.json";
const SENTENCE_CONFIG: &str = "sentence_bert_config.json";

/// The class that `config.json` names for a BERT with the head of a masked language model.
const MASKED_LANGUAGE_MODEL: &str = "BertForMaskedLM";

/// A model that this module's neighbours can run.
#[derive(Debug)]
pub(super) struct Description {
    /// What computes its vectors.
    pub(super) architecture: Architecture,
    /// The most tokens of a text that are read.
    pub(super) max_tokens: usize,
}

/// What computes vectors of tokens, and of the vectors of tokens one for the text.
#[derive(Debug)]
pub(super) enum Architecture {
    /// A dense BERT; the mean over all tokens.
    Bert(EncoderConfig),
    /// A dense Qwen3; the last token.
    Qwen3(Qwen3Config),
    /// A sparse BERT; the largest weight of each term.
    MaskedLanguageModel(EncoderConfig),
}

/// `config.json`, as far as it names the architecture.
#[derive(Debug, Deserialize)]
struct ArchitectureFile {
    #[serde(default)]
    model_type: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    class: String,
}

#[derive(Debug, Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
}

/// What `modules.json` has after the network itself.
#[derive(Debug, Clone, PartialEq)]
enum Pooling {
    /// There is no such file.
    Unknown,
    /// One vector of all tokens, by this file of the model.
    Tokens { mode: Mode, file: String },
    /// Weights of terms.
    Terms,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Mean,
    LastToken,
    Other,
}

/// Both generations of the file: a flag for each mode, or the mode's name.
#[derive(Debug, Deserialize)]
struct PoolingConfig {
    pooling_mode: Option<String>,
    pooling_mode_mean_tokens: Option<bool>,
    pooling_mode_cls_token: Option<bool>,
    pooling_mode_max_tokens: Option<bool>,
    pooling_mode_mean_sqrt_len_tokens: Option<bool>,
    pooling_mode_weightedmean_tokens: Option<bool>,
    pooling_mode_lasttoken: Option<bool>,
}

impl PoolingConfig {
    fn mode(&self) -> Mode {
        if let Some(mode) = &self.pooling_mode {
            return match mode.as_str() {
                "mean" => Mode::Mean,
                "lasttoken" => Mode::LastToken,
                _ => Mode::Other,
            };
        }
        let others = [
            self.pooling_mode_cls_token,
            self.pooling_mode_max_tokens,
            self.pooling_mode_mean_sqrt_len_tokens,
            self.pooling_mode_weightedmean_tokens,
        ];
        let is = |flag: Option<bool>| flag == Some(true);
        // Several at once would be joined end to end.
        match (is(self.pooling_mode_mean_tokens), is(self.pooling_mode_lasttoken)) {
            _ if others.into_iter().any(is) => Mode::Other,
            (true, false) => Mode::Mean,
            (false, true) => Mode::LastToken,
            (true, true) | (false, false) => Mode::Other,
        }
    }
}

/// The configuration of the head that weighs terms.
#[derive(Debug, Deserialize)]
struct TermPoolingConfig {
    pooling_strategy: Option<String>,
    activation_function: Option<String>,
}

impl Description {
    /// Reads the description of the model that `files` hold, of which texts are read up to `limit` tokens.
    ///
    /// # Errors
    /// If a file is damaged, or the model is none of [`Architecture`].
    pub(super) fn read(files: &ModelFiles, limit: usize) -> Result<Self, LoadError> {
        let config = files.read(CONFIG, MAX_CONFIG_BYTES)?;
        let architecture = Architecture::read(files, &config)?;
        let positions = match &architecture {
            Architecture::Bert(config) | Architecture::MaskedLanguageModel(config) => config.positions,
            Architecture::Qwen3(config) => config.positions,
        };
        let sentence: Option<SentenceConfig> = read_json(files, SENTENCE_CONFIG)?;
        let asked = sentence
            .and_then(|config| config.max_seq_length)
            .unwrap_or(positions);
        Ok(Self {
            architecture,
            max_tokens: asked.min(positions).min(limit),
        })
    }
}

impl Architecture {
    fn read(files: &ModelFiles, config: &[u8]) -> Result<Self, LoadError> {
        let named: ArchitectureFile =
            serde_json::from_slice(config).map_err(|source| LoadError::Damaged {
                path: files.path(CONFIG),
                source: source.into(),
            })?;
        let pooling = Pooling::read(files)?;
        // A file without the field is one of BERT's first years.
        match named.model_type.as_deref().unwrap_or("bert") {
            "bert" => {
                let config = EncoderConfig::parse(config).map_err(|error| config_load_error(files, error))?;
                let has_head = named
                    .architectures
                    .iter()
                    .flatten()
                    .any(|class| class == MASKED_LANGUAGE_MODEL);
                match pooling {
                    Pooling::Unknown if has_head => Ok(Self::MaskedLanguageModel(config)),
                    Pooling::Unknown => Ok(Self::Bert(config)),
                    Pooling::Terms => Ok(Self::MaskedLanguageModel(config)),
                    Pooling::Tokens { mode: Mode::Mean, .. } => Ok(Self::Bert(config)),
                    Pooling::Tokens { file, .. } => Err(unsupported(
                        files,
                        &file,
                        "only pooling by the mean is supported for a BERT".to_owned(),
                    )),
                }
            }
            "qwen3" => {
                let config = Qwen3Config::parse(config).map_err(|error| config_load_error(files, error))?;
                match pooling {
                    Pooling::Unknown
                    | Pooling::Tokens {
                        mode: Mode::LastToken,
                        ..
                    } => Ok(Self::Qwen3(config)),
                    Pooling::Tokens { file, .. } => Err(unsupported(
                        files,
                        &file,
                        "only pooling by the last token is supported for a Qwen3".to_owned(),
                    )),
                    Pooling::Terms => Err(unsupported(
                        files,
                        MODULES,
                        "only a BERT is supported as a sparse model".to_owned(),
                    )),
                }
            }
            other => Err(unsupported(
                files,
                CONFIG,
                format!(
                    "model_type is {other:?}, and only \"bert\" (dense, pooled by the mean, or sparse, as \
                     {MASKED_LANGUAGE_MODEL}) and \"qwen3\" (dense, pooled by the last token) run in this process; \
                     serve it elsewhere and set it up as a remote model"
                ),
            )),
        }
    }
}

impl Pooling {
    /// Refuses models with a stage that is not computed here, rather than give vectors that are wrong.
    fn read(files: &ModelFiles) -> Result<Self, LoadError> {
        let Some(modules) = read_json::<Vec<Module>>(files, MODULES)? else {
            return Ok(Self::Unknown);
        };
        let mut pooling = None;
        for module in &modules {
            // The package has moved its classes between modules; their own names stay.
            match module.class.rsplit('.').next() {
                Some("Transformer" | "MLMTransformer" | "Normalize") => {}
                Some("Pooling") => pooling = Some(Self::of_tokens(files, &module.path)?),
                Some("SpladePooling") => pooling = Some(Self::of_terms(files, &module.path)?),
                _ => {
                    let class = &module.class;
                    let problem = format!(
                        "module {class:?} is none of Transformer, Pooling, Normalize, MLMTransformer, SpladePooling"
                    );
                    return Err(unsupported(files, MODULES, problem));
                }
            }
        }
        pooling.ok_or_else(|| unsupported(files, MODULES, "it has no Pooling module".to_owned()))
    }

    fn of_tokens(files: &ModelFiles, directory: &str) -> Result<Self, LoadError> {
        let (file, config) = read_module::<PoolingConfig>(files, directory)?;
        Ok(Self::Tokens {
            mode: config.mode(),
            file,
        })
    }

    fn of_terms(files: &ModelFiles, directory: &str) -> Result<Self, LoadError> {
        let (file, config) = read_module::<TermPoolingConfig>(files, directory)?;
        let expected = [
            ("pooling_strategy", config.pooling_strategy, "max"),
            ("activation_function", config.activation_function, "relu"),
        ];
        for (field, found, wanted) in expected {
            if let Some(found) = found.filter(|found| found != wanted) {
                let problem = format!("{field} is {found:?}, and only {wanted:?} is supported");
                return Err(unsupported(files, &file, problem));
            }
        }
        Ok(Self::Terms)
    }
}

/// The configuration of the module that lies in `directory` beside `modules.json`, and the file it is in.
fn read_module<T: serde::de::DeserializeOwned>(
    files: &ModelFiles,
    directory: &str,
) -> Result<(String, T), LoadError> {
    if directory.contains(['/', '\\']) || directory.starts_with('.') {
        let problem = format!("path {directory:?} is not the name of a directory beside it");
        return Err(unsupported(files, MODULES, problem));
    }
    let file = format!("{directory}/{CONFIG}");
    match read_json(files, &file)? {
        Some(config) => Ok((file, config)),
        None => Err(unsupported(
            files,
            MODULES,
            format!("{file} does not exist, fetch the model again"),
        )),
    }
}

/// The same, said of the file.
fn config_load_error(files: &ModelFiles, error: ConfigError) -> LoadError {
    let path = files.path(CONFIG);
    match error {
        ConfigError::Parse(source) => LoadError::Damaged {
            path,
            source: source.into(),
        },
        ConfigError::Unsupported(problem) => LoadError::Unsupported { path, problem },
    }
}

fn unsupported(files: &ModelFiles, file: &str, problem: String) -> LoadError {
    LoadError::Unsupported {
        path: files.path(file),
        problem,
    }
}

fn read_json<T: serde::de::DeserializeOwned>(files: &ModelFiles, file: &str) -> Result<Option<T>, LoadError> {
    let Some(bytes) = files.read_optional(file, MAX_CONFIG_BYTES)? else {
        return Ok(None);
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(source) => Err(LoadError::Damaged {
            path: files.path(file),
            source: source.into(),
        }),
    }
}
