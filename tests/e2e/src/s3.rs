//! An S3-compatible server that is not ours (`s3s-fs`), on loopback, with a runtime of its own so that it can be killed.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// Name of the bucket.
pub const BUCKET: &str = "links";
/// Access key id and secret.
pub const CREDENTIALS: (&str, &str) = ("key-id", "key-secret");

/// See the module.
pub struct S3 {
    runtime: Option<Runtime>,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl S3 {
    /// With an empty bucket.
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join(BUCKET))?;
        let files = FileSystem::new(folder.path()).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(CREDENTIALS.0, CREDENTIALS.1));
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("no runtime")?;
        runtime.spawn(serve(listener, builder.build()));
        Ok(Self {
            runtime: Some(runtime),
            address,
            folder,
        })
    }

    /// `http://HOST:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that it keeps, objects and parts of uploads, in octets.
    pub fn octets(&self) -> u64 {
        octets(self.folder.path().into())
    }

    /// At once, with its connections; its port refuses from then on.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            crate::end(runtime);
        }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn serve(listener: std::net::TcpListener, service: S3Service) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service.clone());
        tokio::spawn(connection);
    }
}

/// Octets of all files below a folder; what goes while it is looked at counts nothing.
fn octets(folder: PathBuf) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let each = entries.filter_map(|entry| {
        let about = entry.metadata().ok()?;
        Some(if about.is_dir() {
            octets(entry.path())
        } else {
            about.len()
        })
    });
    each.sum()
}
