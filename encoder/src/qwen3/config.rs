//! The sizes of a Qwen3 decoder, from the hub's `config.json`.

use crate::config::{ConfigError, check_sizes};

/// What `rope_theta` is where a file does not say: the default of `transformers`' `Qwen3Config`.
const DEFAULT_THETA: f64 = 10_000.0;

/// Sizes that agree with each other: all positive, `heads` a multiple of `key_value_heads`, `head_width` even.
#[derive(Debug, Clone, PartialEq)]
pub struct Qwen3Config {
    /// Floats in a token's state, and in a vector.
    pub hidden: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Attention heads in each layer.
    pub heads: usize,
    /// Heads of keys and values in each layer, each shared by several heads.
    pub key_value_heads: usize,
    /// Floats of a head.
    pub head_width: usize,
    /// Floats in a token's state inside the gated unit.
    pub intermediate: usize,
    /// Added to the mean square in normalisations.
    pub epsilon: f32,
    /// The longest sequence, in tokens.
    pub positions: usize,
    /// Rows of the word embedding.
    pub vocabulary: usize,
    /// The base of the wavelengths of rotary positions.
    pub theta: f64,
}

/// `config.json`, as far as a decoder needs it.
#[derive(Debug, serde::Deserialize)]
struct ConfigFile {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    #[serde(default)]
    head_dim: Option<usize>,
    intermediate_size: usize,
    rms_norm_eps: f32,
    max_position_embeddings: usize,
    vocab_size: usize,
    hidden_act: String,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    use_sliding_window: bool,
    #[serde(default)]
    layer_types: Option<Vec<String>>,
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_scaling: Option<RopeFile>,
    #[serde(default)]
    rope_parameters: Option<RopeFile>,
}

/// How positions are turned: newer files have `rope_theta` in here, older ones beside it.
#[derive(Debug, serde::Deserialize)]
struct RopeFile {
    #[serde(default, alias = "type")]
    rope_type: Option<String>,
    #[serde(default)]
    rope_theta: Option<f64>,
}

impl ConfigFile {
    /// Refuses what would give other vectors than the reference does.
    fn check_supported(&self) -> Result<(), ConfigError> {
        let only = |field: &str, found: &str, wanted: &str| {
            let problem = format!("{field} is {found:?}, and only {wanted:?} is supported");
            Err(ConfigError::Unsupported(problem))
        };
        if self.model_type != "qwen3" {
            return only("model_type", &self.model_type, "qwen3");
        }
        if self.hidden_act != "silu" {
            return only("hidden_act", &self.hidden_act, "silu");
        }
        if self.attention_bias {
            return only("attention_bias", "true", "false");
        }
        if self.use_sliding_window {
            return only("use_sliding_window", "true", "false");
        }
        for kind in self.layer_types.iter().flatten() {
            if kind != "full_attention" {
                return only("layer_types", kind, "full_attention");
            }
        }
        for rope in [&self.rope_scaling, &self.rope_parameters].into_iter().flatten() {
            if let Some(kind) = rope.rope_type.as_deref().filter(|kind| *kind != "default") {
                return only("rope_type", kind, "default");
            }
        }
        Ok(())
    }

    fn theta(&self) -> Result<f64, ConfigError> {
        let nested = |rope: &Option<RopeFile>| rope.as_ref().and_then(|rope| rope.rope_theta);
        let theta = nested(&self.rope_parameters)
            .or_else(|| nested(&self.rope_scaling))
            .or(self.rope_theta)
            .unwrap_or(DEFAULT_THETA);
        if theta.is_finite() && theta >= 1.0 {
            Ok(theta)
        } else {
            let problem = format!("rope_theta is {theta}, not a number from 1");
            Err(ConfigError::Unsupported(problem))
        }
    }
}

impl Qwen3Config {
    /// Reads the bytes of a `config.json`.
    ///
    /// # Errors
    /// If they are damaged, or describe something other than a Qwen3 that attends to all tokens before.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let file: ConfigFile = serde_json::from_slice(bytes).map_err(ConfigError::Parse)?;
        file.check_supported()?;
        let heads = file.num_attention_heads;
        let head_width = file
            .head_dim
            .unwrap_or_else(|| file.hidden_size.checked_div(heads).unwrap_or(0));
        check_sizes(&[
            ("hidden_size", file.hidden_size),
            ("num_hidden_layers", file.num_hidden_layers),
            ("num_attention_heads", heads),
            ("num_key_value_heads", file.num_key_value_heads),
            ("head_dim", head_width),
            ("intermediate_size", file.intermediate_size),
            ("max_position_embeddings", file.max_position_embeddings),
            ("vocab_size", file.vocab_size),
        ])?;
        if !heads.is_multiple_of(file.num_key_value_heads) {
            let shared = file.num_key_value_heads;
            let problem =
                format!("num_attention_heads {heads} is not a multiple of num_key_value_heads {shared}");
            return Err(ConfigError::Unsupported(problem));
        }
        if !head_width.is_multiple_of(2) {
            let problem = format!("head_dim {head_width} is not even");
            return Err(ConfigError::Unsupported(problem));
        }
        if !(file.rms_norm_eps.is_finite() && file.rms_norm_eps >= 0.0) {
            let problem = format!(
                "rms_norm_eps is {}, not a small positive number",
                file.rms_norm_eps
            );
            return Err(ConfigError::Unsupported(problem));
        }
        let theta = file.theta()?;
        Ok(Self {
            hidden: file.hidden_size,
            layers: file.num_hidden_layers,
            heads,
            key_value_heads: file.num_key_value_heads,
            head_width,
            intermediate: file.intermediate_size,
            epsilon: file.rms_norm_eps,
            positions: file.max_position_embeddings,
            vocabulary: file.vocab_size,
            theta,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use serde_json::{Value, json};

    use super::*;

    fn file() -> Value {
        json!({
            "model_type": "qwen3", "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16,
            "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 32768, "vocab_size": 151_669, "hidden_act": "silu",
            "attention_bias": false, "rope_scaling": null, "rope_theta": 1_000_000, "use_sliding_window": false,
        })
    }

    fn parse(value: &Value) -> Result<Qwen3Config, ConfigError> {
        Qwen3Config::parse(value.to_string().as_bytes())
    }

    #[test]
    fn the_published_configuration_of_the_small_embedding_model_is_read() {
        let expected = Qwen3Config {
            hidden: 1024,
            layers: 28,
            heads: 16,
            key_value_heads: 8,
            head_width: 128,
            intermediate: 3072,
            epsilon: 1e-6,
            positions: 32768,
            vocabulary: 151_669,
            theta: 1e6,
        };
        assert_eq!(parse(&file()).unwrap(), expected);
    }

    #[test]
    fn the_base_of_rotary_positions_is_found_wherever_a_version_of_the_format_has_it() {
        for field in ["rope_parameters", "rope_scaling"] {
            let mut nested = file();
            nested.as_object_mut().unwrap().remove("rope_theta");
            nested[field] = json!({"rope_type": "default", "rope_theta": 5e6});
            assert_eq!(parse(&nested).unwrap().theta, 5e6, "{field}");
        }
        let mut absent = file();
        absent.as_object_mut().unwrap().remove("rope_theta");
        assert_eq!(parse(&absent).unwrap().theta, DEFAULT_THETA);
    }

    #[test]
    fn what_would_give_other_vectors_is_refused_with_the_field_and_what_is_supported() {
        for (field, value, expected) in [
            ("model_type", json!("qwen2"), "only \"qwen3\" is supported"),
            ("hidden_act", json!("gelu"), "only \"silu\" is supported"),
            ("attention_bias", json!(true), "attention_bias"),
            ("use_sliding_window", json!(true), "use_sliding_window"),
            (
                "layer_types",
                json!(["full_attention", "sliding_attention"]),
                "layer_types",
            ),
            (
                "rope_scaling",
                json!({"type": "yarn", "factor": 4.0}),
                "rope_type is \"yarn\"",
            ),
            ("rope_theta", json!(0.5), "rope_theta is 0.5"),
            (
                "num_key_value_heads",
                json!(3),
                "not a multiple of num_key_value_heads 3",
            ),
            ("num_key_value_heads", json!(0), "num_key_value_heads is 0"),
            ("head_dim", json!(17), "head_dim 17 is not even"),
            (
                "hidden_size",
                json!(4_000_000_000_u64),
                "hidden_size is 4000000000",
            ),
            ("rms_norm_eps", json!(-1.0), "rms_norm_eps is -1"),
        ] {
            let mut changed = file();
            changed[field] = value;
            let problem = parse(&changed).unwrap_err().to_string();
            assert!(problem.contains(expected), "{field}: {problem}");
        }
        let missing = Qwen3Config::parse(b"{\"model_type\": \"qwen3\"}").unwrap_err();
        assert!(matches!(missing, ConfigError::Parse(_)), "{missing}");
    }
}
