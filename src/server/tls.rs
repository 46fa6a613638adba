//! TLS for the one port, with HTTP/2 and HTTP/1.1 by ALPN.
//!
//! The transport's own TLS offers HTTP/2 alone, which would lock REST callers out, so connections are
//! accepted here. A handshake has a time limit, and one that is slow or fails holds up no other.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
    server::TlsStream,
};

use super::connections::Connection;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way at once; more connections wait in the kernel.
const MAX_HANDSHAKES: usize = 256;

/// Why the certificate or the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read as PEM.
    #[error("{path} cannot be read as PEM (server.tls_certificate, server.tls_key)")]
    Pem {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// The file has no certificate.
    #[error("{path} has no certificate (server.tls_certificate)")]
    NoCertificate {
        /// Its path.
        path: PathBuf,
    },
    /// The two do not belong together, or are of a kind that is not supported.
    #[error("the certificate and the key cannot be used (server.tls_certificate, server.tls_key)")]
    Refused(#[from] rustls::Error),
}

/// Reads a certificate chain and its key, both PEM.
///
/// # Errors
/// See [`TlsError`].
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable(certificate))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate {
            path: certificate.to_owned(),
        });
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
    // More than one provider is compiled in, so it is named.
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The connections after their handshakes.
pub(super) fn incoming(
    connections: impl Stream<Item = io::Result<Connection>>,
    acceptor: TlsAcceptor,
) -> impl Stream<Item = io::Result<TlsStream<Connection>>> {
    connections
        .map(move |connection| handshake(connection, acceptor.clone()))
        .buffer_unordered(MAX_HANDSHAKES)
        // What never became a connection concerns nobody but the log.
        .filter_map(|shaken| async {
            if let Err(error) = &shaken {
                tracing::debug!(%error, "a connection ended before its TLS handshake did");
            }
            shaken.ok().map(Ok)
        })
}

async fn handshake(
    connection: io::Result<Connection>,
    acceptor: TlsAcceptor,
) -> io::Result<TlsStream<Connection>> {
    let connection = connection?;
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(connection)).await {
        Ok(shaken) => shaken,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
