//! [`Follower`]: the owner's end.

use std::sync::{Arc, Mutex, PoisonError};

use opes_proto::routing::{Endpoints, Fault, PoolLoad};
use opes_rules::RoutingTable;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::FollowerConfig;
use crate::hub::Hub;
use crate::status::{Source, Status, StatusView};

/// What the owner has said and the hub has not heard.
const SAID_MAX: usize = 16;

/// Something to be put in force.
#[derive(Debug)]
pub enum News {
    /// Another table. Say [`Follower::in_force`] or [`Follower::refuse`] when that is decided.
    Table(Box<Update>),
    /// The same table; its services are elsewhere. Also after a table that could not be read.
    Endpoints(Endpoints),
}

/// A table that compiled.
#[derive(Debug)]
pub struct Update {
    /// With the revision that the operator gave it.
    pub table: RoutingTable,
    /// Where the services are that the operator runs.
    pub endpoints: Endpoints,
    /// Whether an operator sent it.
    pub source: Source,
}

/// Follows until dropped.
#[derive(Debug)]
pub struct Follower {
    mailbox: Arc<Mailbox>,
    said: mpsc::Sender<Said>,
    status: StatusView,
    _stop: DropGuard,
}

/// From the owner to the hub.
#[derive(Debug)]
pub(crate) enum Said {
    InForce(String),
    Refused(String, Vec<Fault>),
}

/// From the hub to the owner: the newest of each.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    news: Mutex<(Option<Box<Update>>, Option<Endpoints>)>,
    more: Notify,
}

/// Tells how busy the pools are. Called twice a second; must not block.
pub(crate) type LoadSource = Box<dyn Fn() -> Vec<PoolLoad> + Send + Sync>;

// === impl Follower ===

impl Follower {
    /// Begins to call. `loads` says how busy the pools are; it is asked twice a second and must not block. Must be called within a
    /// tokio runtime.
    pub fn start(
        config: FollowerConfig,
        loads: impl Fn() -> Vec<PoolLoad> + Send + Sync + 'static,
    ) -> Self {
        let stop = CancellationToken::new();
        let (said, heard) = mpsc::channel(SAID_MAX);
        let follower = Self {
            mailbox: Arc::default(),
            said,
            status: StatusView::default(),
            _stop: stop.clone().drop_guard(),
        };
        let mailbox = Arc::clone(&follower.mailbox);
        let status = follower.status.clone();
        let hub = Hub::new(config, Box::new(loads), mailbox, status, stop.clone());
        tokio::spawn(async move {
            stop.run_until_cancelled(hub.run(heard)).await;
        });
        follower
    }

    /// The newest thing to be put in force; what it replaces is never seen. Dropping the future loses nothing.
    pub async fn next(&mut self) -> News {
        loop {
            let more = self.mailbox.more.notified();
            if let Some(news) = self.mailbox.take() {
                return news;
            }
            more.await;
        }
    }

    /// The table with this revision is in force for transactions that begin from now on: said to all operators, and kept on disk.
    pub async fn in_force(&self, revision: &str) {
        self.say(Said::InForce(revision.to_owned())).await;
    }

    /// It is not, and the one before stays.
    pub async fn refuse(&self, revision: &str, faults: Vec<Fault>) {
        self.say(Said::Refused(revision.to_owned(), faults)).await;
    }

    /// What there is to be seen at this moment.
    pub fn status(&self) -> Status {
        self.status.now()
    }

    /// The same, for who outlives the follower or cannot hold it.
    pub fn view(&self) -> StatusView {
        self.status.clone()
    }

    async fn say(&self, said: Said) {
        // The hub lives as long as we do, unless the runtime ends.
        let _ended = self.said.send(said).await;
    }
}

// === impl Mailbox ===

impl Mailbox {
    fn take(&self) -> Option<News> {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(update) = news.0.take() {
            return Some(News::Table(update));
        }
        news.1.take().map(News::Endpoints)
    }

    pub(crate) fn put_table(&self, update: Update) {
        *self.news.lock().unwrap_or_else(PoisonError::into_inner) = (Some(Box::new(update)), None);
        self.more.notify_one();
    }

    pub(crate) fn put_endpoints(&self, endpoints: Endpoints) {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut news.0 {
            Some(update) => update.endpoints = endpoints,
            None => news.1 = Some(endpoints),
        }
        drop(news);
        self.more.notify_one();
    }
}
