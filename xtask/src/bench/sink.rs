//! The next hop of the measurement: takes everything, counts, keeps nothing.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// How long deliveries may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// See the module.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    count: Mutex<(usize, Instant)>,
    grown: Condvar,
}

impl Sink {
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            count: Mutex::new((0, Instant::now())),
            grown: Condvar::new(),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A peer that closes its idle connection ends the thread.
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Ok(Self { address, state })
    }

    /// When the message that made the count complete arrived.
    pub(crate) fn wait_for(&self, count: usize) -> Result<Instant> {
        let guard = self
            .state
            .count
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .state
            .grown
            .wait_timeout_while(guard, PATIENCE, |(have, _)| *have < count);
        let (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        ensure!(
            guard.0 >= count,
            "{} of {count} messages delivered within {PATIENCE:?}",
            guard.0
        );
        ensure!(
            guard.0 == count,
            "{} messages delivered where {count} were sent",
            guard.0
        );
        Ok(guard.1)
    }
}

impl State {
    fn add(&self) {
        let mut guard = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *guard = (guard.0 + 1, Instant::now());
        self.grown.notify_all();
    }
}

fn serve(stream: TcpStream, state: &State) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    stream
        .get_mut()
        .write_all(b"220 sink.example.net ESMTP\r\n")?;
    let mut line = Vec::new();
    let mut replies: Vec<u8> = Vec::new();
    loop {
        if stream.buffer().is_empty() && !replies.is_empty() {
            stream.get_mut().write_all(&replies)?;
            replies.clear();
        }
        line.clear();
        if stream.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        match line.get(..4).map(<[u8]>::to_ascii_uppercase).as_deref() {
            Some(b"EHLO") => {
                replies.extend_from_slice(
                    b"250-sink.example.net\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 0\r\n",
                );
            }
            Some(b"DATA") => {
                replies.extend_from_slice(b"354 Go ahead\r\n");
                stream.get_mut().write_all(&replies)?;
                replies.clear();
                swallow(&mut stream, &mut line)?;
                state.add();
                replies.extend_from_slice(b"250 2.0.0 Ok\r\n");
            }
            Some(b"QUIT") => {
                stream.get_mut().write_all(b"221 2.0.0 Bye\r\n")?;
                return Ok(());
            }
            _ => replies.extend_from_slice(b"250 2.0.0 Ok\r\n"),
        }
    }
}

fn swallow(stream: &mut BufReader<TcpStream>, line: &mut Vec<u8>) -> Result<()> {
    loop {
        line.clear();
        ensure!(
            stream.read_until(b'\n', line)? > 0,
            "peer left in the middle of a message"
        );
        if line == b".\r\n" {
            return Ok(());
        }
    }
}
