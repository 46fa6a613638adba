//! Lines for people and programs: the one place that prints.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::Write;

/// Prints one line of an answer, at once even into a pipe. A reader that went away is no error.
pub(super) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints one line beside the answer.
pub(super) fn error(text: &str) {
    eprintln!("{text}");
}
