//! The conversation with the host: which commit, then its pack.
//!
//! One commit is asked for, without history, and without blobs above the size that will be skipped
//! anyway where the host can leave them out (`filter`). gix's own clone does neither the filter nor a
//! choice between a branch and a tag in one round trip, so its steps are put together here. Nothing is
//! negotiated, because nothing is there yet.

use std::{
    io::{self, BufRead, ErrorKind, Read},
    path::Path,
    sync::atomic::AtomicBool,
};

use gix::{
    ObjectId,
    bstr::BString,
    odb::pack::{Bundle, bundle},
    progress::Discard,
    protocol::{
        LsRefsCommand,
        fetch::{self, Arguments, Negotiate, Response, Shallow, Tags, negotiate},
        handshake::Ref,
        ls_refs::RefPrefixes,
        transport::{Service, client::blocking_io::Transport, packetline::read::Error as RemoteError},
    },
};

use super::session::Session;
use crate::{domain::invocation::GitReference, fetch::error::FetchError};

/// The most objects a pack may have: gix's index needs about 100 bytes of memory for each.
const MAX_OBJECTS: u32 = 5_000_000;
/// The most bytes of one object once decompressed, since resolving the pack holds whole objects.
pub(super) const MAX_OBJECT_BYTES: usize = 512 << 20;
/// The most characters of a text from the host that a message repeats.
const MAX_REMOTE_TEXT_CHARACTERS: usize = 200;
/// Bytes of a pack's header: signature, version, number of objects (gitformat-pack).
const PACK_HEADER_BYTES: usize = 12;

/// What was received.
pub(super) struct Received {
    /// The commit or annotated tag that was asked for.
    pub(super) tip: ObjectId,
    /// Whether the host left out the blobs above the size limit.
    pub(super) filtered: bool,
}

/// Fetches what `reference` leads to, or the default branch, into `objects/pack` below `directory`.
///
/// Blobs above `max_blob_bytes` are left out where the host can do so.
pub(super) fn receive(
    session: &Session,
    mut transport: impl Transport,
    reference: Option<&GitReference>,
    directory: &Path,
    max_blob_bytes: u64,
) -> Result<Received, FetchError> {
    let failed = |error: gix::Error| fault_of(session, reference, error);
    let agent = (
        "agent",
        Some(concat!("chroma-sync/", env!("CARGO_PKG_VERSION")).to_owned()),
    );
    let mut progress = Discard;

    // Without a credentials callback gix would ask on the terminal; a 401 never gets this far.
    let no_credentials = |_| Ok(None);
    let mut handshake = gix::protocol::handshake(
        &mut transport,
        Service::UploadPack,
        no_credentials,
        Vec::new(),
        &mut progress,
    )
    .map_err(failed)?;
    let format = handshake
        .capabilities
        .capability("object-format")
        .and_then(|format| format.value().map(ToString::to_string));
    if let Some(format) = format.filter(|format| format != "sha1") {
        return Err(session.unexpected(format!(
            "it uses the object format {format}, this server reads sha1 alone"
        )));
    }

    let tip = match reference {
        Some(GitReference::Sha(sha)) => {
            ObjectId::from_hex(sha.as_bytes()).map_err(|source| FetchError::Internal {
                source: source.into(),
            })?
        }
        Some(GitReference::Branch(_)) | None => {
            let candidates = candidates(reference);
            let refs = match handshake.refs.take() {
                Some(refs) => refs,
                None => {
                    let mut prefixes = RefPrefixes::new();
                    prefixes.extend(candidates.iter().cloned());
                    LsRefsCommand::new(Some(prefixes), &handshake.capabilities, agent.clone())
                        .invoke_blocking(&mut transport, &mut progress, false)
                        .map_err(failed)?
                }
            };
            find(&refs, &candidates).ok_or_else(|| not_found(session, reference))?
        }
    };

    session.begin_pack();
    let mut request = Request {
        tip,
        filter: format!("blob:limit={}", max_blob_bytes.saturating_add(1)),
        filtered: false,
    };
    let pack_directory = directory.join("objects").join("pack");
    let received = gix::protocol::fetch(
        &mut request,
        |pack, progress, stop| {
            write_pack(session, pack, &pack_directory, progress, stop)?;
            Ok(true)
        },
        Discard,
        &session.stop.flag,
        fetch::Context {
            handshake: &mut handshake,
            transport: &mut transport,
            user_agent: agent,
            trace_packetlines: false,
        },
        fetch::Options {
            shallow_file: directory.join("shallow"),
            shallow: &Shallow::DepthAtRemote(std::num::NonZeroU32::MIN),
            tags: Tags::None,
            reject_shallow_remote: false,
        },
    )
    .map_err(failed)?;
    match received {
        Some(_) => Ok(Received {
            tip,
            filtered: request.filtered,
        }),
        None => Err(session.unexpected(format!("{} sent no pack", session.host))),
    }
}

/// Full names of what `reference` may mean, the preferred one first.
fn candidates(reference: Option<&GitReference>) -> Vec<BString> {
    match reference {
        None => vec!["HEAD".into()],
        Some(GitReference::Branch(name)) => {
            vec![
                format!("refs/heads/{name}").into(),
                format!("refs/tags/{name}").into(),
            ]
        }
        Some(GitReference::Sha(_)) => Vec::new(),
    }
}

/// The object that the first of `names` that exists points to. An unborn branch points to none.
fn find(refs: &[Ref], names: &[BString]) -> Option<ObjectId> {
    names.iter().find_map(|wanted| {
        refs.iter().find_map(|reference| {
            let (name, target, _peeled) = reference.unpack();
            if name == wanted {
                target.map(ToOwned::to_owned)
            } else {
                None
            }
        })
    })
}

/// The error for a reference that the host does not have.
pub(super) fn not_found(session: &Session, reference: Option<&GitReference>) -> FetchError {
    let repository = session.repository.clone();
    match reference {
        None => FetchError::RepositoryEmpty { repository },
        Some(GitReference::Branch(name)) => FetchError::ReferenceNotFound {
            repository,
            reference: format!("branch or tag '{name}'"),
        },
        Some(GitReference::Sha(sha)) => FetchError::ReferenceNotFound {
            repository,
            reference: format!("commit {sha}"),
        },
    }
}

/// Asks for one object; the answer is its pack at once.
struct Request {
    tip: ObjectId,
    filter: String,
    filtered: bool,
}

impl Negotiate for Request {
    fn mark_complete_and_common_ref(&mut self) -> gix::Result<negotiate::Action> {
        Ok(negotiate::Action::MustNegotiate {
            remote_ref_target_known: vec![false],
        })
    }

    fn add_wants(&mut self, arguments: &mut Arguments, _remote_ref_target_known: &[bool]) -> bool {
        arguments.want(self.tip);
        self.filtered = arguments.can_use_filter();
        if self.filtered {
            arguments.filter(&self.filter);
        }
        true
    }

    fn one_round(
        &mut self,
        _state: &mut negotiate::one_round::State,
        _arguments: &mut Arguments,
        _previous_response: Option<&Response>,
    ) -> gix::Result<(negotiate::Round, bool)> {
        let round = negotiate::Round {
            haves_sent: 0,
            in_vain: 0,
            haves_to_send: 0,
            previous_response_had_at_least_one_in_common: false,
        };
        Ok((round, true))
    }
}

/// Writes the pack and its index, once its header shows an acceptable number of objects.
fn write_pack(
    session: &Session,
    pack: &mut dyn BufRead,
    directory: &Path,
    progress: &mut dyn gix::DynNestedProgress,
    stop: &AtomicBool,
) -> gix::Result<()> {
    let mut header = [0; PACK_HEADER_BYTES];
    pack.read_exact(&mut header).map_err(gix::Error::from_error)?;
    let [.., a, b, c, d] = header;
    let objects = u32::from_be_bytes([a, b, c, d]);
    if objects > MAX_OBJECTS {
        let limit = format!("its commit has {objects} objects, this server takes {MAX_OBJECTS}");
        return Err(gix::Error::from_error(session.fail(session.too_large(limit))));
    }
    Bundle::write_to_directory(
        &mut header.as_slice().chain(pack),
        Some(directory),
        progress,
        stop,
        None::<gix::odb::Handle>,
        gix::hash::Kind::Sha1,
        bundle::write::Options {
            alloc_limit_bytes: Some(MAX_OBJECT_BYTES),
            ..Default::default()
        },
    )?;
    Ok(())
}

/// What an error of gix means. A fault that a reader understood goes before what gix made of it.
fn fault_of(session: &Session, reference: Option<&GitReference>, error: gix::Error) -> FetchError {
    if let Some(fault) = session.take_fault() {
        return fault;
    }
    let host = &session.host;
    // `upload-pack.c`: "not our ref ID" since protocol 2, the other one before it. gix gives no more than
    // the text, in one error or another.
    let says = |text: &str| error.iter_errors().any(|cause| cause.to_string().contains(text));
    if says("not our ref") || says("unadvertised object") {
        return not_found(session, reference);
    }
    if let Some(RemoteError { message }) = error.downcast_any_ref() {
        let problem = format!("{host} reports {:?}", shortened(&message.to_string()));
        return session.network(problem, Some(error.into()));
    }
    if error.is_resource_exhausted() {
        return session.too_large(format!(
            "it holds an object of more than {MAX_OBJECT_BYTES} bytes"
        ));
    }
    if is_storage(&error) {
        return FetchError::Storage {
            action: "write to",
            source: error.into(),
        };
    }
    if error.is_unsupported() || error.is_validation() {
        return FetchError::UnexpectedAnswer {
            repository: session.repository.clone(),
            problem: format!("the answer of {host} is not one that this server can read"),
            source: Some(error.into()),
        };
    }
    // What is left is mostly an answer that was cut off, and the next one may be whole.
    session.network(
        format!("the answer of {host} ended early or is damaged"),
        Some(error.into()),
    )
}

/// Whether the disk failed rather than the host.
fn is_storage(error: &gix::Error) -> bool {
    error
        .iter_errors()
        .filter_map(|cause| cause.downcast_ref().map(io::Error::kind))
        .any(|kind| {
            matches!(
                kind,
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem
            )
        })
}

/// A remote text, fit for a message.
fn shortened(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(MAX_REMOTE_TEXT_CHARACTERS)
        .collect()
}
