//! The parent's side: starts the child, hands it the document, takes its answer, and says what became of
//! it.
//!
//! The child reads the document from its standard input, which the parent keeps open until the answer is
//! there: a child whose input ends early knows that nobody waits for it any more, even when the parent
//! was killed. Unlike a signal on the parent's death this does not depend on which thread made the child.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    time::timeout,
};

use super::{
    Format, Input, ParserOptions,
    answer::{self, AnswerError, Converted, Failure},
    child::Request,
    error::{ConverterEnd, ParseError},
};

/// How much of the child's standard error is kept.
const MAX_SAID_BYTES: usize = 4 * 1024;
/// The allocator takes address space in pieces of this size, in KiB. Its own choice of a gigabyte would
/// be most of the limit before anything is read.
const ARENA_KIBIBYTES: &str = "65536";
/// How much of a file is read at once: each read is a trip to another thread.
const PIECE_BYTES: usize = 256 * 1024;
/// How long a killed child may take to end.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// Converts a document in a child process.
pub(super) async fn convert(
    options: &ParserOptions,
    format: Format,
    input: Input<'_>,
) -> Result<Converted, ParseError> {
    let (content_bytes, content) = open(input).await.map_err(ParseError::Unavailable)?;
    let request = Request {
        format,
        content_bytes,
        max_memory_bytes: options.max_memory_bytes,
        max_cpu_seconds: options.max_cpu.as_secs().max(1),
        max_output_bytes: options.max_output_bytes,
        max_pages: options.max_pages,
    };
    let mut child = start(options.program.as_deref(), &request).map_err(ParseError::Unavailable)?;
    let ended = match timeout(options.timeout, converse(&mut child, content, &request)).await {
        Ok(ended) => ended.map_err(ParseError::Unavailable)?,
        Err(_) => {
            child.start_kill().map_err(ParseError::Unavailable)?;
            // Killed, so it ends; waiting for it here leaves nothing behind.
            let _ = timeout(END_DEADLINE, child.wait()).await;
            return Err(ParseError::TimedOut {
                format,
                limit: options.timeout,
            });
        }
    };
    judge(options, format, ended)
}

enum Content<'a> {
    Bytes(&'a [u8]),
    File(File),
}

async fn open(input: Input<'_>) -> io::Result<(u64, Content<'_>)> {
    Ok(match input {
        Input::Bytes(bytes) => (bytes.len() as u64, Content::Bytes(bytes)),
        Input::File(path) => {
            let file = File::open(path).await?;
            (file.metadata().await?.len(), Content::File(file))
        }
    })
}

/// The binary that runs, even when another one lies at its path since.
fn own_program() -> io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() {
        return Ok(running.to_owned());
    }
    std::env::current_exe()
}

fn start(program: Option<&Path>, request: &Request) -> io::Result<Child> {
    let program = match program {
        Some(program) => program.to_owned(),
        None => own_program()?,
    };
    Command::new(program)
        .arg0("chroma-sync")
        .args(request.arguments())
        // Nothing of the configuration, which holds secrets.
        .env_clear()
        .env("MIMALLOC_ARENA_RESERVE", ARENA_KIBIBYTES)
        // One document, one thread: how many are converted at once is decided by the parent.
        .env("RAYON_NUM_THREADS", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

struct Ended {
    answer: Result<Result<Converted, Failure>, AnswerError>,
    status: ExitStatus,
    said: String,
}

/// Feeds the child and listens to it until it has ended.
async fn converse(child: &mut Child, content: Content<'_>, request: &Request) -> io::Result<Ended> {
    let missing = || io::Error::other("the child has no pipes");
    let input = child.stdin.take().ok_or_else(missing)?;
    let mut output = child.stdout.take().ok_or_else(missing)?;
    let errors = child.stderr.take().ok_or_else(missing)?;
    let listening = async {
        let answer = answer::read(&mut output, request.max_output_bytes).await;
        // A child that says too much must not wait for a reader.
        drop(output);
        answer
    };
    let (fed, answer, said) = tokio::join!(
        feed(input, content, request.content_bytes),
        listening,
        keep_end(errors)
    );
    // The input stays open until here. A child that ended early broke the pipe; its status says why.
    let input = match fed {
        Ok(input) => Some(input),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
        Err(error) => return Err(error),
    };
    let status = child.wait().await?;
    drop(input);
    Ok(Ended { answer, status, said })
}

/// Writes exactly `length` bytes.
async fn feed(mut input: ChildStdin, content: Content<'_>, length: u64) -> io::Result<ChildStdin> {
    match content {
        Content::Bytes(bytes) => input.write_all(bytes).await?,
        Content::File(file) => {
            let mut file = BufReader::with_capacity(PIECE_BYTES, file.take(length));
            let written = tokio::io::copy_buf(&mut file, &mut input).await?;
            if written != length {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the document became shorter while it was read",
                ));
            }
        }
    }
    input.flush().await?;
    Ok(input)
}

/// Reads to the end and keeps the last part.
async fn keep_end(mut errors: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut piece = [0; MAX_SAID_BYTES];
    while let Ok(read) = errors.read(&mut piece).await
        && read > 0
    {
        kept.extend_from_slice(&piece[..read]);
        kept.drain(..kept.len().saturating_sub(MAX_SAID_BYTES));
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

/// What an ended child means for its document.
fn judge(options: &ParserOptions, format: Format, ended: Ended) -> Result<Converted, ParseError> {
    let Ended { answer, status, said } = ended;
    if !said.is_empty() {
        tracing::debug!(%format, %status, said, "a converter of documents said something");
    }
    let crashed = |said: String| ParseError::Crashed {
        format,
        source: ConverterEnd {
            status: status.to_string(),
            said,
        },
    };
    match answer {
        Ok(Ok(converted)) => return Ok(converted),
        Ok(Err(failure)) => {
            return Err(match failure {
                Failure::Encrypted => ParseError::Encrypted { format },
                Failure::Damaged(problem) => ParseError::Damaged { format, problem },
                Failure::NoText(pages) => ParseError::NoText { pages },
                Failure::TooManyPages(pages) => ParseError::TooManyPages {
                    pages,
                    limit: options.max_pages,
                },
                Failure::OutputTooLong => output_limit(options, format),
                Failure::Crashed(panic) => crashed(panic),
            });
        }
        Err(AnswerError::TooLong) => return Err(output_limit(options, format)),
        Err(AnswerError::Io(error)) => return Err(ParseError::Unavailable(error)),
        Err(AnswerError::Malformed) => {}
    }
    const SIGNAL_CPU: i32 = rustix::process::Signal::XCPU.as_raw();
    const SIGNAL_KILL: i32 = rustix::process::Signal::KILL.as_raw();
    match status.signal() {
        Some(SIGNAL_CPU) => Err(ParseError::CpuLimit {
            format,
            limit: options.max_cpu,
        }),
        // The kernel's choice when the machine, not the child, is out of memory.
        Some(SIGNAL_KILL) => Err(memory_limit(options, format)),
        _ if said.contains("memory allocation of") || said.contains("out of memory") => {
            Err(memory_limit(options, format))
        }
        _ => Err(crashed(said)),
    }
}

fn memory_limit(options: &ParserOptions, format: Format) -> ParseError {
    ParseError::MemoryLimit {
        format,
        limit: options.max_memory_bytes,
    }
}

fn output_limit(options: &ParserOptions, format: Format) -> ParseError {
    ParseError::OutputLimit {
        format,
        limit: options.max_output_bytes,
    }
}
