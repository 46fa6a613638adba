//! Copies of the tiny models of tests/golden/models, to be changed and loaded.

use std::{
    collections::BTreeMap,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::{Device, LocalModel, LocalOptions};
use crate::{
    embed::{LoadError, ModelDirectories, ModelFiles, Precision},
    error::chain,
};

/// Shape and bytes of a tensor.
pub(super) type Tensor = (Dtype, Vec<usize>, Vec<u8>);

/// One of `tiny/qwen3` and `tiny/splade`, in a directory of its own.
pub(super) struct TinyModel {
    root: TempDir,
    name: String,
}

impl TinyModel {
    pub(super) fn copy(model: &str) -> Self {
        let copy = Self {
            root: tempfile::tempdir().unwrap(),
            name: format!("tiny/{model}"),
        };
        let original = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden/models")
            .join(&copy.name);
        copy_directory(&original, &copy.path(""));
        copy
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.root.path().join(&self.name).join(file)
    }

    pub(super) fn write(&self, file: &str, value: &Value) {
        fs::create_dir_all(self.path(file).parent().unwrap()).unwrap();
        fs::write(self.path(file), value.to_string()).unwrap();
    }

    pub(super) fn remove(&self, file: &str) {
        fs::remove_file(self.path(file)).unwrap();
    }

    pub(super) fn change(&self, file: &str, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
        let mut object: Value = serde_json::from_slice(&fs::read(self.path(file)).unwrap()).unwrap();
        change(object.as_object_mut().unwrap());
        self.write(file, &object);
    }

    pub(super) fn tensors(&self) -> BTreeMap<String, Tensor> {
        let bytes = fs::read(self.path("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        file.tensors()
            .into_iter()
            .map(|(name, tensor)| {
                let tensor = (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec());
                (name, tensor)
            })
            .collect()
    }

    pub(super) fn write_tensors(&self, file: &str, tensors: &BTreeMap<String, Tensor>) {
        let views = tensors.iter().map(|(name, (kind, shape, bytes))| {
            (name, TensorView::new(*kind, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize_to_file(views, None, &self.path(file)).unwrap();
    }

    /// Stores the weights, which are bf16, as 32-bit floats.
    pub(super) fn widen(&self) {
        let mut tensors = self.tensors();
        for (kind, _, bytes) in tensors.values_mut() {
            assert_eq!(*kind, Dtype::BF16);
            *kind = Dtype::F32;
            *bytes = bytes
                .as_chunks::<2>()
                .0
                .iter()
                .flat_map(|[low, high]| [0, 0, *low, *high])
                .collect();
        }
        self.write_tensors("model.safetensors", &tensors);
    }

    /// Splits the weights over two files and an index.
    pub(super) fn split(&self) {
        let mut index = BTreeMap::new();
        let mut halves = [BTreeMap::new(), BTreeMap::new()];
        for (position, (name, tensor)) in self.tensors().into_iter().enumerate() {
            let half = position % 2;
            index.insert(
                name.clone(),
                format!("model-0000{}-of-00002.safetensors", half + 1),
            );
            halves[half].insert(name, tensor);
        }
        for (half, tensors) in halves.iter().enumerate() {
            self.write_tensors(&format!("model-0000{}-of-00002.safetensors", half + 1), tensors);
        }
        self.remove("model.safetensors");
        self.write(
            "model.safetensors.index.json",
            &json!({"metadata": {"total_size": 1}, "weight_map": index}),
        );
    }

    pub(super) fn load(&self, options: LocalOptions) -> Result<LocalModel, LoadError> {
        LocalModel::load(&self.files()?, options)
    }

    pub(super) fn files(&self) -> Result<ModelFiles, LoadError> {
        self.directories().find(&self.name)
    }

    pub(super) fn directories(&self) -> ModelDirectories {
        ModelDirectories::new(Some(self.root.path().to_owned()), None)
    }

    /// Loads the model, which must fail, and returns the whole chain of messages.
    pub(super) fn problem(&self) -> String {
        match self.load(options(Precision::Single)) {
            Ok(_) => panic!("the model was loaded"),
            Err(error) => chain(&error),
        }
    }
}

/// As the golden vectors were made.
pub(super) fn options(precision: Precision) -> LocalOptions {
    LocalOptions {
        device: Device::Cpu,
        threads: NonZeroUsize::new(2).unwrap(),
        precision: Some(precision),
        max_tokens: NonZeroUsize::new(512).unwrap(),
    }
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
