//! The bodies of the documented REST paths.

#![no_main]

use std::sync::LazyLock;

use chroma_sync::{
    domain::{
        embedding::ModelCatalog,
        globs::Globs,
        invocation::NewInvocation,
        request::RequestedInvocation,
        source::{NewSource, Source, SourceSettings},
        webhook::Webhook,
    },
    rest,
};
use chroma_sync_fuzz::{assert_refused, catalog, pending, sources, store_access_key, stored};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

static CATALOG: LazyLock<ModelCatalog> = LazyLock::new(catalog);
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(sources);

fuzz_target!(|bytes: &[u8]| {
    match rest::read_new_source(bytes, &CATALOG) {
        Ok(new) => source_survives(new),
        Err(error) => assert_refused(error),
    }
    match rest::read_new_invocation(bytes) {
        Ok(requested) => {
            for source in SOURCES.iter() {
                match requested.clone().for_source(source) {
                    Ok(new) => invocation_survives(new, source),
                    Err(violation) => assert_refused(violation),
                }
            }
        }
        Err(error) => assert_refused(error),
    }
    match rest::read_object_keys(bytes) {
        Ok(keys) => {
            let body = json!({"object_keys": keys}).to_string();
            assert_eq!(rest::read_object_keys(body.as_bytes()).unwrap(), keys);
        }
        Err(error) => assert_refused(error),
    }
});

/// What a source is shown as makes the same source again.
fn source_survives(mut new: NewSource) {
    if let SourceSettings::Github(github) = &mut new.settings {
        // No list is shown as the documented default.
        github
            .include_globs
            .get_or_insert_with(|| Globs::parse("include_globs", &["*".to_owned()]).unwrap());
    }
    store_access_key(&mut new.settings);
    forget_secret(&mut new.webhook);
    let mut shown = rest::write_source(stored(new.clone()));
    let fields = shown.as_object_mut().unwrap();
    for output_only in ["id", "created_at", "source_type"] {
        fields.remove(output_only).unwrap();
    }
    let again = rest::read_new_source(shown.to_string().as_bytes(), &CATALOG);
    let again = again.unwrap_or_else(|error| panic!("{error:?}: {shown}"));
    assert_eq!(again, new, "{shown}");
    assert_eq!(again.fingerprint(), new.fingerprint());
}

/// What an invocation is shown as asks for the same invocation again.
fn invocation_survives(mut new: NewInvocation, source: &Source) {
    forget_secret(&mut new.webhook);
    let shown = rest::write_invocation(&pending(&new, source.id));
    let metadata: &Value = &shown["metadata"];
    let body = json!({
        "target_collection_name": metadata["collection_name"],
        "ref_identifier": metadata["github"]["git_ref_identifier"],
        "object_key": metadata["s3"]["object_key"],
        "custom_id": metadata["s3"]["custom_id"],
        "metadata": metadata["s3"]["additional_metadata"],
        "sync_prefix": metadata["s3"]["sync_prefix"],
        "update_collection": new.update_collection,
        "webhook": shown.get("webhook"),
    });
    let again = rest::read_new_invocation(body.to_string().as_bytes());
    let again: RequestedInvocation = again.unwrap_or_else(|error| panic!("{error:?}: {body}"));
    assert_eq!(again.for_source(source).unwrap(), new, "{body}");
}

/// A secret is asked for and never shown.
fn forget_secret(webhook: &mut Option<Webhook>) {
    if let Some(webhook) = webhook {
        webhook.signing_secret = None;
    }
}
