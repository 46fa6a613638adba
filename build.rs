//! Compiles the protobuf contract with a compiler written in Rust, so that no `protoc` is needed, and
//! unpacks Swagger UI from the crate that carries its release, so that nothing is downloaded.

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::{self, Cursor},
    path::{Path, PathBuf},
};

use prost::Message;
use prost_types::FileDescriptorSet;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

const PROTOS: [&str; 12] = [
    "chromasync/v1/credential.proto",
    "chromasync/v1/credential_service.proto",
    "chromasync/v1/embedding.proto",
    "chromasync/v1/embedding_service.proto",
    "chromasync/v1/file_service.proto",
    "chromasync/v1/search.proto",
    "chromasync/v1/search_service.proto",
    "chromasync/v1/source.proto",
    "chromasync/v1/source_service.proto",
    "chromasync/v1/invocation.proto",
    "chromasync/v1/invocation_service.proto",
    "chromasync/v1/webhook.proto",
];

/// How messages become bytes.
const CODEC: &str = "crate::codec::SmallBufferCodec";

/// What watches answer.
const WATCH_ANSWERS: [&str; 2] = ["WatchInvocationResponse", "WatchInvocationsResponse"];

/// What `GET /docs` serves of Swagger UI.
const SWAGGER_UI_FILES: [&str; 2] = ["swagger-ui.css", "swagger-ui-bundle.js"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .codec_path(CODEC)
        .build_server(false)
        // They hold secrets; see src/proto.rs.
        .skip_debug([
            "chromasync.v1.Webhook",
            "chromasync.v1.AwsAccessKey",
            "chromasync.v1.CreateAwsCredentialRequest",
            "chromasync.v1.CreateGithubAppRequest",
        ])
        .compile_fds(descriptors.clone())?;
    generate_servers(descriptors, &out.join("servers"))?;
    unpack_swagger_ui(&out)
}

/// Writes the services' servers into `out`. They answer with the messages of `crate::proto`, but watches with
/// ones that streams share.
fn generate_servers(descriptors: FileDescriptorSet, out: &Path) -> io::Result<()> {
    fs::create_dir_all(out)?;
    let builder = tonic_prost_build::configure()
        .codec_path(CODEC)
        .build_client(false)
        .out_dir(out)
        .extern_path(".chromasync.v1", "crate::proto");
    WATCH_ANSWERS
        .into_iter()
        .fold(builder, |builder, answer| {
            builder.extern_path(
                format!(".chromasync.v1.{answer}"),
                format!("crate::proto::Shared{answer}"),
            )
        })
        .compile_fds(descriptors)
}

/// Writes the files into `out`; in the archive they lie in `swagger-ui-{version}/dist/`.
fn unpack_swagger_ui(out: &Path) -> Result<(), Box<dyn Error>> {
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    for file in SWAGGER_UI_FILES {
        let wanted = format!("/dist/{file}");
        let names: Vec<String> = archive
            .file_names()
            .map(|name| name.map(Into::into))
            .collect::<Result<_, _>>()?;
        let name = names.iter().find(|name| name.ends_with(&wanted));
        let name = name.ok_or_else(|| format!("Swagger UI has no {file}"))?;
        io::copy(&mut archive.by_name(name)?, &mut File::create(out.join(file))?)?;
    }
    Ok(())
}
