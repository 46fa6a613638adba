//! Regular expressions that pick the pages of a web site by their path.

use regex::{RegexSet, RegexSetBuilder};

use crate::error::FieldViolation;

/// The most patterns of one list.
pub const MAX_PATTERNS: usize = 100;
/// The longest pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 1_024;
/// The most bytes that all patterns of a list may take when compiled.
const MAX_COMPILED_BYTES: usize = 10 << 20;

/// A list of compiled patterns; matching takes time linear in the path.
#[derive(Debug, Clone)]
pub struct PathPatterns {
    compiled: RegexSet,
}

impl PathPatterns {
    /// Compiles `patterns`; the violation names `field`, with the index of the pattern where it is one's.
    pub fn parse(field: &str, patterns: &[String]) -> Result<Self, FieldViolation> {
        if patterns.len() > MAX_PATTERNS {
            let problem = format!(
                "must have at most {MAX_PATTERNS} patterns, has {}",
                patterns.len()
            );
            return Err(FieldViolation::new(field, problem));
        }
        for (index, pattern) in patterns.iter().enumerate() {
            let wrong = |problem: String| FieldViolation::new(format!("{field}[{index}]"), problem);
            if pattern.len() > MAX_PATTERN_BYTES {
                return Err(wrong(format!(
                    "must have at most {MAX_PATTERN_BYTES} bytes, has {}",
                    pattern.len()
                )));
            }
            if pattern.contains('\0') {
                return Err(wrong("must not contain a NUL character".to_owned()));
            }
            build(std::slice::from_ref(pattern))
                .map_err(|error| wrong(format!("is no regular expression: {error}")))?;
        }
        let compiled = build(patterns).map_err(|_| {
            FieldViolation::new(field, "must be simpler: compiled, they take too much memory")
        })?;
        Ok(Self { compiled })
    }

    /// The patterns as they were given.
    pub fn patterns(&self) -> &[String] {
        self.compiled.patterns()
    }

    /// Whether one of them matches somewhere in `path`.
    pub fn matches(&self, path: &str) -> bool {
        self.compiled.is_match(path)
    }
}

fn build(patterns: &[String]) -> Result<RegexSet, regex::Error> {
    RegexSetBuilder::new(patterns)
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(MAX_COMPILED_BYTES)
        .build()
}

impl PartialEq for PathPatterns {
    fn eq(&self, other: &Self) -> bool {
        self.patterns() == other.patterns()
    }
}

impl Eq for PathPatterns {}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(patterns: &[&str]) -> Result<PathPatterns, FieldViolation> {
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
        PathPatterns::parse("paths", &patterns)
    }

    #[test]
    fn a_pattern_matches_anywhere_in_the_path_unless_it_is_anchored() {
        let docs = patterns(&["/docs/*", "^/blog$"]).unwrap();
        for (path, matches) in [
            ("/docs/a", true),
            ("/en/docs/a", true),
            ("/docs", true),
            ("/blog", true),
            ("/blog/a", false),
            ("/", false),
        ] {
            assert_eq!(docs.matches(path), matches, "{path}");
        }
    }

    #[test]
    fn what_does_not_compile_is_refused_with_its_index() {
        for (list, field) in [
            (vec!["ok", "("], "paths[1]"),
            (vec!["a\0"], "paths[0]"),
            (vec!["(?:a{1000}){1000}"], "paths[0]"),
        ] {
            assert_eq!(patterns(&list).unwrap_err().field, field, "{list:?}");
        }
        let long = "a".repeat(MAX_PATTERN_BYTES + 1);
        assert_eq!(patterns(&[&long]).unwrap_err().field, "paths[0]");
        assert_eq!(patterns(&vec!["a"; MAX_PATTERNS + 1]).unwrap_err().field, "paths");
    }
}
