//! [`ServiceClient`]: one callout from request to answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opes_content::ContentError;
use opes_proto::smtp::{self, MessageStart, Part, ProfileSelection};
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use crate::answer::answer;
use crate::ask::{Ask, Data, Link, Lost, Open, OriginalEnd, Raw};
use crate::config::ServiceClientConfig;
use crate::connection::Handle;
use crate::error::CalloutError;
use crate::extent::{Extent, Fragment};
use crate::naming::Naming;
use crate::own::{Held, LINE_OCTETS_MAX, Own};
use crate::pool::Pool;
use crate::request::{Answer, Request};
use crate::sender::Sender;

/// Connections tried for one transaction: a service that drains refuses before it begins, and all connections are drained
/// at once when certificates are replaced.
const ATTEMPTS_MAX: usize = 4;

/// One callout service. Clones share connections.
#[derive(Debug, Clone)]
pub struct ServiceClient {
    pool: Arc<Pool>,
    naming: Arc<Naming>,
    idempotent: bool,
    inserted_octets_max: u64,
}

impl ServiceClient {
    /// Connects to nothing yet.
    pub fn new(config: ServiceClientConfig) -> Self {
        let (service, target) = (config.name.clone(), config.target.clone());
        let naming = Arc::new(Naming { service, target });
        let (idempotent, inserted_octets_max) = (config.idempotent, config.inserted_octets_max);
        Self {
            pool: Arc::new(Pool::new(config, Arc::clone(&naming))),
            naming,
            idempotent,
            inserted_octets_max,
        }
    }

    /// What the service asked for when the connection was negotiated; connects if need be.
    pub async fn wants(&self) -> Result<ProfileSelection, CalloutError> {
        Ok(self.pool.any().await?.negotiated.selection.clone())
    }

    /// One transaction. Dropping the future ends it (TE 400), and the handler of the service with it.
    ///
    /// The time limit covers connecting, waiting for a place and the service's work; time in which the mail client keeps
    /// a growing content waiting is not the service's and does not count.
    pub async fn run(&self, request: Request) -> Result<Answer, CalloutError> {
        let clock = Clock {
            started: Instant::now(),
            timeout: request.timeout,
        };
        let mut refusal = None;
        let mut begun = false;
        for _ in 0..ATTEMPTS_MAX {
            let place = tokio::time::timeout_at(clock.deadline(Duration::ZERO), self.pool.place());
            let (handle, permit) = place
                .await
                .map_err(|_| self.naming.timeout(clock.timeout))??;
            match self.exchange(&handle, permit, &request, &clock).await {
                Ok((raw, held)) => {
                    let negotiated = &handle.negotiated;
                    let answer = answer(raw, held, &request, negotiated, &self.naming).await?;
                    return Ok(clock.stamp(answer));
                }
                Err(Lost::NotTaken(error)) => refusal = Some(error),
                Err(Lost::Failed(error)) if !begun && self.may_repeat(&error) => {
                    begun = true;
                    refusal = Some(error);
                }
                Err(Lost::Failed(error)) => return Err(error),
            }
        }
        Err(refusal.unwrap_or_else(|| self.naming.unavailable("it takes no transactions")))
    }

    fn may_repeat(&self, error: &CalloutError) -> bool {
        self.idempotent && matches!(error, CalloutError::Unavailable { .. })
    }

    async fn exchange(
        &self,
        handle: &Handle,
        permit: OwnedSemaphorePermit,
        request: &Request,
        clock: &Clock,
    ) -> Result<(Raw, Held), Lost> {
        let link = Arc::new(Link::new(handle.negotiated.selection.initial_credit));
        let extent = extent(handle, request);
        let mut sender = request
            .mail_data()
            .map(|view| Sender::new(view, extent, Arc::clone(&link)));
        let data = match &mut sender {
            Some(sender) => sender.first(&self.naming).await.map_err(Lost::Failed)?,
            None => other_data(request),
        };
        let (reply, answer) = oneshot::channel();
        let (own, held) = Own::of(request);
        let open = Open {
            group: Arc::clone(&request.group),
            budget_ms: budget_ms(request, clock),
            traceparent: request.traceparent.clone(),
            am_el: am_el(request),
            profile: start_profile(handle, request, extent),
            data,
            link: Arc::clone(&link),
            own,
            own_octets_max: self.own_octets_max(request),
            reply,
            permit,
        };
        if handle.ask(Ask::Open(Box::new(open))).is_err() {
            return Err(Lost::NotTaken(
                self.naming.unavailable("the connection was lost"),
            ));
        }
        let running = Running {
            link: Some(link),
            asks: handle.asks(),
        };
        self.wait(answer, sender, held, running, clock).await
    }

    fn own_octets_max(&self, request: &Request) -> u64 {
        match request.mail_data() {
            Some(_) => self.inserted_octets_max,
            None => self.inserted_octets_max.min(LINE_OCTETS_MAX),
        }
    }

    /// Feeds the original, holds what the service brings, and waits for the answer, whichever ends first.
    async fn wait(
        &self,
        mut answer: oneshot::Receiver<Result<Raw, Lost>>,
        mut sender: Option<Sender<'_>>,
        mut own: Own,
        mut running: Running,
        clock: &Clock,
    ) -> Result<(Raw, Held), Lost> {
        let over = tokio::time::sleep_until(clock.deadline(Duration::ZERO));
        tokio::pin!(over);
        loop {
            let sending = sender.as_ref().is_some_and(|sender| !sender.is_done());
            tokio::select! {
                biased;
                reply = &mut answer => {
                    running.link = None;
                    let lost = || Lost::Failed(self.naming.unavailable("the connection was lost"));
                    let raw = reply.unwrap_or_else(|_| Err(lost()))?;
                    let held = own.finish().await;
                    return Ok((raw, held.map_err(|error| self.not_held(&error))?));
                }
                octets = own.next() => {
                    let held = own.hold(octets).await;
                    if let Some(octets) = held.map_err(|error| self.not_held(&error))? {
                        running.held(octets);
                    }
                }
                data = next(sender.as_mut(), &self.naming), if sending => {
                    running.send(data.map_err(Lost::Failed)?);
                }
                () = &mut over => {
                    let waited = sender.as_ref().map_or(Duration::ZERO, Sender::waited);
                    let deadline = clock.deadline(waited);
                    if Instant::now() >= deadline {
                        return Err(Lost::Failed(self.naming.timeout(clock.timeout)));
                    }
                    over.as_mut().reset(deadline);
                }
            }
        }
    }
}

impl ServiceClient {
    fn not_held(&self, error: &ContentError) -> Lost {
        Lost::Failed(self.naming.content(error.to_string()))
    }
}

async fn next(sender: Option<&mut Sender<'_>>, naming: &Naming) -> Result<Data, CalloutError> {
    match sender {
        Some(sender) => sender.next(naming).await,
        None => std::future::pending().await,
    }
}

/// Time limit of one callout.
struct Clock {
    started: Instant,
    timeout: Duration,
}

impl Clock {
    fn stamp(&self, mut answer: Answer) -> Answer {
        answer.elapsed = self.started.elapsed();
        answer
    }

    fn deadline(&self, waited: Duration) -> Instant {
        self.started + self.timeout + waited
    }
}

/// Ends the transaction when the caller goes away.
struct Running {
    link: Option<Arc<Link>>,
    asks: mpsc::UnboundedSender<Ask>,
}

impl Running {
    fn send(&self, data: Data) {
        if let Some(link) = &self.link {
            // If the connection is gone, the answer says so.
            let _gone = self.asks.send(Ask::Data {
                link: Arc::clone(link),
                data,
            });
        }
    }
}

impl Running {
    fn held(&self, octets: u64) {
        if let Some(link) = &self.link {
            let _gone = self.asks.send(Ask::Held {
                link: Arc::clone(link),
                octets,
            });
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            let _gone = self.asks.send(Ask::Cancel { link });
        }
    }
}

fn extent(handle: &Handle, request: &Request) -> Extent {
    match request.mail_data() {
        Some(_) => Extent::least(request.content_want, handle.negotiated.content),
        None => Extent::NONE,
    }
}

/// A command line, or mail data that is not at hand.
fn other_data(request: &Request) -> Data {
    if request.is_message() {
        return Data {
            fragments: Vec::new(),
            end: Some(OriginalEnd::Partial),
        };
    }
    let line = request.command_line.clone().filter(|line| !line.is_empty());
    let fragments = line.map(|octets| Fragment {
        part: Part::Command,
        octets,
    });
    Data {
        fragments: fragments.into_iter().collect(),
        end: Some(OriginalEnd::Whole),
    }
}

/// Exact, or absent.
fn am_el(request: &Request) -> Option<u64> {
    match (request.mail_data(), request.is_message()) {
        (Some(view), _) => view.len(),
        (None, true) => None,
        (None, false) => Some(
            request
                .command_line
                .as_ref()
                .map_or(0, |line| line.len() as u64),
        ),
    }
}

/// A growing content may take as long as the mail client wants, so there is no budget to state then.
fn budget_ms(request: &Request, clock: &Clock) -> u32 {
    if request.mail_data().is_some_and(|view| view.len().is_none()) {
        return 0;
    }
    let left = clock.timeout.saturating_sub(clock.started.elapsed());
    u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1)
}

fn start_profile(handle: &Handle, request: &Request, extent: Extent) -> Bytes {
    let (filter, content) = if request.is_message() {
        (&handle.negotiated.message, extent.announced())
    } else {
        (&handle.negotiated.command, smtp::ContentWant::Unspecified)
    };
    let start = MessageStart {
        point: request.point.into(),
        context: Some(filter.apply(&request.context)),
        content: content.into(),
    };
    start.encode_to_vec().into()
}
