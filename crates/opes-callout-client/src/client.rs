//! [`ServiceClient`]: one callout from request to answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opes_content::ContentError;
use opes_proto::smtp::{self, MessageStart, Part, ProfileSelection};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::answer::answer;
use crate::ask::{Ask, Data, Link, Lost, Open, OriginalEnd, Raw};
use crate::balance::{Ended, Snapshot};
use crate::config::ServiceClientConfig;
use crate::connection::Handle;
use crate::error::CalloutError;
use crate::extent::{Extent, Fragment};
use crate::naming::Naming;
use crate::own::{Held, LINE_OCTETS_MAX, Own};
use crate::pool::{Place, Pool};
use crate::request::{Answer, Request};
use crate::sender::Sender;

/// Times that a transaction is begun at most, the repeats included. A service that drains refuses before it begins; only
/// an idempotent one may really see a message again. Few, because a message that crashes a service must not take the whole
/// pool down.
const ATTEMPTS_MAX: usize = 3;
/// Before the last of them. Endpoints often die together, with their node or in a rollout: by then all of their connections
/// are known to be lost, and the last attempt is not spent on one of them.
const LAST_ATTEMPT_AFTER: Duration = Duration::from_millis(250);

/// One callout service. Clones share its endpoints and connections.
#[derive(Debug, Clone)]
pub struct ServiceClient {
    pool: Arc<Pool>,
    idempotent: bool,
    inserted_octets_max: u64,
}

impl ServiceClient {
    /// Connects to nothing yet.
    pub fn new(config: ServiceClientConfig) -> Self {
        let (idempotent, inserted_octets_max) = (config.idempotent, config.inserted_octets_max);
        Self {
            pool: Pool::new(config),
            idempotent,
            inserted_octets_max,
        }
    }

    /// Replaces the endpoints, which are written as in [`ServiceClientConfig::endpoints`]. Those that are not named any more
    /// get no new transactions and are let go when the running ones have ended; new ones are connected at once if the
    /// service is in use.
    pub fn set_endpoints(&self, endpoints: &[String]) {
        self.pool.set_endpoints(endpoints, None);
    }

    /// The same for instances that whoever found them knows by `name`: their certificates must be for it, unless
    /// [`ServiceClientConfig::server_name`] says otherwise. Another name makes them other endpoints.
    pub fn set_instances(&self, endpoints: &[String], name: Option<&str>) {
        self.pool.set_endpoints(endpoints, name);
    }

    /// Endpoints, breaker and counters of this moment.
    pub fn snapshot(&self) -> Snapshot {
        self.pool.snapshot()
    }

    /// What the service asked for when the connection was negotiated; connects if need be.
    pub async fn wants(&self) -> Result<ProfileSelection, CalloutError> {
        Ok(self.pool.any().await?.negotiated.selection.clone())
    }

    /// One transaction. Dropping the future ends it (TE 400), and the handler of the service with it.
    ///
    /// The time limit covers connecting, waiting for a place, the service's work and repeats; time in which the mail client
    /// keeps a growing content waiting is not the service's and does not count.
    pub async fn run(&self, request: Request) -> Result<Answer, CalloutError> {
        let mut clock = Clock::new(request.timeout);
        let mut attempt = self.pool.attempt();
        loop {
            let place = self.pool.place(&attempt);
            let place = tokio::time::timeout_at(clock.deadline(), place).await;
            let (handle, place) =
                place.map_err(|_| self.pool.naming().timeout(request.timeout))??;
            let ticket = place.ticket();
            let began = Instant::now();
            let result = self.once(&handle, place, &request, &mut clock).await;
            let fair = began.elapsed() >= request.timeout / 2;
            self.pool.ended(ticket, ended(&result, fair));
            let error = match result {
                Ok(answer) => return Ok(answer),
                Err(lost) if self.may_repeat(&lost) => lost.into_error(),
                Err(lost) => return Err(lost.into_error()),
            };
            clock.next_attempt();
            attempt.avoid.push(ticket.endpoint);
            if attempt.avoid.len() >= ATTEMPTS_MAX || !self.pool.may_retry() {
                return Err(error);
            }
            if attempt.avoid.len() + 1 == ATTEMPTS_MAX {
                tokio::time::sleep(LAST_ATTEMPT_AFTER).await;
            }
        }
    }

    fn may_repeat(&self, lost: &Lost) -> bool {
        match lost {
            Lost::NotTaken(_) => true,
            Lost::Stalled(_) | Lost::Failed(CalloutError::Unavailable { .. }) => self.idempotent,
            Lost::Failed(_) => false,
        }
    }

    async fn once(
        &self,
        handle: &Handle,
        place: Place,
        request: &Request,
        clock: &mut Clock,
    ) -> Result<Answer, Lost> {
        let (raw, held) = self.exchange(handle, place, request, clock).await?;
        let answer = answer(raw, held, request, &handle.negotiated, &handle.naming).await;
        answer.map(|a| clock.stamp(a)).map_err(Lost::Failed)
    }

    async fn exchange(
        &self,
        handle: &Handle,
        place: Place,
        request: &Request,
        clock: &mut Clock,
    ) -> Result<(Raw, Held), Lost> {
        let naming = &handle.naming;
        let link = Arc::new(Link::new(handle.negotiated.selection.initial_credit));
        let extent = extent(handle, request);
        let mut sender = request
            .mail_data()
            .map(|view| Sender::new(view, extent, Arc::clone(&link)));
        let data = match &mut sender {
            Some(sender) => sender.first(naming).await.map_err(Lost::Failed)?,
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
            place,
        };
        if handle.ask(Ask::Open(Box::new(open))).is_err() {
            return Err(Lost::NotTaken(
                naming.unavailable("the connection was lost"),
            ));
        }
        let running = Running {
            link: Some(link),
            asks: handle.asks(),
        };
        wait(naming, answer, (sender, held), running, clock).await
    }

    fn own_octets_max(&self, request: &Request) -> u64 {
        match request.mail_data() {
            Some(_) => self.inserted_octets_max,
            None => self.inserted_octets_max.min(LINE_OCTETS_MAX),
        }
    }
}

/// What it says about the endpoint. `fair`: it had at least half of the time for itself.
fn ended(result: &Result<Answer, Lost>, fair: bool) -> Ended {
    match result {
        Ok(_) => Ended::Answered,
        Err(Lost::Failed(CalloutError::Failed { .. })) => Ended::ServiceFailed,
        Err(Lost::Stalled(_) | Lost::Failed(CalloutError::Protocol { .. })) => Ended::Faulty,
        Err(Lost::Failed(CalloutError::Timeout { .. })) if fair => Ended::Faulty,
        // A lost connection is counted once, not once per transaction.
        Err(Lost::NotTaken(_) | Lost::Failed(_)) => Ended::Neutral,
    }
}

/// Feeds the original, holds what the service brings, and waits for the answer, whichever ends first.
async fn wait(
    naming: &Naming,
    mut answer: oneshot::Receiver<Result<Raw, Lost>>,
    (mut sender, mut own): (Option<Sender<'_>>, Own),
    mut running: Running,
    clock: &mut Clock,
) -> Result<(Raw, Held), Lost> {
    let not_held = |error: ContentError| Lost::Failed(naming.content(error.to_string()));
    let over = tokio::time::sleep_until(clock.deadline());
    tokio::pin!(over);
    loop {
        let sending = sender.as_ref().is_some_and(|sender| !sender.is_done());
        tokio::select! {
            biased;
            reply = &mut answer => {
                running.link = None;
                let lost = || Lost::Failed(naming.unavailable("the connection was lost"));
                clock.excuse(sender.as_ref());
                let raw = reply.unwrap_or_else(|_| Err(lost()))?;
                let held = own.finish().await;
                return Ok((raw, held.map_err(not_held)?));
            }
            octets = own.next() => {
                if let Some(octets) = own.hold(octets).await.map_err(not_held)? {
                    running.held(octets);
                }
            }
            data = next(sender.as_mut(), naming), if sending => {
                running.send(data.map_err(Lost::Failed)?);
            }
            () = &mut over => {
                clock.excuse(sender.as_ref());
                let deadline = clock.deadline();
                if Instant::now() >= deadline {
                    return Err(Lost::Failed(naming.timeout(clock.timeout)));
                }
                over.as_mut().reset(deadline);
            }
        }
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
    /// What the mail client had us wait for, in attempts before this one and in this one.
    waited_before: Duration,
    waited: Duration,
}

impl Clock {
    fn new(timeout: Duration) -> Self {
        Self {
            started: Instant::now(),
            timeout,
            waited_before: Duration::ZERO,
            waited: Duration::ZERO,
        }
    }

    fn next_attempt(&mut self) {
        self.waited_before += std::mem::take(&mut self.waited);
    }

    fn excuse(&mut self, sender: Option<&Sender<'_>>) {
        self.waited = sender.map_or(Duration::ZERO, Sender::waited);
    }

    fn stamp(&self, mut answer: Answer) -> Answer {
        answer.elapsed = self.started.elapsed();
        answer
    }

    fn deadline(&self) -> Instant {
        self.started + self.timeout + self.waited_before + self.waited
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
    let left = clock.deadline().saturating_duration_since(Instant::now());
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
