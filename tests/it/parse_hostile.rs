//! Documents that mean harm, or are broken: each fails for itself, and nothing stays behind.

use std::{
    fmt::Write as _,
    io::{Cursor, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use chroma_sync::parse::{Format, Input, ParseError, Parsed, Parser, ParserOptions};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::harness::{
    corpus::{convert, document, options, parser},
    service::{binary, project_file},
    wait_for,
};

async fn parse(options: ParserOptions, format: Format, bytes: &[u8]) -> Result<Parsed, ParseError> {
    Parser::new(options, None)
        .parse(format, Input::Bytes(bytes))
        .await
}

/// An archive of these parts.
fn archive(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in parts {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

const OPEN_DOCUMENT: &str =
    "<office:document-content xmlns:office='o' xmlns:text='t' xmlns:table='b'><office:body>";

fn spreadsheet(rows: &str) -> Vec<u8> {
    let content = format!(
        "{OPEN_DOCUMENT}<office:spreadsheet><table:table table:name='s'>{rows}</table:table>\
         </office:spreadsheet></office:body></office:document-content>"
    );
    archive(&[("content.xml", content.as_bytes())])
}

/// A spreadsheet of a few bytes whose only row stands there a billion times.
fn endless_rows() -> Vec<u8> {
    spreadsheet(
        "<table:table-row table:number-rows-repeated='1000000000'><table:table-cell><text:p>x</text:p>\
         </table:table-cell></table:table-row>",
    )
}

/// A PDF of these objects, the first of which is the catalog.
fn pdf(objects: &[String]) -> Vec<u8> {
    let mut text = "%PDF-1.7\n".to_owned();
    let mut offsets = Vec::new();
    for (position, object) in objects.iter().enumerate() {
        offsets.push(text.len());
        write!(text, "{} 0 obj\n{object}\nendobj\n", position + 1).unwrap();
    }
    let table = text.len();
    write!(text, "xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).unwrap();
    for offset in offsets {
        writeln!(text, "{offset:010} 00000 n ").unwrap();
    }
    let size = objects.len() + 1;
    write!(
        text,
        "trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n"
    )
    .unwrap();
    text.into_bytes()
}

#[tokio::test]
async fn a_zip_bomb_fails_without_being_unpacked() {
    let bomb = vec![b' '; 64 * 1024 * 1024];
    let container = b"<container><rootfile full-path='p.opf'/></container>";
    for (format, bytes) in [
        (Format::Odt, archive(&[("content.xml", &bomb)])),
        (
            Format::Docx,
            archive(&[("[Content_Types].xml", b"<Types/>"), ("word/document.xml", &bomb)]),
        ),
        (Format::Docx, archive(&[("[Content_Types].xml", &bomb)])),
        (
            Format::Docx,
            archive(&[("word/styles.xml", &bomb), ("[Content_Types].xml", b"<Types/>")]),
        ),
        (
            Format::Xlsx,
            archive(&[("[Content_Types].xml", b"<Types/>"), ("xl/workbook.xml", &bomb)]),
        ),
        (
            Format::Pptx,
            archive(&[
                ("[Content_Types].xml", b"<Types/>"),
                ("ppt/presentation.xml", &bomb),
            ]),
        ),
        (
            Format::Epub,
            archive(&[("META-INF/container.xml", container), ("p.opf", &bomb)]),
        ),
    ] {
        assert!(bytes.len() < 100_000, "{}", bytes.len());
        let error = parse(options(), format, &bytes).await.unwrap_err();
        assert!(matches!(error, ParseError::Damaged { .. }), "{format}: {error:?}");
    }
}

#[tokio::test]
async fn a_document_that_wants_more_memory_than_allowed_fails_and_names_the_limit() {
    let limited = ParserOptions {
        max_memory_bytes: 512 * 1024 * 1024,
        ..options()
    };
    let error = parse(limited, Format::Ods, &endless_rows()).await.unwrap_err();
    assert!(matches!(error, ParseError::MemoryLimit { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("536870912 bytes of memory (parse.max_memory_bytes)"),
        "{text}"
    );
}

/// A Word document of tables in tables, each of which is read again for every table around it.
fn nested_tables() -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(7);
    let depth = 20_000;
    let mut text = "<w:document><w:body>".to_owned();
    for _ in 0..depth {
        // Noise, so that the archive does not look like a bomb.
        write!(text, "<w:tbl><w:tr><w:tc x='{:032x}'>", random.random::<u128>()).unwrap();
    }
    text.push_str("<w:p/>");
    text.push_str(&"</w:tc></w:tr></w:tbl>".repeat(depth));
    archive(&[
        ("[Content_Types].xml", b"<Types/>"),
        ("word/document.xml", text.as_bytes()),
    ])
}

#[tokio::test]
async fn a_document_that_takes_more_processor_time_than_allowed_fails_and_names_the_limit() {
    let limited = ParserOptions {
        max_cpu: Duration::from_secs(1),
        ..options()
    };
    let error = parse(limited, Format::Docx, &nested_tables()).await.unwrap_err();
    assert!(matches!(error, ParseError::CpuLimit { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("more than 1 s of processor time (parse.max_cpu_seconds)")
    );
}

/// A web page that takes a while.
fn slow_page() -> Vec<u8> {
    let mut page = String::new();
    for number in 0..400_000 {
        write!(
            page,
            "<p>{number} <b>a</b> <a href='/{number}'>b</a> <table><tr><td>c</td></tr></table>"
        )
        .unwrap();
    }
    page.into_bytes()
}

#[tokio::test]
async fn a_document_that_takes_longer_than_allowed_fails_and_names_the_limit() {
    let limited = ParserOptions {
        timeout: Duration::from_millis(1),
        ..options()
    };
    let error = parse(limited, Format::Html, &slow_page()).await.unwrap_err();
    assert!(matches!(error, ParseError::TimedOut { .. }), "{error:?}");
    assert!(error.to_string().contains("(parse.timeout_seconds)"));
}

#[tokio::test]
async fn a_document_with_more_text_than_allowed_fails_and_names_the_limit() {
    let limited = ParserOptions {
        max_output_bytes: 100,
        ..options()
    };
    let path = document("report.odt");
    let error = Parser::new(limited, None)
        .parse(Format::Odt, Input::File(&path))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ParseError::OutputLimit { limit: 100, .. }),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains("longer than 100 bytes (parse.max_output_bytes)")
    );
}

#[tokio::test]
async fn a_pdf_with_more_pages_than_allowed_fails_before_it_is_converted() {
    let limited = ParserOptions {
        max_pages: 2,
        ..options()
    };
    let path = document("scanned.pdf");
    let error = Parser::new(limited, None)
        .parse(Format::Pdf, Input::File(&path))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ParseError::TooManyPages { pages: 3, limit: 2 }),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains("has 3 pages and at most 2 are read (parse.max_pages)")
    );
}

#[tokio::test]
async fn a_page_tree_without_end_comes_to_an_end() {
    let catalog = "<< /Type /Catalog /Pages 2 0 R >>".to_owned();
    let page = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 3 0 R >>".to_owned();
    let counts = ["1", "2147483647", "-5"];
    for pages in counts.map(|count| {
        [
            format!("<< /Type /Pages /Kids [2 0 R] /Count {count} >>"),
            format!("<< /Type /Pages /Kids [3 0 R 3 0 R 2 0 R] /Count {count} /Parent 2 0 R >>"),
        ]
    }) {
        for tree in pages {
            let bytes = pdf(&[catalog.clone(), tree.clone(), page.clone()]);
            let result = parse(options(), Format::Pdf, &bytes).await;
            match result {
                Ok(parsed) => assert_eq!(parsed.markdown, "", "{tree}"),
                Err(
                    ParseError::Damaged { .. } | ParseError::TooManyPages { .. } | ParseError::NoText { .. },
                ) => {}
                Err(error) => panic!("{tree}: {error:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_table_of_objects_that_refers_to_itself_is_damaged() {
    let mut text = String::from_utf8(pdf(&["<< /Type /Catalog >>".to_owned()])).unwrap();
    let table = text.rfind("xref\n0").unwrap();
    text = text.replace("/Root", &format!("/Prev {table} /Root"));
    let error = parse(options(), Format::Pdf, text.as_bytes()).await;
    assert!(
        matches!(&error, Err(ParseError::Damaged { .. }))
            || error.as_ref().is_ok_and(|parsed| parsed.markdown.is_empty()),
        "{error:?}"
    );
}

#[tokio::test]
async fn nesting_without_measure_fails_or_is_flattened() {
    let depth = 100_000;
    let sections = format!(
        "{OPEN_DOCUMENT}<office:text>{}{}</office:text></office:body></office:document-content>",
        "<text:section>".repeat(depth),
        "</text:section>".repeat(depth)
    );
    let error = parse(
        options(),
        Format::Odt,
        &archive(&[("content.xml", sections.as_bytes())]),
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("nested too deeply"), "{error}");

    let page = format!("<p>before</p>{}inside", "<div>".repeat(depth));
    let parsed = parse(options(), Format::Html, page.as_bytes()).await.unwrap();
    assert!(parsed.markdown.starts_with("before"), "{}", parsed.markdown);
}

#[tokio::test]
async fn damaged_documents_fail_for_themselves_or_are_read_as_far_as_they_go() {
    let mut random = StdRng::seed_from_u64(5);
    let mut names: Vec<String> = std::fs::read_dir(project_file("tests/corpus"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Format::of(name, None).is_some_and(|format| format != Format::Image))
        .collect();
    names.sort();
    assert!(names.len() >= 18, "{names:?}");
    let (mut read, mut failed) = (0, 0);
    for name in names {
        let whole = std::fs::read(document(&name)).unwrap();
        let format = Format::of(&name, None).unwrap();
        let cut = whole[..whole.len() * 2 / 3].to_vec();
        let mut flipped = whole.clone();
        for _ in 0..20 {
            let place = random.random_range(0..flipped.len());
            flipped[place] = random.random();
        }
        let mut hole = whole.clone();
        let begin = random.random_range(0..hole.len() / 2);
        let end = begin + hole.len() / 10;
        hole[begin..end].fill(0);
        for bytes in [cut, flipped, hole] {
            match parse(options(), format, &bytes).await {
                Ok(_) => read += 1,
                Err(
                    ParseError::Damaged { .. }
                    | ParseError::Encrypted { .. }
                    | ParseError::NoText { .. }
                    | ParseError::Crashed { .. },
                ) => failed += 1,
                Err(error) => panic!("{name}: {error:?}"),
            }
        }
    }
    // A cut archive has lost its list of parts, so some of each there must be.
    assert!(failed >= 14 && read >= 3, "{read} were read, {failed} failed");
}

/// The command line and the environment of a running conversion with this length, by its process id.
fn running(content_bytes: usize) -> Option<(u32, String, String)> {
    let wanted = format!("--content-bytes={content_bytes}");
    std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).ok();
        let arguments = read("cmdline")?;
        arguments.contains(&wanted).then(|| {
            (
                id,
                arguments.replace('\0', " "),
                read("environ").unwrap_or_default(),
            )
        })
    })
}

/// Waits until the process is gone, with its entry in the table of processes.
async fn gone(id: u32) {
    wait_for("the end of the conversion", async || {
        let path = format!("/proc/{id}");
        if Path::new(&path).exists() {
            Err(std::fs::read_to_string(format!("{path}/stat")).ok())
        } else {
            Ok(())
        }
    })
    .await;
}

#[tokio::test]
async fn a_conversion_that_nobody_waits_for_ends_and_knows_no_secrets() {
    let mut page = slow_page();
    // A length of its own tells this conversion from those of other tests.
    page.extend_from_slice(b"<!-- first -->");
    let length = page.len();
    let waiting = tokio::spawn(async move { parse(options(), Format::Html, &page).await });
    let (id, arguments, environment) =
        wait_for("the conversion", async || running(length).ok_or("not running")).await;
    assert!(
        arguments.starts_with("chroma-sync parse-document --format=html"),
        "{arguments}"
    );
    let mut variables: Vec<&str> = environment
        .split('\0')
        .filter(|variable| !variable.is_empty())
        .collect();
    variables.sort_unstable();
    assert_eq!(variables, ["MIMALLOC_ARENA_RESERVE=65536", "RAYON_NUM_THREADS=1"]);

    waiting.abort();

    gone(id).await;
}

#[tokio::test]
async fn a_conversion_ends_with_its_parent() {
    let page = slow_page();
    // The parent's end of the pipe closes, as it does when the parent is killed: before all is sent, and after.
    for sent in [page.len() / 2, page.len()] {
        let mut child = Command::new(binary())
            .args(["parse-document", "--format=html", "--max-pages=1"])
            .arg(format!("--content-bytes={}", page.len()))
            .args([
                "--max-memory-bytes=4294967296",
                "--max-cpu-seconds=600",
                "--max-output-bytes=1000000000",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(&page[..sent]).unwrap();
        drop(input);
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap())
            .await
            .unwrap();
        assert_eq!(status.code(), Some(1), "{sent}");
    }
}

#[tokio::test]
async fn no_more_conversions_run_at_once_than_allowed() {
    let limited = ParserOptions {
        concurrency: 1,
        ..options()
    };
    let parser = Parser::new(limited, None);
    let mut page = slow_page();
    page.extend_from_slice(b"<!-- one at a time -->");
    let length = page.len();
    let first = {
        let parser = parser.clone();
        tokio::spawn(async move { parser.parse(Format::Html, Input::Bytes(&page)).await })
    };
    let (id, ..) = wait_for("the conversion", async || running(length).ok_or("not running")).await;
    let path = document("stock.csv");
    let waits = Duration::from_millis(300);
    let second = tokio::time::timeout(waits, parser.parse(Format::Csv, Input::File(&path)));
    assert!(second.await.is_err(), "the second did not wait");

    first.abort();
    gone(id).await;

    let second = parser.parse(Format::Csv, Input::File(&path)).await;
    assert!(second.unwrap().markdown.starts_with("| Item |"));
}

#[tokio::test]
async fn a_worker_that_cannot_convert_says_that_another_try_may_go_better() {
    let nowhere = ParserOptions {
        program: Some("/does/not/exist".into()),
        ..options()
    };
    let error = parse(nowhere, Format::Csv, b"a").await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(!error.to_string().contains("exist"), "{error}");
    let missing = parser()
        .parse(Format::Csv, Input::File(Path::new("/does/not/exist")))
        .await
        .unwrap_err();
    assert!(missing.is_transient());
}

#[tokio::test]
async fn a_converter_that_dies_or_talks_nonsense_fails_its_document() {
    // Programs that end without an answer, and that answer without end.
    for (program, said) in [("/bin/false", "exit status: 1"), ("/usr/bin/yes", "")] {
        let other = ParserOptions {
            program: Some(program.into()),
            ..options()
        };
        match parse(other, Format::Csv, b"a,b").await.unwrap_err() {
            ParseError::Crashed { source, .. } => assert!(source.status.contains(said), "{source}"),
            error => panic!("{program}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn hundred_conversions_leave_no_process_behind() {
    let start = Instant::now();
    for _ in 0..100 {
        convert("stock.csv").await.unwrap();
    }
    eprintln!("100 conversions of a small table in {:?}", start.elapsed());
    let length = std::fs::metadata(document("stock.csv")).unwrap().len();
    assert_eq!(running(usize::try_from(length).unwrap()), None);
}
