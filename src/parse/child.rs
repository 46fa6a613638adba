//! The child's side: limits itself, reads the document, converts it, answers.
//!
//! It opens no file and no connection, and the limit on the size of files lets it write none.

use std::{
    any::Any,
    io::{self, Read},
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    thread,
};

use rustix::process::{Resource, Rlimit, setrlimit};

use super::{
    Format,
    answer::{self, Failure},
    convert,
};

/// What the child is to do, as it stands on its command line.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// What the document is read as.
    pub format: Format,
    /// How long the document is, in bytes.
    pub content_bytes: u64,
    /// The most address space, in bytes.
    pub max_memory_bytes: u64,
    /// The most processor time, in seconds.
    pub max_cpu_seconds: u64,
    /// The longest Markdown, in bytes.
    pub max_output_bytes: u64,
    /// The most pages.
    pub max_pages: u32,
}

/// The name of the subcommand.
pub const SUBCOMMAND: &str = "parse-document";

impl Request {
    /// The command line, read again by `cli::parse_document`.
    pub(super) fn arguments(&self) -> [String; 7] {
        [
            SUBCOMMAND.to_owned(),
            format!("--format={}", self.format),
            format!("--content-bytes={}", self.content_bytes),
            format!("--max-memory-bytes={}", self.max_memory_bytes),
            format!("--max-cpu-seconds={}", self.max_cpu_seconds),
            format!("--max-output-bytes={}", self.max_output_bytes),
            format!("--max-pages={}", self.max_pages),
        ]
    }
}

/// The whole life of the child. Answers on standard output; nothing else is printed but what a panic or
/// a failed allocation says.
pub fn run(request: &Request) -> ExitCode {
    match serve(request) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody is left who could be told.
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(request: &Request) -> io::Result<()> {
    limit(request)?;
    let content = read_content(request.content_bytes)?;
    end_with_the_parent()?;
    let converted = catch_unwind(AssertUnwindSafe(|| {
        convert::convert(request.format, content, request.max_pages)
    }));
    let result = match converted {
        Ok(Ok(converted)) if converted.markdown.len() as u64 > request.max_output_bytes => {
            Err(Failure::OutputTooLong)
        }
        Ok(result) => result,
        Err(panic) => Err(Failure::Crashed(panic_text(panic.as_ref()))),
    };
    answer::write(&mut io::stdout().lock(), &result)
}

/// Sets the limits of this process; none can be raised again.
fn limit(request: &Request) -> io::Result<()> {
    let both = |soft: u64, hard: u64| Rlimit {
        current: Some(soft),
        maximum: Some(hard),
    };
    for (resource, limit) in [
        (Resource::Core, both(0, 0)),
        (Resource::Fsize, both(0, 0)),
        (
            Resource::As,
            both(request.max_memory_bytes, request.max_memory_bytes),
        ),
        // The first sends the signal that tells this limit from others, the second kills.
        (
            Resource::Cpu,
            both(request.max_cpu_seconds, request.max_cpu_seconds.saturating_add(1)),
        ),
    ] {
        setrlimit(resource, limit)?;
    }
    Ok(())
}

fn read_content(length: u64) -> io::Result<Vec<u8>> {
    let wanted = usize::try_from(length).map_err(io::Error::other)?;
    let mut content = Vec::with_capacity(wanted);
    io::stdin().lock().take(length).read_to_end(&mut content)?;
    if content.len() == wanted {
        Ok(content)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Ends this process when its input ends, which the parent holds open for as long as it waits.
fn end_with_the_parent() -> io::Result<()> {
    thread::Builder::new()
        .name("parent".to_owned())
        .stack_size(64 * 1024)
        .spawn(|| {
            let mut byte = [0];
            // Nothing more is ever sent.
            let _ = io::stdin().read(&mut byte);
            std::process::exit(1);
        })
        .map(drop)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic").to_owned()
}
