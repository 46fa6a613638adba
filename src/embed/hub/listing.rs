//! What the hub says of a model, and which of its files are needed.

use serde::Deserialize;

use super::{HubError, checksum::Expected};

/// The files beside the weights that any reader of the model may ask for.
const DESCRIPTIONS: [&str; 11] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "README.md",
];

/// The largest file beside the weights, and the largest part of the weights, in bytes.
const MAX_DESCRIPTION_BYTES: u64 = 64 << 20;
const MAX_WEIGHTS_BYTES: u64 = 64 << 30;

/// One revision of a model, as `GET /api/models/{name}/revision/{revision}?blobs=true` answers it.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    /// The commit.
    pub(super) sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// A file to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) path: String,
    /// None where the listing does not say.
    pub(super) size: Option<u64>,
    pub(super) expected: Option<Expected>,
}

impl Listing {
    /// The files that describe the model.
    pub(super) fn descriptions(&self) -> Vec<Wanted> {
        self.wanted(|path| DESCRIPTIONS.contains(&path) || is_module_config(path))
    }

    /// One of the files by its name.
    pub(super) fn file(&self, path: &str) -> Option<Wanted> {
        self.wanted(|found| found == path).into_iter().next()
    }

    fn wanted(&self, wants: impl Fn(&str) -> bool) -> Vec<Wanted> {
        let wanted = self.siblings.iter().filter(|file| wants(&file.rfilename));
        let mut files: Vec<Wanted> = wanted
            .map(|file| {
                let lfs = file.lfs.as_ref();
                let expected = match lfs.and_then(|lfs| lfs.sha256.as_deref()) {
                    Some(sha256) => Expected::parse(sha256),
                    None => file.blob_id.as_deref().and_then(Expected::parse),
                };
                Wanted {
                    path: file.rfilename.clone(),
                    size: lfs.and_then(|lfs| lfs.size).or(file.size),
                    expected,
                }
            })
            .collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }
}

/// Whether a file is the `config.json` of a stage, such as `1_Pooling`.
fn is_module_config(path: &str) -> bool {
    let Some(directory) = path.strip_suffix("/config.json") else {
        return false;
    };
    let Some((number, name)) = directory.split_once('_') else {
        return false;
    };
    !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Refuses a file that is larger than any of its kind.
pub(super) fn check_size(model: &str, path: &str, size: u64) -> Result<(), HubError> {
    let limit = match path.ends_with(".safetensors") {
        true => MAX_WEIGHTS_BYTES,
        false => MAX_DESCRIPTION_BYTES,
    };
    if size <= limit {
        return Ok(());
    }
    Err(HubError::TooLarge {
        model: model.to_owned(),
        file: path.to_owned(),
        size,
        limit,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::embed::directories::{WEIGHTS, WEIGHTS_INDEX};

    #[test]
    fn of_all_files_those_are_wanted_that_a_reader_asks_for() {
        let blob = "a".repeat(40);
        let sha256 = "b".repeat(64);
        let listing = format!(
            r#"{{"sha":"c","siblings":[
                {{"rfilename":"tokenizer.json","size":3,"blobId":"{blob}","lfs":{{"sha256":"{sha256}","size":9}}}},
                {{"rfilename":"config.json","size":2,"blobId":"{blob}"}},
                {{"rfilename":"1_Pooling/config.json"}},
                {{"rfilename":"onnx/model.onnx"}}, {{"rfilename":"pytorch_model.bin"}},
                {{"rfilename":"../config.json"}}, {{"rfilename":"1_Pooling/../config.json"}},
                {{"rfilename":"model.safetensors"}}]}}"#
        );
        let listing: Listing = serde_json::from_str(&listing).unwrap();
        let wanted = listing.descriptions();
        let paths: Vec<&str> = wanted.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["1_Pooling/config.json", "config.json", "tokenizer.json"]);
        assert_eq!((wanted[0].size, &wanted[0].expected), (None, &None));
        assert_eq!(wanted[1].expected.as_ref().unwrap().name(), blob);
        assert_eq!(wanted[2].size, Some(9));
        assert_eq!(wanted[2].expected.as_ref().unwrap().name(), sha256);
        assert!(listing.file(WEIGHTS).is_some() && listing.file(WEIGHTS_INDEX).is_none());
    }

    #[test]
    fn a_file_above_the_limit_of_its_kind_is_refused() {
        assert!(check_size("a/b", "config.json", 64 << 20).is_ok());
        assert!(check_size("a/b", "model.safetensors", 5 << 30).is_ok());
        let error = check_size("a/b", "config.json", 65 << 20).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("config.json of a/b has 68157440 bytes"),
            "{error}"
        );
    }
}
