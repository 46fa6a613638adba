//! From the bytes of an answer to text: what kind of document it is, and in which encoding.

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// How far into a page its encoding may be declared (HTML standard).
const DECLARATION_BYTES: usize = 1_024;
/// How far a NUL byte is looked for, as in files (`fetch::rules`).
const BINARY_WINDOW_BYTES: usize = 8_000;

/// Documents that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A page, made into Markdown.
    Html,
    /// Text that is kept.
    Plain,
    /// Markdown that is kept.
    Markdown,
    /// Kept as bytes, for the parser of documents.
    Pdf,
}

impl Kind {
    /// The media type that the document has in the spool.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Html | Self::Markdown => "text/markdown",
            Self::Plain => "text/plain",
            Self::Pdf => "application/pdf",
        }
    }
}

/// What `Content-Type` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Declared {
    /// A kind that is taken, with the encoding where one is named.
    Known(Kind, Option<&'static Encoding>),
    /// Another one.
    Other,
    /// Nothing, so that the bytes have to tell.
    Nothing,
}

/// Reads a `Content-Type`; `path` is that of the URL, since servers call Markdown plain text.
pub(super) fn declared(content_type: Option<&str>, path: &str) -> Declared {
    let Some(content_type) = content_type.filter(|value| !value.trim().is_empty()) else {
        return Declared::Nothing;
    };
    let mut parameters = content_type.split(';');
    let essence = parameters.next().unwrap_or_default().trim().to_ascii_lowercase();
    let encoding = parameters
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
        .and_then(|(_, value)| Encoding::for_label(value.trim().trim_matches('"').as_bytes()));
    let path = path.to_ascii_lowercase();
    let kind = match essence.as_str() {
        "text/html" | "application/xhtml+xml" => Kind::Html,
        "text/markdown" | "text/x-markdown" => Kind::Markdown,
        "text/plain" if path.ends_with(".md") || path.ends_with(".markdown") => Kind::Markdown,
        "text/plain" => Kind::Plain,
        "application/pdf" | "application/x-pdf" => Kind::Pdf,
        _ => return Declared::Other,
    };
    Declared::Known(kind, encoding)
}

/// What bytes are that nothing was declared of; none for what is neither a page nor text nor PDF.
pub(super) fn sniff(bytes: &[u8]) -> Option<Kind> {
    let start = bytes
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(bytes)
        .trim_ascii_start();
    if start.starts_with(b"%PDF-") {
        return Some(Kind::Pdf);
    }
    let is_tag = |tag: &[u8]| {
        start
            .get(..tag.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(tag))
    };
    if [&b"<!doctype html"[..], b"<html", b"<head", b"<body", b"<!--"]
        .into_iter()
        .any(is_tag)
    {
        return Some(Kind::Html);
    }
    (!bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()).then_some(Kind::Plain)
}

/// Whether what is called text is none: it has a NUL byte and is in no encoding of two bytes.
pub(super) fn is_binary(bytes: &[u8]) -> bool {
    let window = bytes.get(..BINARY_WINDOW_BYTES).unwrap_or(bytes);
    memchr::memchr(0, window).is_some() && Encoding::for_bom(bytes).is_none()
}

/// The text of a page or of plain text. Its byte order mark decides, then `declared`, then what the page
/// says itself, then whether it is UTF-8; what is left is taken for windows-1252, as browsers do.
pub(super) fn decode(bytes: &[u8], kind: Kind, declared: Option<&'static Encoding>) -> String {
    let marked = Encoding::for_bom(bytes).map(|(encoding, _)| encoding);
    let in_page = || {
        if kind == Kind::Html {
            declaration(bytes)
        } else {
            None
        }
    };
    let encoding = marked.or(declared).or_else(in_page).unwrap_or_else(|| {
        if std::str::from_utf8(bytes).is_ok() {
            UTF_8
        } else {
            WINDOWS_1252
        }
    });
    let (text, _) = encoding.decode_with_bom_removal(bytes);
    text.into_owned()
}

/// The encoding in `<meta charset>` or `<meta content="...; charset=">`.
fn declaration(bytes: &[u8]) -> Option<&'static Encoding> {
    let start = bytes
        .get(..DECLARATION_BYTES)
        .unwrap_or(bytes)
        .to_ascii_lowercase();
    let text = String::from_utf8_lossy(&start);
    let label = text.split("<meta").skip(1).find_map(|tag| {
        let tag = tag.split('>').next()?;
        let (_, value) = tag.split_once("charset")?;
        let value = value.trim_start().strip_prefix('=')?.trim_start();
        let value = value.trim_start_matches(['"', '\'']);
        let end = value
            .find(['"', '\'', ';', ' ', '/', '\t', '\n'])
            .unwrap_or(value.len());
        value.get(..end)
    })?;
    let encoding = Encoding::for_label(label.as_bytes())?;
    // A page that can be read this far is in no encoding of two bytes.
    Some(if encoding == UTF_16BE || encoding == UTF_16LE {
        UTF_8
    } else {
        encoding
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn encoding(label: &str) -> Option<&'static Encoding> {
        Encoding::for_label(label.as_bytes())
    }

    #[test]
    fn media_types_tell_pages_text_and_pdf_from_the_rest() {
        for (content_type, path, wanted) in [
            (Some("text/html"), "/", Declared::Known(Kind::Html, None)),
            (
                Some("Text/HTML; Charset=\"iso-8859-15\""),
                "/",
                Declared::Known(Kind::Html, encoding("iso-8859-15")),
            ),
            (
                Some("application/xhtml+xml"),
                "/",
                Declared::Known(Kind::Html, None),
            ),
            (
                Some("text/plain;charset=utf-8"),
                "/a.txt",
                Declared::Known(Kind::Plain, encoding("utf-8")),
            ),
            (
                Some("text/plain"),
                "/README.MD",
                Declared::Known(Kind::Markdown, None),
            ),
            (Some("text/markdown"), "/a", Declared::Known(Kind::Markdown, None)),
            (Some("application/pdf"), "/a", Declared::Known(Kind::Pdf, None)),
            (Some("image/png"), "/a", Declared::Other),
            (Some("text/css"), "/a", Declared::Other),
            (
                Some("text/html; charset=nonsense"),
                "/",
                Declared::Known(Kind::Html, None),
            ),
            (Some(" "), "/a", Declared::Nothing),
            (None, "/a", Declared::Nothing),
        ] {
            assert_eq!(declared(content_type, path), wanted, "{content_type:?}");
        }
    }

    #[test]
    fn bytes_without_a_media_type_are_looked_at() {
        assert_eq!(sniff(b"%PDF-1.7 ..."), Some(Kind::Pdf));
        assert_eq!(sniff(b"\xef\xbb\xbf \n<!DOCTYPE HTML>"), Some(Kind::Html));
        assert_eq!(sniff("grün".as_bytes()), Some(Kind::Plain));
        assert_eq!(sniff(b"\x89PNG\r\n\x1a\n\0\0"), None);
        assert_eq!(sniff(b"gr\xfcn"), None);
    }

    #[test]
    fn an_encoding_is_taken_from_the_mark_the_header_the_page_or_the_bytes() {
        let german = "<meta charset=x>Stra\u{df}e";
        let latin = |text: &[u8], declared| decode(text, Kind::Html, declared);
        assert_eq!(
            latin(b"\xef\xbb\xbfgr\xc3\xbcn", encoding("iso-8859-1")),
            "gr\u{fc}n"
        );
        assert_eq!(latin(b"\xff\xfea\0\xfc\0", None), "a\u{fc}");
        assert_eq!(latin(b"\xe4", encoding("koi8-r")), "\u{414}");
        assert_eq!(
            latin(b"<meta charset='koi8-r'>\xe4", None),
            "<meta charset='koi8-r'>\u{414}"
        );
        let old = b"<META http-equiv=Content-Type content=\"text/html; charset=Shift_JIS\">\x93\xfa\x96{";
        assert!(latin(old, None).ends_with("\u{65e5}\u{672c}"));
        assert_eq!(latin(german.as_bytes(), None), german);
        assert_eq!(latin(b"\x80 gr\xfcn", None), "\u{20ac} gr\u{fc}n");
        assert_eq!(
            latin("<meta charset=utf-16>\u{fc}".as_bytes(), None),
            "<meta charset=utf-16>\u{fc}"
        );
    }

    #[test]
    fn a_declaration_in_plain_text_is_text() {
        let text = decode(b"<meta charset=koi8-r>\xe4", Kind::Plain, None);
        assert!(text.ends_with('\u{e4}'), "{text}");
    }
}
