//! Where and how a service listens, as arguments of its program.
//!
//! Mail leaves a machine in the clear only if somebody says so: TCP is on loopback, or under mutual TLS, or
//! `--insecure-plaintext` is given. A Unix socket is protected by its file mode.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use opes_tls::{MutualFiles, ServerTls};

use crate::Listener;

/// Where a service listens if it is not told: loopback, port named after RFC 4037.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:4037";

/// Mode of a socket file if it is not told: its owner only.
const SOCKET_MODE_DEFAULT: &str = "0600";

/// Arguments of every service program; `#[command(flatten)]` takes them in.
#[derive(Debug, Clone, clap::Args)]
pub struct ListenOptions {
    /// Where processors reach this service: HOST:PORT or unix:PATH.
    #[arg(long, value_name = "ADDRESS", default_value = LISTEN_DEFAULT)]
    pub listen: String,
    /// Our certificate chain in PEM, leaf first; needed on addresses other than loopback. Read again when it changes.
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_client_ca"])]
    pub tls_certificate: Option<PathBuf>,
    /// Its key in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Authorities in PEM: edges with a certificate signed by one of them may call, nobody else.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_client_ca: Option<PathBuf>,
    /// Serve in the clear on any address: everybody on the way can read and change the mail.
    #[arg(long, conflicts_with = "tls_certificate")]
    pub insecure_plaintext: bool,
    /// File mode of a Unix socket, octal; who may write to it may call.
    #[arg(long, value_name = "MODE", default_value = SOCKET_MODE_DEFAULT, value_parser = parse_mode)]
    pub socket_mode: u32,
}

// === impl ListenOptions ===

impl ListenOptions {
    /// In the clear, on loopback or a Unix socket.
    pub fn new(listen: impl Into<String>) -> Self {
        Self {
            listen: listen.into(),
            tls_certificate: None,
            tls_key: None,
            tls_client_ca: None,
            insecure_plaintext: false,
            socket_mode: 0o600,
        }
    }

    /// Binds. The error names the address or the file, and the remedy.
    pub async fn bind(&self) -> anyhow::Result<Listener> {
        let tls = self.tls()?;
        if let Some(path) = self.listen.strip_prefix("unix:") {
            ensure!(
                tls.is_none(),
                "{} is a Unix socket, which has no TLS\n  help: leave out --tls-certificate, --tls-key and --tls-client-ca; --socket-mode says who may call",
                self.listen
            );
            return Listener::bind_unix(Path::new(path), self.socket_mode).await;
        }
        match tls {
            Some(tls) => Listener::bind_tls(&self.listen, tls).await,
            None if self.insecure_plaintext => Listener::bind_insecure(&self.listen).await,
            None => Listener::bind(&self.listen).await,
        }
    }

    fn tls(&self) -> anyhow::Result<Option<ServerTls>> {
        let files = [&self.tls_certificate, &self.tls_key, &self.tls_client_ca];
        let [Some(certificate), Some(key), Some(ca)] = files.map(Option::as_ref) else {
            ensure!(
                files.iter().all(|file| file.is_none()),
                "--tls-certificate, --tls-key and --tls-client-ca are given all or not at all"
            );
            return Ok(None);
        };
        let [certificate, key, ca] = [certificate, key, ca].map(PathBuf::clone);
        let files = MutualFiles {
            certificate,
            key,
            ca,
        };
        Ok(Some(ServerTls::server(files)?))
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "write an octal file mode such as 0600 or 0660".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        listen: ListenOptions,
    }

    fn parse(arguments: &[&str]) -> Result<ListenOptions, String> {
        let all = ["service"].iter().chain(arguments);
        let parsed = Arguments::try_parse_from(all);
        parsed.map(|a| a.listen).map_err(|error| error.to_string())
    }

    async fn error(options: &ListenOptions) -> String {
        format!("{:#}", options.bind().await.unwrap_err())
    }

    #[test]
    fn defaults_and_both_spellings() {
        assert_eq!(parse(&[]).unwrap().listen, LISTEN_DEFAULT);
        assert_eq!(parse(&[]).unwrap().socket_mode, 0o600);
        let options = parse(&["--listen=unix:/run/a", "--socket-mode", "660"]).unwrap();
        assert_eq!(
            (options.listen.as_str(), options.socket_mode),
            ("unix:/run/a", 0o660)
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (arguments, named) in [
            (&["--port", "1"][..], "--port"),
            (&["--tls-certificate", "a"], "--tls-client-ca"),
            (&["--tls-key", "a"], "--tls-certificate"),
            (&["--socket-mode", "rw"], "octal"),
            (&["--socket-mode", "10000"], "octal"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(named), "{arguments:?}: {error}");
        }
    }

    #[tokio::test]
    async fn plaintext_beyond_loopback_only_when_told() {
        let open = ListenOptions::new("0.0.0.0:0");
        let refusal = error(&open).await;
        assert!(
            refusal.contains("in the clear") && refusal.contains("--insecure-plaintext"),
            "{refusal}"
        );
        let told = ListenOptions {
            insecure_plaintext: true,
            ..open
        };
        told.bind().await.unwrap();
        ListenOptions::new("127.0.0.1:0").bind().await.unwrap();
        ListenOptions::new("[::1]:0").bind().await.unwrap();
    }

    #[tokio::test]
    async fn the_socket_has_the_mode_asked_for_and_no_tls() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        for mode in [0o600, 0o666] {
            let options = ListenOptions {
                socket_mode: mode,
                ..ListenOptions::new(format!("unix:{}", path.display()))
            };
            let _listener = options.bind().await.unwrap();
            let found = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode);
        }
        let file = Some(PathBuf::from("missing.pem"));
        let options = ListenOptions {
            tls_certificate: file.clone(),
            tls_key: file.clone(),
            tls_client_ca: file,
            ..ListenOptions::new("127.0.0.1:0")
        };
        assert!(error(&options).await.starts_with("missing.pem: "));
    }
}
