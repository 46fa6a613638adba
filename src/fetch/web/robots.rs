//! robots.txt: what a site lets this crawler fetch (RFC 9309), and the two lines beside the standard that
//! everybody writes, `Crawl-delay` and `Sitemap`.
//!
//! The file comes from a stranger, so what is read of it and what a pattern may cost is bounded.

use std::time::Duration;

use url::Url;

use super::address::{path_and_query, plain_escapes};

/// How much of the file is read; the standard asks for at least this.
pub(super) const MAX_BYTES: usize = 500 << 10;
/// The most rules that are kept.
const MAX_RULES: usize = 4_000;
/// The most `*` of a pattern. What follows a further one is dropped, so the rule takes in more.
const MAX_STARS: usize = 16;
/// The most sitemaps that are kept.
const MAX_SITEMAPS: usize = 100;

/// A line `Allow` or `Disallow`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// What stands between the stars; the first part begins the path.
    parts: Vec<String>,
    /// Whether the path has to end where the pattern does.
    ends: bool,
    /// Bytes of the pattern: the longest that matches decides.
    length: usize,
}

/// What a site says to this crawler. The default allows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Robots {
    rules: Vec<Rule>,
    /// How long to wait between two requests.
    pub(super) crawl_delay: Option<Duration>,
    /// Sitemaps that the file names, as written.
    pub(super) sitemaps: Vec<String>,
}

/// Lines that one kind of crawler is addressed with.
#[derive(Debug, Default)]
struct Group {
    found: bool,
    rules: Vec<Rule>,
    crawl_delay: Option<Duration>,
}

impl Robots {
    /// Reads the file for the crawler with this product token. Lines that are not understood are left out.
    pub(super) fn parse(bytes: &[u8], token: &str) -> Self {
        let text = String::from_utf8_lossy(bytes.get(..MAX_BYTES).unwrap_or(bytes));
        let (mut own, mut everybody) = (Group::default(), Group::default());
        let mut sitemaps = Vec::new();
        // Whom the lines speak to that come next, and whether these have begun.
        let (mut to_own, mut to_everybody, mut in_rules) = (false, false, true);
        for line in text.trim_start_matches('\u{feff}').split(['\n', '\r']) {
            let line = line.split('#').next().unwrap_or_default();
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            match key.as_str() {
                "user-agent" => {
                    if in_rules {
                        (to_own, to_everybody, in_rules) = (false, false, false);
                    }
                    to_everybody |= value == "*";
                    to_own |= product_token(value).eq_ignore_ascii_case(token);
                    own.found |= to_own;
                    everybody.found |= to_everybody;
                }
                "allow" | "disallow" => {
                    in_rules = true;
                    let rule = Rule::parse(key == "allow", value);
                    for (group, _) in [(&mut own, to_own), (&mut everybody, to_everybody)]
                        .into_iter()
                        .filter(|(group, addressed)| *addressed && group.rules.len() < MAX_RULES)
                    {
                        group.rules.extend(rule.clone());
                    }
                }
                "crawl-delay" => {
                    in_rules = true;
                    let delay = delay(value);
                    for (group, _) in [(&mut own, to_own), (&mut everybody, to_everybody)]
                        .into_iter()
                        .filter(|(_, addressed)| *addressed)
                    {
                        group.crawl_delay = delay.or(group.crawl_delay);
                    }
                }
                "sitemap" if sitemaps.len() < MAX_SITEMAPS => sitemaps.push(value.to_owned()),
                _ => {}
            }
        }
        let group = if own.found { own } else { everybody };
        Self {
            rules: group.rules,
            crawl_delay: group.crawl_delay,
            sitemaps,
        }
    }

    /// Whether the crawler may fetch `url`. robots.txt itself it always may.
    pub(super) fn allows(&self, url: &Url) -> bool {
        let path = plain_escapes(&path_and_query(url));
        if path == "/robots.txt" {
            return true;
        }
        let decisive = self
            .rules
            .iter()
            .filter(|rule| rule.matches(&path))
            .max_by_key(|rule| (rule.length, rule.allow));
        decisive.is_none_or(|rule| rule.allow)
    }
}

/// What a user agent calls itself by: its beginning out of letters, `-` and `_`.
pub(super) fn product_token(agent: &str) -> &str {
    let is_token = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_');
    let length = agent.bytes().take_while(|byte| is_token(byte)).count();
    agent.get(..length).unwrap_or_default()
}

fn delay(value: &str) -> Option<Duration> {
    let seconds: f64 = value.parse().ok()?;
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

impl Rule {
    /// None for an empty pattern, which says nothing.
    fn parse(allow: bool, pattern: &str) -> Option<Self> {
        if pattern.is_empty() {
            return None;
        }
        let encoded: String = pattern
            .chars()
            .flat_map(|character| {
                let mut buffer = [0; 4];
                let text = character.encode_utf8(&mut buffer);
                if character.is_ascii() {
                    text.to_owned()
                } else {
                    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
                }
                .chars()
                .collect::<Vec<char>>()
            })
            .collect();
        let pattern = plain_escapes(&encoded);
        let length = pattern.len();
        let (pattern, ends) = match pattern.strip_suffix('$') {
            Some(pattern) => (pattern, true),
            None => (pattern.as_str(), false),
        };
        let mut parts: Vec<String> = pattern.split('*').map(str::to_owned).collect();
        let cut = parts.len() > MAX_STARS + 1;
        parts.truncate(MAX_STARS + 1);
        Some(Self {
            allow,
            parts,
            ends: ends && !cut,
            length,
        })
    }

    fn matches(&self, path: &str) -> bool {
        let Some((first, others)) = self.parts.split_first() else {
            return false;
        };
        let Some(mut rest) = path.strip_prefix(first.as_str()) else {
            return false;
        };
        let Some((last, middle)) = others.split_last() else {
            return !self.ends || rest.is_empty();
        };
        for part in middle {
            match rest.find(part.as_str()) {
                Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        if self.ends {
            rest.ends_with(last.as_str())
        } else {
            rest.contains(last.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const TOKEN: &str = "chroma-sync";

    fn allows(file: &str, path: &str) -> bool {
        let url = Url::parse("https://example.com").unwrap().join(path).unwrap();
        Robots::parse(file.as_bytes(), TOKEN).allows(&url)
    }

    #[test]
    fn an_empty_file_and_an_empty_rule_allow_everything() {
        assert!(allows("", "/a"));
        assert!(allows("User-agent: *\nDisallow:\n", "/a"));
        assert!(allows("<html>not found</html>", "/a"));
    }

    #[test]
    fn the_longest_rule_decides_and_allow_wins_a_tie() {
        let file =
            "user-agent: *\ndisallow: /a\nallow: /a/b\ndisallow: /a/b/c\nallow: /tie\ndisallow: /tie\n";
        for (path, allowed) in [
            ("/", true),
            ("/a", false),
            ("/ab", false),
            ("/a/b", true),
            ("/a/b/c", false),
            ("/tie", true),
        ] {
            assert_eq!(allows(file, path), allowed, "{path}");
        }
    }

    #[test]
    fn stars_and_the_end_are_understood() {
        let file = "User-agent: *\nDisallow: /*.php$\nDisallow: /private*/x\nDisallow: /*?sort=\nDisallow: /exact$\n";
        for (path, allowed) in [
            ("/a.php", false),
            ("/a.php?x", true),
            ("/a.phpx", true),
            ("/private1/x", false),
            ("/private/y/x/z", false),
            ("/private", true),
            ("/list?sort=name", false),
            ("/list?page=2", true),
            ("/exact", false),
            ("/exactly", true),
        ] {
            assert_eq!(allows(file, path), allowed, "{path}");
        }
    }

    #[test]
    fn lines_for_this_crawler_replace_those_for_everybody() {
        let file = "User-agent: *\nDisallow: /\n\nUser-agent: Other\nUser-Agent: Chroma-Sync/1.0\nDisallow: /own\nCrawl-delay: 2.5\n\
                    Sitemap: https://example.com/map.xml\n\nUser-agent: chroma-sync\nDisallow: /more\n";
        assert!(allows(file, "/a"));
        assert!(!allows(file, "/own"));
        assert!(!allows(file, "/more"));
        let robots = Robots::parse(file.as_bytes(), TOKEN);
        assert_eq!(robots.crawl_delay, Some(Duration::from_millis(2_500)));
        assert_eq!(robots.sitemaps, ["https://example.com/map.xml"]);
        assert!(!allows(
            "User-agent: chroma-sync-plus\nDisallow: /\n\nUser-agent: *\nDisallow: /a\n",
            "/a"
        ));
        assert!(allows("User-agent: chroma-sync-plus\nDisallow: /\n", "/a"));
    }

    #[test]
    fn escapes_and_letters_beyond_ascii_match_however_they_are_written() {
        for rule in ["/gr\u{fc}n", "/gr%c3%bcn", "/gr%C3%BCn"] {
            assert!(
                !allows(&format!("User-agent: *\nDisallow: {rule}\n"), "/gr%c3%bcn/x"),
                "{rule}"
            );
        }
        assert!(!allows("User-agent: *\nDisallow: /~user\n", "/%7Euser"));
        assert!(!allows(
            "\u{feff}User-agent: *\r\nDisallow: /a # all of it\r\n",
            "/a"
        ));
    }

    #[test]
    fn a_delay_that_is_none_is_left_out() {
        for (value, seconds) in [
            ("10", Some(10)),
            ("0", Some(0)),
            ("-1", None),
            ("soon", None),
            ("NaN", None),
        ] {
            let file = format!("User-agent: *\nCrawl-delay: {value}\n");
            let delay = Robots::parse(file.as_bytes(), TOKEN).crawl_delay;
            assert_eq!(delay, seconds.map(Duration::from_secs), "{value}");
        }
        let endless = Robots::parse(b"User-agent: *\nCrawl-delay: 1e300\n", TOKEN);
        assert_eq!(endless.crawl_delay, Some(Duration::MAX));
    }

    #[test]
    fn a_product_token_ends_where_the_version_begins() {
        assert_eq!(
            product_token("chroma-sync/0.1 (+https://example.com)"),
            "chroma-sync"
        );
        assert_eq!(product_token("chroma-sync (a)"), "chroma-sync");
        assert_eq!(product_token(""), "");
    }

    /// The pattern as a regular expression, which is another way to say the same.
    fn regex_of(pattern: &str) -> regex::Regex {
        let (pattern, end) = pattern
            .strip_suffix('$')
            .map_or((pattern, ""), |pattern| (pattern, "$"));
        let parts: Vec<String> = pattern.split('*').map(regex::escape).collect();
        regex::Regex::new(&format!("^{}{end}", parts.join(".*"))).unwrap()
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_a_regular_expression_would(pattern in "/[ab*]{0,8}[$]?", path in "[ab]{0,10}") {
            let path = format!("/{path}");
            let disallowed = !allows(&format!("User-agent: *\nDisallow: {pattern}\n"), &path);
            prop_assert_eq!(disallowed, regex_of(&pattern).is_match(&path), "{} {}", pattern, path);
        }

        #[test]
        fn any_file_is_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            Robots::parse(&bytes, TOKEN).allows(&Url::parse("https://example.com/a").unwrap());
        }
    }
}
