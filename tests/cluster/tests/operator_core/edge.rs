//! Edges as operators see them: followers of the routing table that answer as the test says.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;
use opes_cluster::DEADLINE;
use opes_host::{Accept, Connect, Duplex, Network};
use opes_proto::routing::PoolLoad;
use opes_routing::{Fault, Follower, FollowerConfig, News};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// An edge that takes every table, unless it is told otherwise.
pub(crate) struct Edge {
    /// Revision in force.
    pub(crate) running: watch::Receiver<String>,
    /// The objects of the last table.
    pub(crate) objects: watch::Receiver<usize>,
    /// How to answer.
    pub(crate) answer: watch::Sender<Answer>,
    task: JoinHandle<()>,
}

/// How an edge answers a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// It puts it in force.
    Take,
    /// It says nothing.
    Hold,
    /// It refuses it because of this rule.
    Refuse(String),
}

/// A network in which every name and address is this machine.
struct Here;

// === impl Edge ===

impl Edge {
    /// Follows; every name and address is found on this machine.
    pub(crate) fn start(config: FollowerConfig) -> Self {
        Self::busy(config, Vec::new)
    }

    /// One that says how busy pools are.
    pub(crate) fn busy(
        mut config: FollowerConfig,
        loads: impl Fn() -> Vec<PoolLoad> + Send + Sync + 'static,
    ) -> Self {
        config.host.network = Network::Other(Arc::new(Here));
        let (running, runs) = watch::channel(String::new());
        let (counts, objects) = watch::channel(0);
        let (answer, answers) = watch::channel(Answer::Take);
        let task = tokio::spawn(async move {
            let mut follower = Follower::start(config, loads);
            loop {
                let News::Table(update) = follower.next().await else {
                    continue;
                };
                let revision = update.table.revision.clone();
                counts.send_replace(update.table.rules.len() + update.table.services.len());
                let answer = answers.borrow().clone();
                match answer {
                    Answer::Take => {
                        follower.in_force(&revision).await;
                        running.send_replace(revision);
                    }
                    Answer::Hold => {}
                    Answer::Refuse(name) => {
                        let fault = Fault {
                            kind: "OpesRule".into(),
                            name,
                            message: "this version does not know it".into(),
                        };
                        follower.refuse(&revision, vec![fault]).await;
                    }
                }
            }
        });
        Self {
            running: runs,
            objects,
            answer,
            task,
        }
    }

    /// Waits until it runs another revision than this one.
    pub(crate) async fn runs_other_than(&mut self, revision: &str) -> Result<String> {
        let changed = self
            .running
            .wait_for(|running| !running.is_empty() && running != revision);
        Ok(tokio::time::timeout(DEADLINE, changed)
            .await
            .context("no other table came")??
            .clone())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Here ===

impl Connect for Here {
    fn connect<'a>(&'a self, _: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Duplex>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }

    fn bind(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Accept>>> {
        Box::pin(std::future::ready(Err(io::Error::other(
            "edges of tests do not listen",
        ))))
    }

    fn look_up<'a>(&'a self, _: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(std::future::ready(Ok(vec![([127, 0, 0, 1], port).into()])))
    }
}
