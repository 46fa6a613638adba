#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

const REVISION: &str = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf";

fn fill(directory: &Path, files: &[&str]) {
    fs::create_dir_all(directory).unwrap();
    for file in files {
        fs::write(directory.join(file), "{}").unwrap();
    }
}

fn cached(cache: &Path) -> PathBuf {
    let repository = cache.join("models--owner--model");
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), format!("{REVISION}\n")).unwrap();
    repository.join("snapshots").join(REVISION)
}

#[test]
fn the_configured_directory_comes_before_the_cache() {
    let root = tempfile::tempdir().unwrap();
    let (models, cache) = (root.path().join("models"), root.path().join("cache"));
    fill(&models.join("owner/model"), &REQUIRED);
    fill(&cached(&cache), &REQUIRED);
    let found = ModelDirectories::new(Some(models.clone()), Some(cache))
        .find("owner/model")
        .unwrap();
    assert_eq!(found.directory(), models.join("owner/model"));
    assert_eq!(found.name(), "owner/model");
}

#[test]
fn an_incomplete_directory_is_passed_over_for_a_complete_snapshot() {
    let root = tempfile::tempdir().unwrap();
    let (models, cache) = (root.path().join("models"), root.path().join("cache"));
    fill(&models.join("owner/model"), &REQUIRED[..2]);
    let snapshot = cached(&cache);
    fill(&snapshot, &REQUIRED);
    let found = ModelDirectories::new(Some(models), Some(cache))
        .find("owner/model")
        .unwrap();
    assert_eq!(found.directory(), snapshot);
}

#[test]
fn weights_in_parts_count_once_all_of_them_are_there() {
    let root = tempfile::tempdir().unwrap();
    let model = root.path().join("owner/model");
    fill(&model, &REQUIRED[..2]);
    let index = r#"{"weight_map":{"b":"model-2.safetensors","a":"model-1.safetensors"}}"#;
    fs::write(model.join(WEIGHTS_INDEX), index).unwrap();
    fill(&model, &["model-1.safetensors"]);
    let directories = ModelDirectories::new(Some(root.path().to_owned()), None);
    let message = directories.find("owner/model").unwrap_err().to_string();
    assert!(message.contains("has no model-2.safetensors"), "{message}");
    fill(&model, &["model-2.safetensors"]);
    let found = directories.find("owner/model").unwrap();
    let names = ["model-1.safetensors", "model-2.safetensors"];
    assert_eq!(found.weights().unwrap(), names.map(|name| model.join(name)));
    assert_eq!((found.weights_bytes().unwrap(), found.commit()), (4, None));
    fs::write(
        model.join(WEIGHTS_INDEX),
        r#"{"weight_map":{"a":"../../x.safetensors"}}"#,
    )
    .unwrap();
    assert!(directories.find("owner/model").is_err());
}

#[test]
fn a_configured_revision_comes_instead_of_main() {
    let root = tempfile::tempdir().unwrap();
    fill(&cached(root.path()), &REQUIRED);
    let other = "0".repeat(40);
    let snapshot = cached(root.path()).with_file_name(&other);
    fill(&snapshot, &REQUIRED);
    let refs = root.path().join("models--owner--model/refs");
    fs::write(refs.join("v2"), &other).unwrap();
    let find = |revision: &str| {
        let revisions = BTreeMap::from([("owner/model".to_owned(), revision.to_owned())]);
        ModelDirectories::new(None, Some(root.path().to_owned()))
            .with_revisions(revisions)
            .find("owner/model")
    };
    for revision in [other.as_str(), "v2"] {
        let found = find(revision).unwrap();
        assert_eq!(
            (found.directory(), found.commit()),
            (snapshot.as_path(), Some(other.as_str()))
        );
    }
    assert_eq!(find("main").unwrap().commit(), Some(REVISION));
    for (revision, lack) in [("v3", "refs/v3 does not exist"), ("../v2", "is no revision")] {
        let message = find(revision).unwrap_err().to_string();
        assert!(message.contains(lack), "{message}");
    }
}

#[test]
fn a_missing_model_names_the_file_every_place_and_the_remedy() {
    let root = tempfile::tempdir().unwrap();
    let (models, cache) = (root.path().join("models"), root.path().join("cache"));
    fill(&models.join("owner/model"), &REQUIRED[..2]);
    let directories = ModelDirectories::new(Some(models.clone()), Some(cache.clone()));
    let message = directories.find("owner/model").unwrap_err().to_string();
    let place = models.join("owner/model").display().to_string();
    assert!(
        message.contains(&format!("{place} has no model.safetensors")),
        "{message}"
    );
    let reference = cache.join("models--owner--model/refs/main").display().to_string();
    assert!(
        message.contains(&format!("{reference} does not exist")),
        "{message}"
    );
    assert!(
        message.contains("models.dir") && message.contains("chroma-sync models pull owner/model"),
        "{message}"
    );
}

#[test]
fn a_reference_that_is_no_revision_cannot_lead_out_of_the_cache() {
    let root = tempfile::tempdir().unwrap();
    cached(root.path());
    fs::write(
        root.path().join("models--owner--model/refs/main"),
        "../../../elsewhere",
    )
    .unwrap();
    let directories = ModelDirectories::new(None, Some(root.path().to_owned()));
    let message = directories.find("owner/model").unwrap_err().to_string();
    assert!(
        message.contains("refs/main does not name a revision"),
        "{message}"
    );
}

#[test]
fn names_that_are_not_two_plain_components_are_refused() {
    for name in [
        "model",
        "a/b/c",
        "../b",
        "a/..",
        "/b",
        "a/",
        "a/b c",
        "a\\b/c",
        "a/.hidden",
        "ä/b",
    ] {
        let error = ModelDirectories::default().find(name).unwrap_err();
        assert!(matches!(error, LoadError::Name(_)), "{name:?}: {error}");
    }
    let error = ModelDirectories::default().find("owner/model").unwrap_err();
    assert!(
        error.to_string().contains("no directory is configured"),
        "{error}"
    );
}

#[test]
fn a_file_over_its_limit_is_not_read() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("config.json"), "0123456789").unwrap();
    let files = ModelFiles {
        name: "a/b".to_owned(),
        directory: root.path().to_owned(),
    };
    assert_eq!(files.read("config.json", 10).unwrap(), b"0123456789");
    assert!(matches!(
        files.read("config.json", 9),
        Err(LoadError::TooLarge { limit: 9, .. })
    ));
    assert!(files.read_optional("absent.json", 9).unwrap().is_none());
}
