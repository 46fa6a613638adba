//! Which format a document has, by its name and the media type it came with.

use std::fmt;

/// A format that is turned into Markdown. Everything else has to be UTF-8 text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Portable Document Format.
    Pdf,
    /// Word up to 2003.
    Doc,
    /// Word, Office Open XML.
    Docx,
    /// OpenDocument text.
    Odt,
    /// Excel up to 2003.
    Xls,
    /// Excel, Office Open XML, with or without macros, and its templates.
    Xlsx,
    /// Comma-separated values.
    Csv,
    /// OpenDocument spreadsheet.
    Ods,
    /// PowerPoint up to 2003.
    Ppt,
    /// PowerPoint, Office Open XML.
    Pptx,
    /// OpenDocument presentation.
    Odp,
    /// A web page.
    Html,
    /// An e-book.
    Epub,
    /// A picture, which has text only through a description.
    Image,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 14] = [
        Self::Pdf,
        Self::Doc,
        Self::Docx,
        Self::Odt,
        Self::Xls,
        Self::Xlsx,
        Self::Csv,
        Self::Ods,
        Self::Ppt,
        Self::Pptx,
        Self::Odp,
        Self::Html,
        Self::Epub,
        Self::Image,
    ];

    /// The format of the document `name`, such as `a/b.PDF`, that came with `media_type`, such as
    /// `application/pdf`. `None`: it must be UTF-8 text.
    ///
    /// A media type that says something wins over the suffix. Those that stores and browsers send for
    /// lack of a better one (`application/octet-stream`, `application/zip` and what is not known here)
    /// say nothing.
    pub fn of(name: &str, media_type: Option<&str>) -> Option<Self> {
        let by_suffix = Self::of_suffix(name);
        let Some(media_type) = media_type else {
            return by_suffix;
        };
        let essence = media_type.split(';').next().unwrap_or_default();
        let essence = essence.trim().to_ascii_lowercase();
        match Self::of_media_type(&essence) {
            // What Windows with Excel calls text/csv.
            Some(Self::Xls) if by_suffix == Some(Self::Csv) => by_suffix,
            Some(format) => Some(format),
            None if is_text(&essence) => None,
            None => by_suffix,
        }
    }

    /// The format of names that end like this one, in letters of either case.
    pub fn of_suffix(name: &str) -> Option<Self> {
        let last = name.rsplit('/').next()?;
        let (stem, suffix) = last.rsplit_once('.')?;
        if stem.is_empty() {
            return None;
        }
        Some(match suffix.to_ascii_lowercase().as_str() {
            "pdf" => Self::Pdf,
            "doc" => Self::Doc,
            "docx" => Self::Docx,
            "odt" => Self::Odt,
            "xls" => Self::Xls,
            "xlsx" | "xlsm" | "xltx" => Self::Xlsx,
            "csv" => Self::Csv,
            "ods" => Self::Ods,
            "ppt" => Self::Ppt,
            "pptx" => Self::Pptx,
            "odp" => Self::Odp,
            "html" | "htm" => Self::Html,
            "epub" => Self::Epub,
            "png" | "jpg" | "jpeg" | "webp" | "gif" | "tiff" | "tif" => Self::Image,
            _ => return None,
        })
    }

    /// The format of a media type in lower case, without parameters.
    fn of_media_type(essence: &str) -> Option<Self> {
        const OPEN_XML: &str = "application/vnd.openxmlformats-officedocument.";
        const OPEN_DOCUMENT: &str = "application/vnd.oasis.opendocument.";
        if let Some(rest) = essence.strip_prefix(OPEN_XML) {
            return match rest {
                "wordprocessingml.document" | "wordprocessingml.template" => Some(Self::Docx),
                "spreadsheetml.sheet" | "spreadsheetml.template" => Some(Self::Xlsx),
                "presentationml.presentation" | "presentationml.slideshow" => Some(Self::Pptx),
                _ => None,
            };
        }
        if let Some(rest) = essence.strip_prefix(OPEN_DOCUMENT) {
            return match rest {
                "text" => Some(Self::Odt),
                "spreadsheet" => Some(Self::Ods),
                "presentation" => Some(Self::Odp),
                _ => None,
            };
        }
        match essence {
            "application/pdf" => Some(Self::Pdf),
            "application/msword" => Some(Self::Doc),
            "application/vnd.ms-excel" => Some(Self::Xls),
            "application/vnd.ms-excel.sheet.macroenabled.12" => Some(Self::Xlsx),
            "application/vnd.ms-powerpoint" => Some(Self::Ppt),
            "text/csv" | "application/csv" => Some(Self::Csv),
            "text/html" | "application/xhtml+xml" => Some(Self::Html),
            "application/epub+zip" => Some(Self::Epub),
            "image/png" | "image/jpeg" | "image/webp" | "image/gif" | "image/tiff" => Some(Self::Image),
            _ => None,
        }
    }

    /// Its name in messages, in the log and on the command line of the child process.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pdf => "pdf",
            Self::Doc => "doc",
            Self::Docx => "docx",
            Self::Odt => "odt",
            Self::Xls => "xls",
            Self::Xlsx => "xlsx",
            Self::Csv => "csv",
            Self::Ods => "ods",
            Self::Ppt => "ppt",
            Self::Pptx => "pptx",
            Self::Odp => "odp",
            Self::Html => "html",
            Self::Epub => "epub",
            Self::Image => "image",
        }
    }

    /// The format with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Whether this media type says that the document is text as it is.
fn is_text(essence: &str) -> bool {
    essence.starts_with("text/") || matches!(essence, "application/json" | "application/xml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_suffixes_are_known_in_letters_of_either_case() {
        for (suffixes, format) in [
            ("pdf", Format::Pdf),
            ("doc", Format::Doc),
            ("docx", Format::Docx),
            ("odt", Format::Odt),
            ("xls", Format::Xls),
            ("xlsx xlsm xltx", Format::Xlsx),
            ("csv", Format::Csv),
            ("ods", Format::Ods),
            ("ppt", Format::Ppt),
            ("pptx", Format::Pptx),
            ("odp", Format::Odp),
            ("html htm", Format::Html),
            ("epub", Format::Epub),
            ("png jpg jpeg webp gif tiff tif", Format::Image),
        ] {
            for suffix in suffixes.split(' ') {
                for name in [
                    format!("a.{suffix}"),
                    format!("b.c/a.x.{}", suffix.to_uppercase()),
                ] {
                    assert_eq!(Format::of(&name, None), Some(format), "{name}");
                }
            }
        }
    }

    #[test]
    fn other_names_are_text() {
        for name in [
            "a.txt", "README", "a.pdf/b", ".pdf", "a/.html", "a.pdf.gz", "pdf", "", "a.", "a.svg",
        ] {
            assert_eq!(Format::of(name, None), None, "{name}");
        }
    }

    #[test]
    fn a_media_type_that_says_something_wins_over_the_suffix() {
        for (name, media_type, format) in [
            ("a", "application/pdf", Some(Format::Pdf)),
            ("a.bin", "Application/PDF; version=1.7", Some(Format::Pdf)),
            ("a.pdf", "text/plain; charset=utf-8", None),
            ("a.html", "text/markdown", None),
            ("a.txt", "text/html", Some(Format::Html)),
            (
                "a.docx",
                "application/vnd.oasis.opendocument.text",
                Some(Format::Odt),
            ),
        ] {
            assert_eq!(Format::of(name, Some(media_type)), format, "{name} {media_type}");
        }
    }

    #[test]
    fn a_media_type_that_says_nothing_leaves_it_to_the_suffix() {
        for media_type in [
            "application/octet-stream",
            "binary/octet-stream",
            "application/zip",
            "",
            "x",
            "a/b",
        ] {
            assert_eq!(
                Format::of("a.docx", Some(media_type)),
                Some(Format::Docx),
                "{media_type}"
            );
            assert_eq!(Format::of("a.txt", Some(media_type)), None, "{media_type}");
        }
        let excel = Some("application/vnd.ms-excel");
        assert_eq!(Format::of("a.csv", excel), Some(Format::Csv));
        assert_eq!(Format::of("a.xls", excel), Some(Format::Xls));
        assert_eq!(Format::of("a", excel), Some(Format::Xls));
    }

    #[test]
    fn every_format_is_found_by_its_name() {
        for format in Format::ALL {
            assert_eq!(Format::from_name(format.as_str()), Some(format));
        }
    }
}
