//! Documents made with LibreOffice, python-docx, openpyxl and python-pptx, and books of Debian, become the
//! Markdown that a reader of the document would write.

use chroma_sync::parse::{Format, Input, ParseError};

use crate::harness::corpus::{convert, debian_document, document, parser};

async fn markdown(name: &str) -> String {
    let parsed = convert(name).await.unwrap();
    assert_eq!(parsed.unread_pages, 0, "{name}");
    parsed.markdown
}

/// Fails unless every part is there, each after the one before.
fn in_order(markdown: &str, parts: &[&str]) {
    let mut rest = markdown;
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            panic!("{part:?} is not in its place; what follows is {rest:?}");
        };
        rest = after;
    }
}

/// scripts/corpus/report.fodt, with the label of its footnote.
fn report(note: &str) -> String {
    format!(
        "# Field report

The first paragraph has **bold words** and *slanted words*, and a link to \
[the handbook](https://example.org/handbook).

# Instruments

Each instrument was checked twice[^{note}] before use.

- Barometer
- Thermometer
  - with alcohol
  - with mercury
- Rain gauge

## Order of work

1. Set up the mast
2. Read the values
3. Write them down

# Measurements

| Station | Pressure | Rain |
| --- | --- | --- |
| Harbour | 1013 hPa | 4 mm |
| Hilltop | out of order |  |


The last paragraph: grüße, 日本語, 2 < 3.

[^{note}]: Once in the rain."
    )
}

#[tokio::test]
async fn a_text_document_keeps_its_structure_in_each_format_of_libreoffice() {
    for (name, note) in [("report.odt", "1"), ("report.docx", "2"), ("report.doc", "1")] {
        let parsed = convert(name).await.unwrap();
        assert_eq!(parsed.markdown, report(note), "{name}");
        assert_eq!(parsed.title.as_deref(), Some("Field report & notes"), "{name}");
        assert_eq!(parsed.pages, None, "{name}");
    }
}

#[tokio::test]
async fn a_word_document_keeps_lists_that_a_style_makes() {
    let parsed = convert("garden.docx").await.unwrap();
    assert_eq!(parsed.title.as_deref(), Some("Garden plan"));
    assert_eq!(
        parsed.markdown,
        "# Garden plan

Made with **bold** care; see [the seed list](https://example.org/seeds?a=1&b=2)

# Beds

- Roses
- Herbs
  - Thyme
- Trees

## Steps

1. Dig
2. Plant
3. Water

| Bed | Width | Note |
| --- | --- | --- |
| North | 2 m | a\\|b |
| South | 3 m | first<br>second |


First line  \nsecond line

1\\. not a list * nor_emphasis\\_ \\[nor a link\\](x)"
    );
}

#[tokio::test]
async fn a_pdf_keeps_headings_lists_tables_and_emphasis() {
    let parsed = convert("report.pdf").await.unwrap();
    assert_eq!(parsed.pages, Some(1));
    assert_eq!(parsed.title.as_deref(), Some("Field report & notes"));
    in_order(
        &parsed.markdown,
        &[
            "# Field report",
            "has **bold words** and *slanted words*",
            "## Instruments",
            "- Barometer",
            "- Thermometer",
            "- with alcohol",
            "- Rain gauge",
            "### Order of work",
            "1. Set up the mast",
            "2. Read the values",
            "3. Write them down",
            "## Measurements",
            "|Station|Pressure|Rain|",
            "4 mm",
            "The last paragraph: grüße, 日本語, 2 < 3.",
            "Once in the rain.",
        ],
    );
}

#[tokio::test]
async fn a_book_in_pdf_keeps_its_chapters_and_loses_the_names_above_its_pages() {
    let path = debian_document("fhs.pdf");
    let parsed = parser().parse(Format::Pdf, Input::File(&path)).await.unwrap();
    assert_eq!(parsed.pages, Some(50));
    in_order(
        &parsed.markdown,
        &[
            "# Filesystem Hierarchy Standard",
            "# Chapter 1. Introduction",
            "## 1.1. Purpose",
            "# Chapter 3. The Root Filesystem",
            "|Directory|Description|",
            "|bin|Essential command binaries|",
            "## 3.8. /home : User home directories (optional)",
        ],
    );
    // The name of the chapter stands above each of its eleven pages.
    let running = |line: &&str| line.trim_start_matches('#').trim() == "The Root Filesystem";
    assert_eq!(parsed.markdown.lines().filter(running).count(), 0);
    assert!(!parsed.markdown.contains("<!-- Page"));
}

#[tokio::test]
async fn an_ebook_keeps_the_order_of_its_chapters() {
    let path = debian_document("policy.epub");
    let parsed = parser().parse(Format::Epub, Input::File(&path)).await.unwrap();
    assert_eq!(parsed.title.as_deref(), Some("Debian Policy Manual"));
    in_order(
        &parsed.markdown,
        &[
            "# Debian Policy Manual",
            "# 1. About this manual",
            "## 1.1. Scope",
            "## 1.3. Authors and Maintainers",
            "### 1.3.1. Early history",
            "# 2. The Debian Archive",
            "### 2.2.1. The main archive area",
        ],
    );
    in_order(
        &markdown("report.epub").await,
        &[
            "Field report",
            "[the handbook](https://example.org/handbook)",
            "Barometer",
            "| Harbour | 1013 hPa | 4 mm |",
            "日本語",
        ],
    );
}

#[tokio::test]
async fn a_web_page_keeps_headings_lists_tables_and_links() {
    let parsed = convert("report.html").await.unwrap();
    assert_eq!(parsed.title.as_deref(), Some("Field report & notes"));
    in_order(
        &parsed.markdown,
        &[
            "Field report",
            "**bold words** and *slanted words*",
            "[the handbook](https://example.org/handbook)",
            "# Instruments",
            "- Barometer",
            "- Thermometer",
            "  - with alcohol",
            "## Order of work",
            "1. Set up the mast",
            "3. Write them down",
            "# Measurements",
            "| Station | Pressure | Rain |",
            "| Harbour | 1013 hPa | 4 mm |",
        ],
    );
}

/// The sheets of scripts/corpus/documents.py.
fn stock(total: &str, gap: &str, lines: &str) -> String {
    format!(
        "## Stock

| Item | Count | Price | Since | Sold out |  |  |
| --- | --- | --- | --- | --- | --- | --- |
| [Bolt M6](https://example.org/bolt) | 120 | 0.25 | 2024-03-01 | FALSE |  |  |
| Nut \\| large | 0 | 1.5 | 2023-12-24 | TRUE |  |  |
| Total | {total} |  |  |  |  |  |
{gap}|  |  |  |  |  |  | far away |



---

## People & places

| Name | Town |
| --- | --- |
| Zoë | Łódź |
| {lines} |  |
| merged |  |



---

## Empty"
    )
}

#[tokio::test]
async fn a_workbook_keeps_its_sheets_and_the_values_of_formulas() {
    let gap = "|  |  |  |  |  |  |  |\n";
    for (name, expected) in [
        // openpyxl writes formulas without their values.
        ("stock.xlsx", stock("", "", "two lines")),
        ("stock.xltx", stock("", "", "two lines")),
        ("stock.xlsm", stock("120", "", "two lines")),
        ("stock.xls", stock("120", "", "two lines")),
        ("stock.ods", stock("120", gap, "two<br>lines")),
    ] {
        let parsed = convert(name).await.unwrap();
        assert_eq!(parsed.markdown, expected, "{name}");
        assert_eq!(parsed.title.as_deref(), Some("Stock list"), "{name}");
    }
}

#[tokio::test]
async fn comma_separated_values_become_a_table() {
    assert_eq!(
        markdown("stock.csv").await,
        "| Item | Count | Price | Since | Sold out |  |  |
| --- | --- | --- | --- | --- | --- | --- |
| Bolt M6 | 120 | 0.25 | 2024-03-01 | FALSE |  |  |
| Nut \\| large | 0 | 1.5 | 2023-12-24 | TRUE |  |  |
| Total | 120 |  |  |  |  |  |
|  |  |  |  |  |  | far away |
"
    );
}

#[tokio::test]
async fn a_presentation_keeps_titles_bullets_tables_and_the_notes_of_their_slide() {
    let expected = "## Bridges

An overview


---

## Kinds

- Beam
  - of wood
- Arch


> **Notes:**
> Tell the story of the old arch.


---

## Spans

| Bridge | Span |
| --- | --- |
| Forth | 521 m |
| Humber | 1410 m |


[more figures](https://example.org/spans)";
    for name in ["bridges.pptx", "bridges.odp"] {
        let parsed = convert(name).await.unwrap();
        assert_eq!(parsed.markdown, expected, "{name}");
        assert_eq!(parsed.title.as_deref(), Some("Bridge talk"), "{name}");
    }
    in_order(
        &markdown("bridges.ppt").await,
        &[
            "# Bridges",
            "An overview",
            "# Kinds",
            "Beam",
            "of wood",
            "Arch",
            "Tell the story of the old arch.",
            "# Spans",
            "Forth",
            "521 m",
            "[more figures](https://example.org/spans)",
        ],
    );
}

#[tokio::test]
async fn a_document_in_memory_and_under_another_name_is_converted_the_same() {
    let bytes = std::fs::read(document("report.docx")).unwrap();
    let parsed = parser().parse(Format::Doc, Input::Bytes(&bytes)).await.unwrap();
    assert_eq!(parsed.markdown, report("2"));
}

#[tokio::test]
async fn an_encrypted_document_says_so() {
    for name in ["encrypted.pdf", "encrypted.xlsx"] {
        let error = convert(name).await.unwrap_err();
        assert!(matches!(error, ParseError::Encrypted { .. }), "{name}: {error:?}");
        assert!(
            error
                .to_string()
                .ends_with("is encrypted; store it without a password")
        );
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn a_document_of_pictures_of_pages_names_the_pages() {
    let error = convert("scanned.pdf").await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("only pictures of pages (1-3)") && text.contains("OCR"),
        "{text}"
    );
}

#[tokio::test]
async fn what_is_not_the_format_of_its_name_is_damaged() {
    for format in [
        Format::Pdf,
        Format::Doc,
        Format::Docx,
        Format::Odt,
        Format::Xls,
        Format::Xlsx,
        Format::Ods,
        Format::Ppt,
        Format::Pptx,
        Format::Odp,
        Format::Epub,
    ] {
        for bytes in [&b""[..], b"just words", b"PK\x03\x04 and no more"] {
            let error = parser().parse(format, Input::Bytes(bytes)).await.unwrap_err();
            assert!(matches!(error, ParseError::Damaged { .. }), "{format}: {error:?}");
            assert!(
                error.to_string().contains(&format!("cannot be read as {format}")),
                "{error}"
            );
        }
    }
}
