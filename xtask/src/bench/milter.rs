//! A milter that looks at everything and changes nothing: the cheapest filter that Postfix can have. Runs in a process of its own.

use std::io::{BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Largest packet that is taken (the protocol's chunks are 65,535 octets).
const PACKET_OCTETS_MAX: u32 = 1 << 20;

/// Serves on a Unix socket until killed.
pub(crate) fn serve(path: &Path) -> Result<()> {
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    println!("ready");
    for stream in listener.incoming() {
        let stream = stream?;
        // Postfix closes the connection when its client has left.
        std::thread::spawn(move || session(stream));
    }
    Ok(())
}

fn session(stream: UnixStream) -> Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(128 << 10, stream);
    let mut body = Vec::new();
    loop {
        let mut length = [0; 4];
        reader.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        ensure!(
            (1..=PACKET_OCTETS_MAX).contains(&length),
            "packet of {length} octets"
        );
        body.resize(length as usize, 0);
        reader.read_exact(&mut body)?;
        match body.first() {
            // Options: the version that was offered, no actions, every event wanted and answered.
            Some(b'O') => {
                let version = body.get(1..5).context("short option packet")?;
                let mut reply = vec![0, 0, 0, 13, b'O'];
                reply.extend_from_slice(version);
                reply.extend_from_slice(&[0; 8]);
                writer.write_all(&reply)?;
            }
            // Macros and aborts have no reply.
            Some(b'D' | b'A') => {}
            Some(b'Q') => return Ok(()),
            _ => writer.write_all(&[0, 0, 0, 1, b'c'])?,
        }
    }
}
