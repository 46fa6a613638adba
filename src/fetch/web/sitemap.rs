//! Sitemaps: lists of a site's pages (sitemaps.org), as XML or as one URL a line, and lists of them.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use quick_xml::{Reader, events::Event};

/// How a gzip stream begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The longest URL that is taken, in bytes.
const MAX_URL_BYTES: usize = 2_048;

/// What a sitemap lists, as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sitemap {
    /// Pages.
    pub(super) pages: Vec<String>,
    /// Further sitemaps.
    pub(super) sitemaps: Vec<String>,
}

impl Sitemap {
    /// Reads as much of a sitemap as can be read: at most `max_bytes` after decompression and `max_urls`
    /// entries of either kind. What is broken ends it.
    pub(super) fn parse(bytes: &[u8], max_bytes: usize, max_urls: usize) -> Self {
        if bytes.starts_with(&GZIP) {
            let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX);
            let mut plain = Vec::new();
            // What came before an error is still a list.
            let _complete = MultiGzDecoder::new(bytes).take(limit).read_to_end(&mut plain);
            return Self::parse_plain(&plain, max_urls);
        }
        Self::parse_plain(bytes.get(..max_bytes).unwrap_or(bytes), max_urls)
    }

    fn parse_plain(bytes: &[u8], max_urls: usize) -> Self {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        if bytes.trim_ascii_start().starts_with(b"<") {
            Self::parse_xml(bytes, max_urls)
        } else {
            let text = String::from_utf8_lossy(bytes);
            let lines = text.lines().map(str::trim);
            let is_url = |line: &&str| line.starts_with("http://") || line.starts_with("https://");
            let pages = lines.filter(is_url).filter(|line| line.len() <= MAX_URL_BYTES);
            Self {
                pages: pages.take(max_urls).map(str::to_owned).collect(),
                sitemaps: Vec::new(),
            }
        }
    }

    fn parse_xml(bytes: &[u8], max_urls: usize) -> Self {
        let mut reader = Reader::from_reader(bytes);
        // Whoever writes HTML in place of XML gets an empty list, not an error.
        reader.config_mut().check_end_names = false;
        let mut sitemap = Self::default();
        let mut buffer = Vec::new();
        let mut entry = Entry::Other;
        // Extensions have locations of their own, of images for example, in other namespaces.
        let mut prefix: Option<String> = None;
        let mut location: Option<String> = None;
        loop {
            buffer.clear();
            let Ok(event) = reader.read_event_into(&mut buffer) else {
                return sitemap;
            };
            match event {
                Event::Start(start) => {
                    let begun = match start.local_name().as_ref() {
                        "url" => Entry::Page,
                        "sitemap" => Entry::Sitemap,
                        _ => Entry::Other,
                    };
                    let own = start.name().prefix().map(|prefix| prefix.as_ref().to_owned());
                    if entry == Entry::Other && begun != Entry::Other {
                        (entry, prefix) = (begun, own);
                    } else if start.local_name().as_ref() == "loc" && own == prefix {
                        location = Some(String::new());
                    }
                }
                Event::Text(text) => {
                    if let Some(location) = &mut location {
                        location.push_str(&text);
                    }
                }
                Event::CData(text) => {
                    if let Some(location) = &mut location {
                        location.push_str(&text);
                    }
                }
                Event::GeneralRef(reference) => {
                    if let Some(location) = &mut location {
                        location.extend(character(&reference));
                    }
                }
                Event::End(end) if end.name().prefix().map(|prefix| prefix.as_ref().to_owned()) != prefix => {
                }
                Event::End(end) => match end.local_name().as_ref() {
                    "loc" => {
                        let found = location.take().unwrap_or_default();
                        let found = found.trim();
                        let list = match entry {
                            Entry::Page => &mut sitemap.pages,
                            Entry::Sitemap => &mut sitemap.sitemaps,
                            Entry::Other => continue,
                        };
                        if !found.is_empty() && found.len() <= MAX_URL_BYTES && list.len() < max_urls {
                            list.push(found.to_owned());
                        }
                    }
                    "url" | "sitemap" => entry = Entry::Other,
                    _ => {}
                },
                Event::Eof => return sitemap,
                Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            }
        }
    }
}

/// What the entry being read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Page,
    Sitemap,
    Other,
}

/// The character behind `&name;`; XML has five names, and no other is looked up.
fn character(reference: &quick_xml::events::BytesRef<'_>) -> Option<char> {
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return Some(character);
    }
    let name: &str = reference;
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    const PAGES: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
        <urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">
          <url><loc> https://example.com/a?x=1&amp;y=2 </loc><lastmod>2026-01-01</lastmod></url>
          <url><image:image><image:loc>https://example.com/no.png</image:loc></image:image><loc><![CDATA[https://example.com/b]]></loc></url>
        </urlset>"#;

    fn parse(text: &str) -> Sitemap {
        Sitemap::parse(text.as_bytes(), 1 << 20, 1_000)
    }

    #[test]
    fn pages_are_listed_in_their_order() {
        let sitemap = parse(PAGES);
        assert_eq!(
            sitemap.pages,
            ["https://example.com/a?x=1&y=2", "https://example.com/b"]
        );
        assert_eq!(sitemap.sitemaps, Vec::<String>::new());
    }

    #[test]
    fn an_index_lists_sitemaps() {
        let sitemap =
            parse("<sitemapindex><sitemap><loc>https://example.com/1.xml.gz</loc></sitemap></sitemapindex>");
        assert_eq!(sitemap.sitemaps, ["https://example.com/1.xml.gz"]);
        assert_eq!(sitemap.pages, Vec::<String>::new());
    }

    #[test]
    fn a_compressed_sitemap_is_read_up_to_the_limit() {
        let many: String = (0..1_000)
            .map(|n| format!("<url><loc>https://example.com/{n}</loc></url>"))
            .collect();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder
            .write_all(format!("<urlset>{many}</urlset>").as_bytes())
            .unwrap();
        let compressed = encoder.finish().unwrap();
        assert_eq!(Sitemap::parse(&compressed, 1 << 20, 10_000).pages.len(), 1_000);
        assert_eq!(Sitemap::parse(&compressed, 1 << 20, 7).pages.len(), 7);
        let some = Sitemap::parse(&compressed, 1_000, 10_000).pages.len();
        assert!((1..30).contains(&some), "{some}");
    }

    #[test]
    fn a_list_of_lines_is_a_sitemap_too_and_a_page_is_none() {
        assert_eq!(
            parse("https://example.com/a\r\n\nnonsense\nhttps://example.com/b\n")
                .pages
                .len(),
            2
        );
        assert_eq!(
            parse("<!doctype html><html><p>Not found<br></html>"),
            Sitemap::default()
        );
    }

    #[test]
    fn entities_of_its_own_are_not_expanded() {
        let bomb = "<!DOCTYPE l [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><urlset><url><loc>https://example.com/&b;</loc></url></urlset>";
        assert_eq!(parse(bomb).pages, ["https://example.com/"]);
    }

    proptest! {
        #[test]
        fn anything_is_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            Sitemap::parse(&bytes, 1_000, 10);
        }

        #[test]
        fn any_xml_is_read(text in "(<(url|loc|sitemap|!\\[CDATA\\[|/loc|/url)>|&[a-z#0-9]{0,4};|[a-z]{0,3}){0,30}") {
            parse(&text);
        }
    }
}
