//! Glob patterns that pick documents by their key.
//!
//! `*` crosses `/`, because Chroma Sync documents `"*"` as the pattern that takes every file. No
//! pattern means every document.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::FieldViolation;

/// The most patterns a source may have.
pub const MAX_PATTERNS: usize = 1_000;
/// The longest pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 1_024;
/// The most `*` that the patterns of a source may have together; `**` counts as one.
///
/// Matching is linear in the key, but each byte of it may cost as much as there are stars: this many take
/// up to half a second and 10 MB for a hostile key of 1,000 bytes, ten times as many 10 s and 500 MB.
pub const MAX_STARS: usize = 4_096;

/// A set of compiled patterns; matching takes time linear in the key.
#[derive(Debug, Clone)]
pub struct Globs {
    patterns: Vec<String>,
    compiled: Option<GlobSet>,
}

impl Globs {
    /// Compiles `patterns`; `field` names the list in a violation, with the index of the pattern.
    pub fn parse(field: &str, patterns: &[String]) -> Result<Self, FieldViolation> {
        if patterns.len() > MAX_PATTERNS {
            let problem = format!(
                "must have at most {MAX_PATTERNS} patterns, has {}",
                patterns.len()
            );
            return Err(FieldViolation::new(field, problem));
        }
        let stars: usize = patterns.iter().map(|pattern| stars(pattern)).sum();
        if stars > MAX_STARS {
            let problem = format!("must have at most {MAX_STARS} `*` together, has {stars}");
            return Err(FieldViolation::new(field, problem));
        }
        let mut builder = GlobSetBuilder::new();
        for (index, pattern) in patterns.iter().enumerate() {
            let wrong = |problem: String| FieldViolation::new(format!("{field}[{index}]"), problem);
            if pattern.is_empty() {
                return Err(wrong("must not be empty".to_owned()));
            }
            if pattern.len() > MAX_PATTERN_BYTES {
                return Err(wrong(format!(
                    "must have at most {MAX_PATTERN_BYTES} bytes, has {}",
                    pattern.len()
                )));
            }
            if pattern.contains('\0') {
                return Err(wrong("must not contain a NUL character".to_owned()));
            }
            let glob = GlobBuilder::new(pattern)
                .literal_separator(false)
                .backslash_escape(true)
                .build()
                .map_err(|error| wrong(format!("is not a glob pattern: {}", error.kind())))?;
            builder.add(glob);
        }
        let compiled = builder
            .build()
            .map_err(|error| FieldViolation::new(field, format!("cannot be compiled: {}", error.kind())))?;
        let compiled = (!patterns.is_empty()).then_some(compiled);
        let mut seen = std::collections::HashSet::new();
        let patterns = patterns
            .iter()
            .filter(|pattern| seen.insert(pattern.as_str()))
            .cloned()
            .collect();
        Ok(Self { patterns, compiled })
    }

    /// The patterns in the order given, without repetitions.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether the document named `key` is picked.
    pub fn matches(&self, key: &str) -> bool {
        self.compiled.as_ref().is_none_or(|set| set.is_match(key))
    }
}

/// Runs of `*` in a pattern.
fn stars(pattern: &str) -> usize {
    let ends = |pair: &[u8]| pair[0] == b'*' && pair[1] != b'*';
    let inside = pattern.as_bytes().windows(2).filter(|pair| ends(pair)).count();
    inside + usize::from(pattern.ends_with('*'))
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for Globs {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn globs(patterns: &[&str]) -> Globs {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        Globs::parse("include_globs", &patterns).unwrap()
    }

    #[test]
    fn no_pattern_takes_every_key() {
        assert!(globs(&[]).matches("any/path.rs"));
    }

    #[test]
    fn a_star_crosses_directories() {
        assert!(globs(&["*"]).matches("a/b/c.rs"));
        assert!(globs(&["*.rs"]).matches("a/b/c.rs"));
        assert!(globs(&["**/*"]).matches("c.rs"));
        assert!(globs(&["src/*"]).matches("src/a/b.rs"));
        assert!(!globs(&["src/*"]).matches("lib/a.rs"));
        assert!(globs(&["*.{md,rs}"]).matches("docs/a.md"));
    }

    #[test]
    fn patterns_with_more_stars_than_can_be_matched_quickly_are_refused() {
        let patterns = vec!["*a?".repeat(340); 100];
        let violation = Globs::parse("include_globs", &patterns).unwrap_err();
        assert_eq!(
            violation,
            FieldViolation::new("include_globs", "must have at most 4096 `*` together, has 34000")
        );
    }

    #[test]
    fn as_many_patterns_of_the_usual_kind_as_are_allowed_are_taken() {
        let patterns: Vec<String> = (0..MAX_PATTERNS)
            .map(|index| format!("src/**/{index}/**/*.{{md,rs}}"))
            .collect();
        let globs = Globs::parse("include_globs", &patterns).unwrap();
        assert!(globs.matches("src/a/999/b/c.rs"));
        assert!(!globs.matches("src/a/1000/b/c.rs"));
    }

    #[test]
    fn a_pattern_that_does_not_compile_is_named_by_its_index() {
        let violation = Globs::parse("include_globs", &["*".into(), "a[".into()]).unwrap_err();
        assert_eq!(violation.field, "include_globs[1]");
    }

    proptest! {
        #[test]
        fn any_pattern_compiles_or_is_refused_without_a_panic(pattern in ".{0,64}", key in ".{0,64}") {
            if let Ok(globs) = Globs::parse("include_globs", &[pattern]) {
                globs.matches(&key);
            }
        }

        #[test]
        fn a_literal_key_matches_itself(key in "[a-z0-9_/.-]{1,40}") {
            prop_assert!(globs(&[&key]).matches(&key));
        }
    }
}
