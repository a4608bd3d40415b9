//! A next hop that does what a test tells it, on loopback.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What happens to the content, once its end (or, to drop in the middle, its first octets) came.
#[derive(Clone, Copy)]
pub(crate) enum OnContent {
    Reply(&'static str),
    DropInTheMiddle,
    NeverReply,
}

type OnRcpt = Box<dyn Fn(&str, usize) -> &'static str + Send + Sync>;

/// How the sink behaves.
pub(crate) struct Behaviour {
    pub(crate) pipelining: bool,
    pub(crate) lmtp: bool,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) greeting: &'static str,
    /// Address and how many RCPT there were before, over all connections.
    pub(crate) on_rcpt: OnRcpt,
    /// How many contents there were before. With LMTP also how many recipients of this message were answered.
    pub(crate) on_content: Box<dyn Fn(usize, usize) -> OnContent + Send + Sync>,
    pub(crate) close_after_message: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            pipelining: true,
            lmtp: false,
            tls: None,
            greeting: "220 sink.example.net",
            on_rcpt: Box::new(|_, _| "250 2.1.5 Ok"),
            on_content: Box::new(|_, _| OnContent::Reply("250 2.0.0 taken")),
            close_after_message: false,
        }
    }
}

/// A message that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) content: Vec<u8>,
    pub(crate) encrypted: bool,
}

#[derive(Default)]
pub(crate) struct Record {
    pub(crate) received: Mutex<Vec<Received>>,
    pub(crate) connections: AtomicUsize,
    open: AtomicUsize,
    /// Most connections at the same time.
    pub(crate) peak: AtomicUsize,
    pub(crate) quits: AtomicUsize,
    /// MAIL commands that came with RCPT behind them in one piece.
    pub(crate) pipelined: AtomicUsize,
    rcpts: AtomicUsize,
    contents: AtomicUsize,
}

pub(crate) struct Sink {
    pub(crate) port: u16,
    pub(crate) record: Arc<Record>,
    task: JoinHandle<()>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sink {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::start_on(listener, behaviour)
    }

    pub(crate) fn start_on(listener: TcpListener, behaviour: Behaviour) -> Self {
        let port = listener.local_addr().expect("bound").port();
        let record = Arc::new(Record::default());
        let (behaviour, of_task) = (Arc::new(behaviour), Arc::clone(&record));
        let task = tokio::spawn(async move {
            let mut sessions = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("an open socket");
                of_task.connections.fetch_add(1, Ordering::SeqCst);
                let (behaviour, record) = (Arc::clone(&behaviour), Arc::clone(&of_task));
                sessions.spawn(async move {
                    let open = record.open.fetch_add(1, Ordering::SeqCst) + 1;
                    record.peak.fetch_max(open, Ordering::SeqCst);
                    // The peer going away is part of many tests.
                    let _ = serve(Box::new(stream), &behaviour, &record).await;
                    record.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { port, record, task }
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.record.received.lock().expect("whole").clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.record.connections.load(Ordering::SeqCst)
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

struct Session<'a> {
    stream: BufReader<Box<dyn Stream>>,
    behaviour: &'a Behaviour,
    record: &'a Record,
    encrypted: bool,
    from: String,
    to: Vec<String>,
}

async fn serve(stream: Box<dyn Stream>, behaviour: &Behaviour, record: &Record) -> io::Result<()> {
    let mut session = Session {
        stream: BufReader::new(stream),
        behaviour,
        record,
        encrypted: false,
        from: String::new(),
        to: Vec::new(),
    };
    session.say(behaviour.greeting).await?;
    loop {
        let mut line = String::new();
        if session.stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let verb = line.get(..4).unwrap_or_default().to_owned();
        match verb.as_str() {
            "EHLO" | "LHLO" => session.hello(&verb).await?,
            "STAR" => session = session.encrypt().await?,
            "MAIL" => session.mail(&line).await?,
            "RCPT" => session.rcpt(&line).await?,
            "DATA" if session.to.is_empty() => session.say("503 5.5.1 need RCPT").await?,
            "DATA" => {
                if !session.data().await? || behaviour.close_after_message {
                    return Ok(());
                }
            }
            "RSET" => session.say("250 Ok").await?,
            "QUIT" => {
                record.quits.fetch_add(1, Ordering::SeqCst);
                return session.say("221 bye").await;
            }
            other => panic!("the relay sent {other}"),
        }
    }
}

impl Session<'_> {
    async fn say(&mut self, line: &str) -> io::Result<()> {
        self.stream
            .write_all(format!("{line}\r\n").as_bytes())
            .await?;
        self.stream.flush().await
    }

    async fn hello(&mut self, verb: &str) -> io::Result<()> {
        assert_eq!(verb == "LHLO", self.behaviour.lmtp);
        let pipelining = if self.behaviour.pipelining {
            "250-PIPELINING\r\n"
        } else {
            ""
        };
        let starttls = match &self.behaviour.tls {
            Some(_) if !self.encrypted => "250-STARTTLS\r\n",
            _ => "",
        };
        self.say(&format!(
            "250-sink.example.net\r\n{pipelining}{starttls}250 SIZE"
        ))
        .await
    }

    async fn encrypt(mut self) -> io::Result<Self> {
        self.say("220 go").await?;
        let acceptor = self.behaviour.tls.clone().expect("it was offered");
        let encrypted = acceptor.accept(self.stream.into_inner()).await?;
        self.stream = BufReader::new(Box::new(encrypted));
        self.encrypted = true;
        Ok(self)
    }

    async fn mail(&mut self, line: &str) -> io::Result<()> {
        if self.stream.buffer().starts_with(b"RCPT") {
            self.record.pipelined.fetch_add(1, Ordering::SeqCst);
        }
        self.from = path(line);
        self.to.clear();
        self.say("250 2.1.0 Ok").await
    }

    async fn rcpt(&mut self, line: &str) -> io::Result<()> {
        let count = self.record.rcpts.fetch_add(1, Ordering::SeqCst);
        let address = path(line);
        let reply = (self.behaviour.on_rcpt)(&address, count);
        if reply.starts_with('2') {
            self.to.push(address);
        }
        self.say(reply).await
    }

    /// False: the connection is to be dropped.
    async fn data(&mut self) -> io::Result<bool> {
        let count = self.record.contents.fetch_add(1, Ordering::SeqCst);
        self.say("354 go ahead").await?;
        if matches!(
            (self.behaviour.on_content)(count, 0),
            OnContent::DropInTheMiddle
        ) {
            self.stream.read_u8().await?;
            return Ok(false);
        }
        let content = self.content().await?;
        let to = std::mem::take(&mut self.to);
        let answers = if self.behaviour.lmtp { to.len() } else { 1 };
        let mut taken = Vec::new();
        for answered in 0..answers {
            match (self.behaviour.on_content)(count, answered) {
                OnContent::Reply(reply) => {
                    if reply.starts_with('2') {
                        taken.extend(to.get(answered).cloned());
                    }
                    self.record_before(reply, &to, &taken, answered + 1 == answers, &content);
                    self.say(reply).await?;
                }
                OnContent::NeverReply => std::future::pending().await,
                OnContent::DropInTheMiddle => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Before the reply: the relay may act on it at once.
    fn record_before(
        &self,
        reply: &str,
        to: &[String],
        taken: &[String],
        last: bool,
        content: &[u8],
    ) {
        let to = if self.behaviour.lmtp { taken } else { to };
        let accepted = self.behaviour.lmtp || reply.starts_with('2');
        if last && accepted && !to.is_empty() {
            self.record.received.lock().expect("whole").push(Received {
                from: self.from.clone(),
                to: to.to_vec(),
                content: content.to_vec(),
                encrypted: self.encrypted,
            });
        }
    }

    async fn content(&mut self) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        loop {
            let start = content.len();
            if self.stream.read_until(b'\n', &mut content).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match &content[start..] {
                b".\r\n" => {
                    content.truncate(start);
                    return Ok(content);
                }
                [b'.', ..] => {
                    content.remove(start);
                }
                _ => {}
            }
        }
    }
}

fn path(line: &str) -> String {
    let from = line.find('<').expect("a path") + 1;
    let to = line.find('>').expect("a path");
    line[from..to].to_owned()
}
