//! Regular expressions that pick pages of a site by the path of their URL.
//!
//! They are searched anywhere in the path, as Chroma Sync documents them as patterns and not as whole
//! paths: `/docs/` picks `/en/docs/a`, `^/docs/` does not. The path is the one of the URL, beginning with
//! `/` and percent-encoded, without query and fragment. Matching takes time linear in the path.

use regex::{RegexSet, RegexSetBuilder};

use crate::error::FieldViolation;

/// The most patterns of one list.
pub const MAX_PATTERNS: usize = 100;
/// The longest pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 1_024;
/// The most memory that the patterns of one list may take compiled, in bytes.
const MAX_COMPILED_BYTES: usize = 4 << 20;

/// A list of compiled patterns.
#[derive(Debug, Clone)]
pub struct PathPatterns {
    patterns: Vec<String>,
    compiled: RegexSet,
}

impl Default for PathPatterns {
    fn default() -> Self {
        Self {
            patterns: Vec::new(),
            compiled: RegexSet::empty(),
        }
    }
}

impl PathPatterns {
    /// Compiles `patterns`; `field` names the list in a violation, with the index of the pattern.
    ///
    /// # Errors
    /// A violation for too many patterns, and for one that is empty, too long, no regular expression, or
    /// too large once compiled.
    pub fn parse(field: &str, patterns: &[String]) -> Result<Self, FieldViolation> {
        if patterns.len() > MAX_PATTERNS {
            let problem = format!(
                "must have at most {MAX_PATTERNS} patterns, has {}",
                patterns.len()
            );
            return Err(FieldViolation::new(field, problem));
        }
        for (index, pattern) in patterns.iter().enumerate() {
            check(pattern).map_err(|problem| FieldViolation::new(format!("{field}[{index}]"), problem))?;
        }
        let compiled = RegexSetBuilder::new(patterns)
            .size_limit(MAX_COMPILED_BYTES)
            .dfa_size_limit(MAX_COMPILED_BYTES)
            .build()
            .map_err(|error| FieldViolation::new(field, problem_of(&error)))?;
        Ok(Self {
            patterns: patterns.to_vec(),
            compiled,
        })
    }

    /// The patterns as they were given.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether one of the patterns is found in `path`.
    pub fn matches(&self, path: &str) -> bool {
        self.compiled.is_match(path)
    }
}

fn check(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(format!(
            "must have at most {MAX_PATTERN_BYTES} bytes, has {}",
            pattern.len()
        ));
    }
    if pattern.contains('\0') {
        return Err("must not contain a NUL character".to_owned());
    }
    regex::RegexBuilder::new(pattern)
        .size_limit(MAX_COMPILED_BYTES)
        .build()
        .map(|_| ())
        .map_err(|error| problem_of(&error))
}

/// What is wrong, in one line: the parser draws a picture around its last one.
fn problem_of(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("must take at most {limit} bytes compiled; use smaller repetitions")
        }
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!(
                "is not a regular expression: {} (see https://docs.rs/regex for the syntax; there is no \
                 look-around and no back-reference)",
                last.trim_start_matches("error: ")
            )
        }
    }
}

impl PartialEq for PathPatterns {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for PathPatterns {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(patterns: &[&str]) -> Result<PathPatterns, FieldViolation> {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        PathPatterns::parse("include_path_regexes", &patterns)
    }

    #[test]
    fn a_pattern_is_found_anywhere_in_the_path_unless_it_is_anchored() {
        let docs = parse(&["/docs/"]).unwrap();
        assert!(docs.matches("/docs/a"));
        assert!(docs.matches("/en/docs/a"));
        assert!(!docs.matches("/doc/a"));
        let anchored = parse(&["^/docs/.*\\.html$"]).unwrap();
        assert!(anchored.matches("/docs/a/b.html"));
        assert!(!anchored.matches("/en/docs/a.html"));
        assert!(!anchored.matches("/docs/a.html/more"));
    }

    #[test]
    fn one_of_several_patterns_is_enough_and_none_picks_nothing() {
        let patterns = parse(&["^/a", "^/b"]).unwrap();
        assert!(patterns.matches("/b/c"));
        assert!(!patterns.matches("/c"));
        assert!(!parse(&[]).unwrap().matches("/"));
        assert!(PathPatterns::default().is_empty());
    }

    #[test]
    fn a_pattern_that_is_none_is_named_by_its_index_with_the_problem() {
        let violation = parse(&["ok", "a(b"]).unwrap_err();
        assert_eq!(violation.field, "include_path_regexes[1]");
        assert_eq!(
            violation.description,
            "is not a regular expression: unclosed group (see https://docs.rs/regex for the syntax; there is \
             no look-around and no back-reference)"
        );
        assert_eq!(parse(&[""]).unwrap_err().description, "must not be empty");
    }

    #[test]
    fn patterns_that_would_take_much_memory_are_refused() {
        let violation = parse(&["(a{1000}){1000}"]).unwrap_err();
        assert!(
            violation.description.contains("use smaller repetitions"),
            "{violation:?}"
        );
        let many = vec!["a".to_owned(); MAX_PATTERNS + 1];
        let violation = PathPatterns::parse("f", &many).unwrap_err();
        assert_eq!(
            violation,
            FieldViolation::new("f", "must have at most 100 patterns, has 101")
        );
        let long = "a".repeat(MAX_PATTERN_BYTES + 1);
        assert_eq!(
            parse(&[&long]).unwrap_err().description,
            "must have at most 1024 bytes, has 1025"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_compiled_or_refused(pattern in ".{0,60}", path in ".{0,60}") {
            if let Ok(patterns) = parse(&[&pattern]) {
                patterns.matches(&path);
            }
        }

        #[test]
        fn a_literal_is_found_exactly_where_it_stands(literal in "[a-z/]{1,5}", path in "/[a-z/]{0,20}") {
            let patterns = parse(&[&literal]).unwrap();
            prop_assert_eq!(patterns.matches(&path), path.contains(&literal));
        }
    }
}
