//! What the files beside the weights say of a sentence encoder: how much it reads, how it pools.
//!
//! Source of the formats: the `sentence-transformers` package, which writes `modules.json`,
//! `sentence_bert_config.json` and `1_Pooling/config.json`. A model without them is taken for one that reads
//! all its positions and is pooled by the mean, as that package does.

use serde::Deserialize;

use chroma_sync_encoder::{ConfigError, EncoderConfig};

use crate::embed::{LoadError, ModelFiles};

/// The largest JSON file that describes a model, in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

const CONFIG: &str = "config.json";
const MODULES: &str = "modules.json";
const SENTENCE_CONFIG: &str = "sentence_bert_config.json";

/// A model that this module's neighbours can run.
#[derive(Debug)]
pub(super) struct SentenceModel {
    /// Sizes of the encoder.
    pub(super) encoder: EncoderConfig,
    /// The most tokens of a text that are read.
    pub(super) max_tokens: usize,
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
    fn is_mean(&self) -> bool {
        let others = [
            self.pooling_mode_cls_token,
            self.pooling_mode_max_tokens,
            self.pooling_mode_mean_sqrt_len_tokens,
            self.pooling_mode_weightedmean_tokens,
            self.pooling_mode_lasttoken,
        ];
        match &self.pooling_mode {
            Some(mode) => mode == "mean",
            None => self.pooling_mode_mean_tokens == Some(true) && !others.contains(&Some(true)),
        }
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

impl SentenceModel {
    /// Reads the description of the model that `files` hold.
    ///
    /// # Errors
    /// If a file is damaged, or the model is not a BERT whose tokens are averaged.
    pub(super) fn read(files: &ModelFiles) -> Result<Self, LoadError> {
        let encoder = EncoderConfig::parse(&files.read(CONFIG, MAX_CONFIG_BYTES)?)
            .map_err(|error| config_load_error(files, error))?;
        check_modules(files)?;
        let sentence: Option<SentenceConfig> = read_json(files, SENTENCE_CONFIG)?;
        let asked = sentence
            .and_then(|config| config.max_seq_length)
            .unwrap_or(encoder.positions);
        let max_tokens = asked.min(encoder.positions);
        Ok(Self { encoder, max_tokens })
    }
}

/// Refuses models with a stage that is not computed here, rather than give vectors that are wrong.
fn check_modules(files: &ModelFiles) -> Result<(), LoadError> {
    let Some(modules) = read_json::<Vec<Module>>(files, MODULES)? else {
        return Ok(());
    };
    let mut pooled = false;
    for module in &modules {
        // The package has moved its classes between modules; their own names stay.
        match module.class.rsplit('.').next() {
            Some("Transformer" | "Normalize") => {}
            Some("Pooling") => {
                check_pooling(files, &module.path)?;
                pooled = true;
            }
            _ => {
                let class = &module.class;
                return Err(unsupported(
                    files,
                    MODULES,
                    format!("module {class:?} is none of Transformer, Pooling, Normalize"),
                ));
            }
        }
    }
    if pooled {
        Ok(())
    } else {
        Err(unsupported(files, MODULES, "it has no Pooling module".to_owned()))
    }
}

fn check_pooling(files: &ModelFiles, directory: &str) -> Result<(), LoadError> {
    if directory.contains(['/', '\\']) || directory.starts_with('.') {
        let problem = format!("path {directory:?} is not the name of a directory beside it");
        return Err(unsupported(files, MODULES, problem));
    }
    let file = format!("{directory}/{CONFIG}");
    match read_json::<PoolingConfig>(files, &file)? {
        Some(config) if config.is_mean() => Ok(()),
        Some(_) => Err(unsupported(
            files,
            &file,
            "only pooling by the mean is supported".to_owned(),
        )),
        None => Err(unsupported(
            files,
            MODULES,
            format!("{file} does not exist, fetch the model again"),
        )),
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
        Err(error) => Err(LoadError::Damaged {
            path: files.path(file),
            source: error.into(),
        }),
    }
}
