//! A worker of a next hop: one connection, one message after the other.
//!
//! The task owns its connection, so that a pool needs neither locks nor hand-over: the pool *is* the set of workers.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use opes_smtp::client::{Mail, MailRecipient, Outcome};
use opes_smtp::reply::Reply;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use crate::connection::{Connection, Peer};
use crate::job::{Job, Verdict};
use crate::lane::{Lane, Seat};
use crate::relay::Shared;

pub(crate) struct Worker {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    seat: Seat,
    peer: Peer,
    connection: Option<Connection>,
    /// The right to have a connection, over all next hops.
    permit: Option<OwnedSemaphorePermit>,
}

/// Why an idle worker goes on.
enum Wake {
    Work,
    /// Nothing to do for long enough, or another next hop needs the connection.
    Timeout,
    PeerSpoke,
    Stop,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, lane: Arc<Lane>, peer: Peer) -> Self {
        Self {
            shared,
            seat: Seat::new(Arc::clone(&lane)),
            lane,
            peer,
            connection: None,
            permit: None,
        }
    }

    /// Works until there is nothing to do for a while, the next hop cannot be reached, or the relay stops.
    pub(crate) async fn run(mut self) {
        while !self.shared.stopping.is_cancelled() {
            let end = match self.lane.take(1).pop() {
                Some(job) => self.process(job).await,
                None => self.idle().await,
            };
            if end.is_break() {
                break;
            }
        }
        self.close().await;
    }

    async fn process(&mut self, job: Job) -> ControlFlow<()> {
        if job.is_abandoned() {
            return ControlFlow::Continue(());
        }
        let Some(job) = self.with_permit(job).await else {
            return ControlFlow::Break(());
        };
        match self.send(&job).await {
            Ok(outcome) => {
                let verdict = |reply| Verdict {
                    reports: outcome.reports,
                    ..Verdict::new(reply)
                };
                let verdicts = outcome.replies.into_iter().map(verdict).collect();
                job.finish(verdicts, &self.shared).await;
                self.replace_connection().await;
                ControlFlow::Continue(())
            }
            Err(reply) => self.unreachable(job, reply).await,
        }
    }

    /// A connection that was idle may turn out to be closed already; that says nothing about the message.
    async fn send(&mut self, job: &Job) -> Result<Outcome, Reply> {
        let reused = self.connection.is_some();
        let outcome = self.send_once(job).await?;
        if reused && outcome.untried {
            self.connection = None;
            return self.send_once(job).await;
        }
        Ok(outcome)
    }

    async fn send_once(&mut self, job: &Job) -> Result<Outcome, Reply> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let envelope = &job.envelope;
        let recipients: Vec<_> = job
            .recipients()
            .map(|recipient| MailRecipient {
                address: &recipient.address,
                params: &recipient.params,
            })
            .collect();
        let mail = Mail {
            reverse_path: &envelope.reverse_path,
            params: &envelope.mail_params,
            size: job.source.len(),
            body_8bit: envelope.body_8bit,
            smtputf8: envelope.smtputf8,
            recipients: &recipients,
            all_or_none: job.all_or_none,
        };
        let outcome = connection.deliver(&mail, &job.source).await;
        if connection.is_ready() {
            self.connection = Some(connection);
        }
        Ok(outcome)
    }

    /// Gets the right to connect. When there is none, the job goes to a colleague; a worker without one asks idle connections to other
    /// next hops to make way. `None`: the worker must end.
    async fn with_permit(&mut self, job: Job) -> Option<Job> {
        if self.permit.is_some() {
            return Some(job);
        }
        let connections = &self.shared.connections;
        if let Ok(permit) = Arc::clone(connections).try_acquire_owned() {
            self.permit = Some(permit);
            return Some(job);
        }
        let wait = self
            .lane
            .next_wait(&self.shared.config.retry.next_hop, self.shared.random());
        let job = self.seat.leave_to_others(job, wait)?;
        self.shared.connection_wanted.notify_one();
        let permit = Arc::clone(connections).acquire_owned();
        self.permit = Some(
            self.shared
                .stopping
                .run_until_cancelled(permit)
                .await?
                .ok()?,
        );
        Some(job)
    }

    async fn connect(&self) -> Result<Connection, Reply> {
        let connection = Box::pin(Connection::open(&self.peer)).await?;
        for _ in 0..self.lane.reached() {
            self.shared.start_worker(&self.lane);
        }
        Ok(connection)
    }

    async fn replace_connection(&mut self) {
        let limit = self.shared.config.messages_per_connection_max;
        if self
            .connection
            .as_ref()
            .is_some_and(|connection| connection.messages >= limit)
        {
            self.close().await;
        }
    }

    async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.quit().await;
        }
        self.permit = None;
    }

    /// No connection is to be had: leaves if others have one, else holds the queue and tries again later.
    async fn unreachable(&mut self, job: Job, reply: Reply) -> ControlFlow<()> {
        let shared = &self.shared;
        let wait = self
            .lane
            .next_wait(&shared.config.retry.next_hop, shared.random());
        let Some(job) = self.seat.leave_to_others(job, wait) else {
            return ControlFlow::Break(());
        };
        tracing::warn!(next_hop = %self.lane.target, %reply, ?wait, "next hop cannot be reached; its queue waits");
        job.tell_waiting(&reply, wait, shared);
        for job in self.lane.hold(job, |job| job.is_expired(shared)) {
            let verdicts = job.all(&Verdict::new(reply.clone()));
            job.finish(verdicts, shared).await;
        }
        self.rest(wait).await
    }

    /// Until the next probe, or until a client comes whose message is worth a try now.
    async fn rest(&mut self, wait: Duration) -> ControlFlow<()> {
        self.permit = None;
        tokio::select! {
            biased;
            () = sleep(wait) => {}
            () = self.lane.work() => {}
            () = self.shared.stopping.cancelled() => {}
        }
        ControlFlow::Continue(())
    }

    async fn idle(&mut self) -> ControlFlow<()> {
        if self.connection.is_none() {
            self.permit = None;
        }
        let wake = self.wait().await;
        self.lane.awake();
        match wake {
            Wake::Work => ControlFlow::Continue(()),
            Wake::Stop => ControlFlow::Break(()),
            Wake::Timeout => {
                self.close().await;
                self.leave()
            }
            Wake::PeerSpoke => {
                self.connection = None;
                self.permit = None;
                self.leave()
            }
        }
    }

    fn leave(&mut self) -> ControlFlow<()> {
        if self.seat.leave_if_no_work() {
            self.shared.forget(&self.lane);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    async fn wait(&mut self) -> Wake {
        let connection = &mut self.connection;
        let spoken_to = async {
            match connection {
                Some(connection) => connection.spoken_to().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.shared.stopping.cancelled() => Wake::Stop,
            () = self.lane.work() => Wake::Work,
            () = spoken_to => Wake::PeerSpoke,
            () = self.shared.connection_wanted.notified() => Wake::Timeout,
            () = sleep(self.peer.timeouts.idle) => Wake::Timeout,
        }
    }
}
