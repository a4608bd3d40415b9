//! Where the API listens.

use std::convert::Infallible;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Api, Guard};
use crate::StoreError;

/// Most connections served at once; more wait in the listen queue.
const CONNECTIONS_MAX: usize = 32;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection, with the longest download, lasts no longer.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(10);
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Listens on a Unix socket that only its owner can connect to. What an earlier process left at `path` is replaced.
pub fn unix_socket(path: &Path) -> Result<UnixListener, StoreError> {
    // Bound where nobody else can look, and moved when its mode is right.
    let folder = private_folder(path);
    let bind = || -> io::Result<UnixListener> {
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir(&folder)?;
        std::fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        let inside = folder.join("s");
        let listener = UnixListener::bind(&inside)?;
        std::fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
        std::fs::rename(&inside, path)?;
        std::fs::remove_dir(&folder)?;
        Ok(listener)
    };
    bind().map_err(StoreError::file(path))
}

fn private_folder(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// Serves until dropped.
pub async fn serve_unix(listener: UnixListener, api: Api) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Some(slot) = slot(&slots).await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                spawn(stream, api.clone(), Guard::Socket(uid), slot);
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// Serves until dropped; each request must know the token in `token_file`.
pub async fn serve_tcp(listener: TcpListener, api: Api, token_file: PathBuf) {
    let token_file = Arc::new(token_file);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Some(slot) = slot(&slots).await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let guard = Guard::Token(Arc::clone(&token_file));
                spawn(stream, api.clone(), guard, slot);
            }
            Err(error) => pause(&error).await,
        }
    }
}

async fn slot(slots: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(slots).acquire_owned().await.ok()
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "quarantine connection not accepted");
    tokio::time::sleep(ACCEPT_RETRY).await;
}

fn spawn<S>(stream: S, api: Api, guard: Guard, slot: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        let service = service_fn(move |request: Request<Incoming>| {
            let (api, guard) = (api.clone(), guard.clone());
            async move { Ok::<_, Infallible>(api.respond(request, guard).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "quarantine connection ended"),
            Err(_) => tracing::debug!("quarantine connection took too long"),
        }
        drop(slot);
    });
}
