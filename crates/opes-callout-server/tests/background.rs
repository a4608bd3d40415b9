//! What a service does besides answering begins and ends with it, and is not lost when it fails.

// Unwrapping is how these tests fail.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use opes_callout_server::{Description, Listener, ServerConfig, Service, serve};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

enum Ending {
    Done,
    Error,
    Panic,
    Stop,
}

struct Besides {
    ending: Ending,
    said: mpsc::Sender<&'static str>,
}

impl Service for Besides {
    fn describe(&self) -> Description {
        Description::new("besides")
    }

    async fn background(self: Arc<Self>, stop: CancellationToken) -> Result<()> {
        self.said.send("begun").await?;
        match self.ending {
            Ending::Done => {}
            Ending::Error => bail!("the address is taken"),
            Ending::Panic => panic!("a bug"),
            Ending::Stop => {
                stop.cancelled().await;
                self.said.send("stopped").await?;
            }
        }
        Ok(())
    }
}

struct Running {
    shutdown: CancellationToken,
    said: mpsc::Receiver<&'static str>,
    served: tokio::task::JoinHandle<Result<()>>,
}

async fn start(ending: Ending) -> Running {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let shutdown = CancellationToken::new();
    let (sender, said) = mpsc::channel(2);
    let service = Arc::new(Besides {
        ending,
        said: sender,
    });
    let served = serve(service, listener, ServerConfig::default(), shutdown.clone());
    Running {
        shutdown,
        said,
        served: tokio::spawn(served),
    }
}

impl Running {
    async fn ended(self) -> Result<()> {
        let served = tokio::time::timeout(PATIENCE, self.served);
        served.await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn its_failure_is_that_of_the_service() {
    for (ending, reason) in [
        (Ending::Error, "the address is taken"),
        (Ending::Panic, "what runs beside the service broke"),
    ] {
        let error = start(ending).await.ended().await.unwrap_err();
        assert!(format!("{error:#}").contains(reason), "{error:#}");
    }
}

#[tokio::test]
async fn its_end_is_not() {
    let mut running = start(Ending::Done).await;
    assert_eq!(running.said.recv().await, Some("begun"));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut running.served).await;
    assert!(early.is_err(), "the service ended: {early:?}");
    running.shutdown.cancel();
    running.ended().await.unwrap();
}

#[tokio::test]
async fn it_is_told_to_stop() {
    let mut running = start(Ending::Stop).await;
    assert_eq!(running.said.recv().await, Some("begun"));
    running.shutdown.cancel();
    assert_eq!(running.said.recv().await, Some("stopped"));
    running.ended().await.unwrap();
}
