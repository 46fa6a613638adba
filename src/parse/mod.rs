//! Parsers: they turn documents of other forms into Markdown.

pub mod html;
