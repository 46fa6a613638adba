//! Bytes to text, for the formats that do not say how they are encoded.

use encoding_rs::{Encoding, WINDOWS_1252};

/// How far a page is searched for the name of its encoding; the HTML standard says the same.
const DECLARATION_WINDOW_BYTES: usize = 1_024;

/// The text of `content`: by its byte order mark, else UTF-8, else Windows-1252, which takes any bytes.
pub(super) fn decode(content: &[u8]) -> String {
    decode_as(content, None)
}

/// The same for HTML, where a `<meta>` may name another encoding.
pub(super) fn decode_html(content: &[u8]) -> String {
    decode_as(content, declared(content))
}

fn decode_as(content: &[u8], declared: Option<&'static Encoding>) -> String {
    if let Some((encoding, mark)) = Encoding::for_bom(content) {
        let (text, _) = encoding.decode_without_bom_handling(&content[mark..]);
        return text.into_owned();
    }
    // What is UTF-8 is hardly ever meant to be anything else, whatever is declared.
    if let Ok(text) = std::str::from_utf8(content) {
        return text.to_owned();
    }
    let (text, _) = declared
        .unwrap_or(WINDOWS_1252)
        .decode_without_bom_handling(content);
    text.into_owned()
}

/// The encoding that stands behind the first `charset=` or `encoding=`.
fn declared(content: &[u8]) -> Option<&'static Encoding> {
    let window = &content[..content.len().min(DECLARATION_WINDOW_BYTES)];
    let window = String::from_utf8_lossy(window).to_ascii_lowercase();
    ["charset", "encoding"].into_iter().find_map(|word| {
        let (_, rest) = window.split_once(word)?;
        let rest = rest.trim_start().strip_prefix('=')?;
        let rest = rest.trim_start_matches(['"', '\'', ' ']);
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-_:.".contains(c)));
        Encoding::for_label(&rest.as_bytes()[..end.unwrap_or(rest.len())])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_by_its_mark_then_as_utf8_then_as_windows_1252() {
        assert_eq!(decode(b"\xef\xbb\xbfgr\xc3\xbc\xc3\x9fe"), "grüße");
        assert_eq!(decode(b"\xff\xfeg\x00\xfc\x00"), "gü");
        assert_eq!(decode("grüße".as_bytes()), "grüße");
        assert_eq!(decode(b"gr\xfc\xdfe \x80"), "grüße €");
    }

    #[test]
    fn a_page_may_name_its_encoding() {
        let page = b"<meta charset=\"koi8-r\"><p>\xf0\xd2\xc9";
        assert_eq!(decode_html(page), "<meta charset=\"koi8-r\"><p>При");
        let page = b"<meta http-equiv=content-type content='text/html; charset=shift_jis'>\x82\xa0";
        assert!(decode_html(page).ends_with('あ'));
        assert_eq!(
            decode_html(b"<meta charset=nonsense>\xfc"),
            "<meta charset=nonsense>ü"
        );
    }
}
