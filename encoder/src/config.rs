//! The sizes of a BERT encoder, from the hub's `config.json`.

/// No model that runs here is wider or deeper; a larger number is a damaged file.
const MAX_SIZE: usize = 1 << 20;

/// Sizes that agree with each other: all positive, and `hidden` a multiple of `heads`.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// Floats in a token's state, and in a vector.
    pub hidden: usize,
    /// Encoder layers.
    pub layers: usize,
    /// Attention heads in each layer.
    pub heads: usize,
    /// Floats in a token's state between the two feed-forward layers.
    pub intermediate: usize,
    /// Added to the variance in layer normalisation.
    pub epsilon: f32,
    /// The longest sequence, in tokens.
    pub positions: usize,
    /// Rows of the word embedding.
    pub vocabulary: usize,
    /// Rows of the token type embedding, of which a single text uses the first.
    pub token_types: usize,
}

/// `config.json`, as far as an encoder needs it.
#[derive(Debug, serde::Deserialize)]
struct ConfigFile {
    #[serde(default)]
    model_type: Option<String>,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    layer_norm_eps: f32,
    max_position_embeddings: usize,
    vocab_size: usize,
    type_vocab_size: usize,
    hidden_act: String,
    #[serde(default)]
    position_embedding_type: Option<String>,
}

/// Why a `config.json` is not one of an encoder we can run.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or a field is missing or of another type.
    #[error("is not the configuration of a model")]
    Parse(#[source] serde_json::Error),
    /// The file is sound, but describes another kind of model, or sizes that do not fit.
    #[error("{0}")]
    Unsupported(String),
}

impl EncoderConfig {
    /// Reads the bytes of a `config.json`.
    ///
    /// # Errors
    /// If they are damaged, or describe something other than a BERT with exact GELU and absolute positions.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let file: ConfigFile = serde_json::from_slice(bytes).map_err(ConfigError::Parse)?;
        let wanted = [
            ("model_type", file.model_type.as_deref(), "bert"),
            ("hidden_act", Some(file.hidden_act.as_str()), "gelu"),
            (
                "position_embedding_type",
                file.position_embedding_type.as_deref(),
                "absolute",
            ),
        ];
        for (field, found, wanted) in wanted {
            if let Some(found) = found.filter(|found| *found != wanted) {
                let problem = format!("{field} is {found:?}, and only {wanted:?} is supported");
                return Err(ConfigError::Unsupported(problem));
            }
        }
        check_sizes(&[
            ("hidden_size", file.hidden_size),
            ("num_hidden_layers", file.num_hidden_layers),
            ("num_attention_heads", file.num_attention_heads),
            ("intermediate_size", file.intermediate_size),
            ("max_position_embeddings", file.max_position_embeddings),
            ("vocab_size", file.vocab_size),
            ("type_vocab_size", file.type_vocab_size),
        ])?;
        if !file.hidden_size.is_multiple_of(file.num_attention_heads) {
            let (hidden, heads) = (file.hidden_size, file.num_attention_heads);
            let problem = format!("hidden_size {hidden} is not a multiple of num_attention_heads {heads}");
            return Err(ConfigError::Unsupported(problem));
        }
        if !(file.layer_norm_eps.is_finite() && file.layer_norm_eps >= 0.0) {
            let problem = format!(
                "layer_norm_eps is {}, not a small positive number",
                file.layer_norm_eps
            );
            return Err(ConfigError::Unsupported(problem));
        }
        Ok(Self {
            hidden: file.hidden_size,
            layers: file.num_hidden_layers,
            heads: file.num_attention_heads,
            intermediate: file.intermediate_size,
            epsilon: file.layer_norm_eps,
            positions: file.max_position_embeddings,
            vocabulary: file.vocab_size,
            token_types: file.type_vocab_size,
        })
    }
}

/// Refuses sizes that no model has.
pub(crate) fn check_sizes(sizes: &[(&str, usize)]) -> Result<(), ConfigError> {
    for (field, size) in sizes {
        if *size == 0 || *size > MAX_SIZE {
            return Err(ConfigError::Unsupported(format!(
                "{field} is {size}, not in 1..={MAX_SIZE}"
            )));
        }
    }
    Ok(())
}
