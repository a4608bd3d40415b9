//! A registry of the test's own on loopback, and skopeo to speak with it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::bed::{Bed, output, tool};

/// See the module.
pub(crate) struct Registry {
    process: Child,
    /// `HOST:PORT`.
    address: String,
}

// === impl Registry ===

impl Registry {
    pub(crate) fn start(bed: &Bed) -> Result<Self> {
        let config = json!({
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": bed.path("registry")}},
            "http": {"addr": "127.0.0.1:0"},
        });
        let path = bed.path("registry.yml");
        std::fs::write(&path, config.to_string())?;
        // It ends by itself, too, should this process be killed.
        let mut process = tool("docker-registry")
            .arg("serve")
            .arg(path)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let log = process.stderr.take().context("no log")?;
        let mut lines = BufReader::new(log).lines().map_while(Result::ok);
        let ready = lines.find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            rest.split('"').next().map(str::to_owned)
        });
        // Nobody else reads it.
        std::thread::spawn(move || lines.for_each(drop));
        let mut registry = Self {
            process,
            address: String::new(),
        };
        registry.address = ready.context("the registry does not start")?;
        Ok(registry)
    }

    /// `HOST:PORT/NAME`.
    pub(crate) fn repository(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // `timeout` passes the signal on only if it can be caught.
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").arg(pid).status();
        let _ = self.process.wait();
    }
}

/// An archive with all platforms.
pub(crate) fn push_all(archive: &Path, to: &str) -> Result<()> {
    let from = format!("oci-archive:{}", archive.display());
    let mut copy = tool("skopeo");
    copy.args(["--insecure-policy", "copy", "--all", "--preserve-digests"]);
    copy.arg("--dest-tls-verify=false").arg(from);
    output(copy.arg(format!("docker://{to}")))?;
    Ok(())
}

/// One manifest.
pub(crate) fn push(from: &str, to: &str) -> Result<()> {
    let mut copy = tool("skopeo");
    copy.args(["--insecure-policy", "copy", "--preserve-digests"]);
    copy.arg("--dest-tls-verify=false").arg(from);
    output(copy.arg(format!("docker://{to}")))?;
    Ok(())
}

/// As the registry says it.
pub(crate) fn digest(name: &str) -> Result<String> {
    let mut inspect = tool("skopeo");
    inspect.args(["inspect", "--tls-verify=false", "--format={{.Digest}}"]);
    let printed = output(inspect.arg(format!("docker://{name}")))?;
    Ok(String::from_utf8(printed)?.trim().to_owned())
}

/// Into a folder, for a platform if there are several.
pub(crate) fn pull(name: &str, architecture: &str, to: &Path) -> Result<()> {
    let mut copy = tool("skopeo");
    copy.args(["--override-os=linux", "--override-arch", architecture]);
    copy.args(["--insecure-policy", "copy", "--src-tls-verify=false"]);
    copy.arg(format!("docker://{name}"));
    output(copy.arg(format!("dir:{}", to.display())))?;
    Ok(())
}
