//! URLs of pages: when two are the same page, and which belong to the crawled site.

use url::{Origin, Url};

/// The longest URL that is followed, in bytes.
const MAX_URL_BYTES: usize = 2_048;
/// Parameters that only tell where a visitor came from.
const TRACKING: &[&str] = &[
    "fbclid", "gclid", "dclid", "msclkid", "yclid", "mc_cid", "mc_eid", "igshid", "_hsenc", "_hsmi",
];
/// Ends of paths that name no page: what they name is not asked for.
const NOT_PAGES: &[&str] = &[
    "7z", "aac", "apk", "appimage", "avi", "avif", "bin", "bmp", "bz2", "css", "deb", "dll", "dmg", "eot",
    "exe", "flac", "flv", "gif", "gz", "ico", "iso", "jar", "jpeg", "jpg", "js", "m4a", "m4v", "map", "mjs",
    "mkv", "mov", "mp3", "mp4", "mpeg", "mpg", "msi", "ogg", "ogv", "opus", "otf", "pkg", "png", "rar",
    "rpm", "so", "svg", "svgz", "tar", "tgz", "tif", "tiff", "ttf", "wasm", "wav", "webm", "webp", "whl",
    "wmv", "woff", "woff2", "xz", "zip", "zst",
];

/// The form that all URLs of one page share: without fragment, credentials, empty query, default port and
/// parameters for tracking, and with escapes written one way. The order of parameters is kept, since it may matter.
///
/// None for what cannot be fetched: other schemes than http and https, and URLs of over 2,048 bytes.
pub fn normalise(url: &Url) -> Option<Url> {
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return None;
    }
    let mut url = url.clone();
    url.set_fragment(None);
    // Neither can fail for a URL with a host.
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    let path = plain_escapes(url.path());
    if path != url.path() {
        url.set_path(&path);
    }
    if let Some(query) = url.query() {
        let kept: Vec<&str> = query
            .split('&')
            .filter(|parameter| !parameter.is_empty() && !is_tracking(parameter))
            .collect();
        let kept = kept.join("&");
        if kept != query || kept.is_empty() {
            url.set_query((!kept.is_empty()).then_some(kept.as_str()));
        }
    }
    (url.as_str().len() <= MAX_URL_BYTES).then_some(url)
}

fn is_tracking(parameter: &str) -> bool {
    let name = parameter
        .split('=')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    name.starts_with("utm_") || TRACKING.contains(&name.as_str())
}

/// A path or pattern with escapes in upper case, and none where a letter, a digit or one of `-._~` can stand
/// for itself (RFC 3986, section 6.2.2).
pub(super) fn plain_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        plain.push_str(before);
        let byte = escape.get(1..3).and_then(|digits| {
            let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            is_hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
        });
        let length = match byte {
            // A dot that is written as such could make another path.
            Some(byte) if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') => {
                plain.push(char::from(byte));
                3
            }
            Some(byte) => {
                plain.push_str(&format!("%{byte:02X}"));
                3
            }
            None => {
                plain.push('%');
                1
            }
        };
        rest = escape.get(length..).unwrap_or_default();
    }
    plain.push_str(rest);
    plain
}

/// Path and query, which is what robots.txt speaks of.
pub(super) fn path_and_query(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

/// Whether the end of the path says that this is an image, an archive, or else no page.
pub(super) fn names_no_page(url: &Url) -> bool {
    let name = url.path().rsplit('/').next().unwrap_or_default();
    let Some((_, extension)) = name.rsplit_once('.') else {
        return false;
    };
    NOT_PAGES.contains(&extension.to_ascii_lowercase().as_str())
}

/// The site that is crawled: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Site {
    origin: Origin,
    /// The origin whose URLs older pages of the site still use for it.
    former: Option<Origin>,
}

impl Site {
    /// The site of `url`.
    pub(super) fn of(url: &Url) -> Self {
        let mut plain = url.clone();
        let is_usual = url.scheme() == "https" && url.port().is_none();
        let former = (is_usual && plain.set_scheme("http").is_ok()).then(|| plain.origin());
        Self {
            origin: url.origin(),
            former,
        }
    }

    /// The form of `url` that all of its spellings share, if it is part of the site. Where the site is at
    /// https, links to it by http are links into it.
    pub(super) fn own(&self, url: &Url) -> Option<Url> {
        let mut url = normalise(url)?;
        if self.former.as_ref() == Some(&url.origin()) {
            url.set_scheme("https").ok()?;
        }
        self.contains(&url).then_some(url)
    }

    /// Whether `url` is part of it.
    pub(super) fn contains(&self, url: &Url) -> bool {
        self.origin == url.origin()
    }
}

/// Whether a start page at `from` may lead to `to` and the crawl still be that of the site its owner named:
/// the same host or the one with or without `www.`, by https after http, each at its usual port or both at
/// the same.
pub(super) fn is_same_owner(from: &Url, to: &Url) -> bool {
    let without_www = |url: &Url| {
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        host.strip_prefix("www.").map(str::to_owned).unwrap_or(host)
    };
    let scheme = from.scheme() == to.scheme() || (from.scheme() == "http" && to.scheme() == "https");
    scheme && from.port() == to.port() && without_www(from) == without_www(to)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn normal(text: &str) -> String {
        normalise(&url(text)).unwrap().into()
    }

    #[test]
    fn what_does_not_make_another_page_is_dropped() {
        for (given, wanted) in [
            ("HTTP://Example.COM:80/a#part", "http://example.com/a"),
            ("https://example.com:443", "https://example.com/"),
            ("https://example.com/a?", "https://example.com/a"),
            ("https://example.com/a?b=1&&c", "https://example.com/a?b=1&c"),
            (
                "https://example.com/?utm_source=x&id=3&gclid=y",
                "https://example.com/?id=3",
            ),
            ("https://example.com/?UTM_Source=x", "https://example.com/"),
            ("https://user:secret@example.com/", "https://example.com/"),
            ("https://example.com/a/../b/./c", "https://example.com/b/c"),
            ("https://example.com/%7euser/%2f", "https://example.com/~user/%2F"),
            ("https://example.com/gr%c3%bcn", "https://example.com/gr%C3%BCn"),
            ("https://example.com/50%", "https://example.com/50%"),
        ] {
            assert_eq!(normal(given), wanted, "{given}");
        }
    }

    #[test]
    fn what_may_make_another_page_is_kept() {
        for kept in [
            "https://example.com/a?b=1&a=2",
            "https://example.com/a/",
            "https://example.com/A",
            "https://example.com:8443/",
            "https://example.com/a%2Fb",
            "https://example.com/?q=utm_source",
        ] {
            assert_eq!(normal(kept), kept);
        }
    }

    #[test]
    fn what_cannot_be_fetched_is_no_page() {
        let long = format!("https://example.com/{}", "a".repeat(2_048));
        for text in [
            "mailto:a@example.com",
            "ftp://example.com/",
            "javascript:void(0)",
            &long,
        ] {
            assert_eq!(normalise(&url(text)), None, "{text}");
        }
    }

    #[test]
    fn the_end_of_a_path_tells_what_is_no_page() {
        assert!(names_no_page(&url("https://example.com/a/photo.JPG?size=1")));
        assert!(names_no_page(&url("https://example.com/a.tar.gz")));
        assert!(!names_no_page(&url("https://example.com/v1.2/")));
        assert!(!names_no_page(&url("https://example.com/a.html")));
        assert!(!names_no_page(&url("https://example.com/manual.pdf")));
        assert!(!names_no_page(&url("https://example.com/zip")));
    }

    #[test]
    fn links_by_http_lead_into_a_site_at_https() {
        let own = |site: &str, link: &str| Site::of(&url(site)).own(&url(link)).map(String::from);
        let https = Some("https://example.com/a".to_owned());
        assert_eq!(own("https://example.com/", "https://example.com/a#b"), https);
        assert_eq!(own("https://example.com/", "http://example.com/a"), https);
        assert_eq!(own("https://example.com/", "http://example.com:8080/a"), None);
        assert_eq!(own("https://example.com/", "https://www.example.com/a"), None);
        assert_eq!(own("http://example.com/", "https://example.com/a"), None);
        assert_eq!(own("https://example.com:444/", "http://example.com:444/a"), None);
    }

    #[test]
    fn a_start_page_may_lead_to_https_and_to_www_and_nowhere_else() {
        let from = url("http://example.com/");
        for to in [
            "https://example.com/",
            "http://www.example.com/a",
            "https://www.example.com/",
        ] {
            assert!(is_same_owner(&from, &url(to)), "{to}");
        }
        for to in [
            "https://docs.example.com/",
            "http://example.com:8080/",
            "http://example.org/",
            "http://www.www.example.com/",
        ] {
            assert!(!is_same_owner(&from, &url(to)), "{to}");
        }
        assert!(!is_same_owner(&url("https://example.com/"), &from));
        assert!(is_same_owner(&url("http://www.example.com/"), &from));
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own(path in "[a-zA-Z0-9%/.~_=&?+;:@ü-]{0,40}") {
            let first = normal(&format!("https://example.com/{path}"));
            prop_assert_eq!(normal(&first), first);
        }

        #[test]
        fn escapes_of_the_same_bytes_are_written_alike(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let upper: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
            let lower: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(plain_escapes(&upper), plain_escapes(&lower));
        }
    }
}
