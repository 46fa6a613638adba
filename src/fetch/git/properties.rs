#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{
    Place,
    snapshot::{lossy_key, unique},
};
use crate::{
    domain::{document::SkipRule, source::RepositoryName},
    fetch::{Entry, Listed},
};

fn entry(key: &str) -> Entry {
    Entry {
        document_key: key.to_owned(),
        version_key: "0".repeat(40),
        size_bytes: Some(1),
        decision: Listed::Load,
        memo: None,
    }
}

proptest! {
    #[test]
    fn keys_are_unique_and_sorted_and_the_first_of_each_keeps_its_own(
        keys in prop::collection::vec("[ab](#[0-9]{1,2}){0,2}", 0..40)
    ) {
        let mut sorted: Vec<Entry> = keys.iter().map(|key| entry(key)).collect();
        sorted.sort_unstable_by(|one, other| one.document_key.cmp(&other.document_key));

        let entries = unique(sorted);

        prop_assert!(entries.is_sorted_by(|one, other| one.document_key < other.document_key));
        prop_assert_eq!(entries.len(), keys.len());
        let kept: BTreeSet<&str> = entries
            .iter()
            .filter(|entry| entry.decision == Listed::Load)
            .map(|entry| entry.document_key.as_str())
            .collect();
        prop_assert_eq!(kept, keys.iter().map(String::as_str).collect::<BTreeSet<_>>());
        let renamed = entries.iter().filter(|entry| entry.decision != Listed::Load);
        prop_assert!(renamed.clone().all(|entry| entry.decision == Listed::Skip(SkipRule::InvalidKey)));
    }

    #[test]
    fn names_that_read_alike_get_keys_of_their_own(one in any::<Vec<u8>>(), other in any::<Vec<u8>>()) {
        prop_assume!(one != other);
        prop_assert_ne!(lossy_key(&one), lossy_key(&other));
    }

    #[test]
    fn no_repository_name_leads_out_of_the_configured_place(text in "[a-zA-Z0-9._-]{1,12}/[a-zA-Z0-9._-]{1,12}") {
        let Ok(name) = RepositoryName::parse("repository", &text) else { return Ok(()) };
        let directory = "file:///srv/git/".parse().unwrap();
        let host = "https://git.example:8443/base".parse().unwrap();
        let expected = std::path::PathBuf::from(format!("/srv/git/{name}.git"));
        prop_assert_eq!(Place::of(&directory, &name).unwrap(), Place::Directory(expected));
        let Place::Remote(url) = Place::of(&host, &name).unwrap() else { panic!("a remote place") };
        prop_assert_eq!(url.as_str(), format!("https://git.example:8443/base/{name}.git"));
    }
}
