//! The keeper: dials what is to be dialled, forgets what has closed, lets go what nobody uses.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Pool, names};
use crate::balance::NotOpened;
use crate::config::Address;
use crate::connection::{self, Handle};
use crate::naming::Naming;

impl Pool {
    /// The pool's tasks run from the first use on.
    pub(super) fn start(self: &Arc<Self>) {
        use std::sync::atomic::Ordering;
        if self.started.load(Ordering::Acquire) || self.started.swap(true, Ordering::AcqRel) {
            return;
        }
        tokio::spawn(keep(Arc::downgrade(self), Arc::clone(&self.keeper)));
        tokio::spawn(names::look_up(
            Arc::downgrade(self),
            Arc::clone(&self.names),
        ));
    }

    /// Gives back when to look again.
    fn look_after(self: &Arc<Self>) -> Option<Duration> {
        let upkeep = self.core().upkeep(self.now(), self.random.next_u64());
        self.on_change();
        for (id, address) in upkeep.dials {
            tokio::spawn(dial(Arc::downgrade(self), id, address));
        }
        let now = self.now();
        upkeep.next.map(|at| at.saturating_sub(now))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Both see that the pool has gone.
        self.keeper.notify_one();
        self.names.notify_one();
    }
}

async fn keep(pool: Weak<Pool>, wake: Arc<Notify>) {
    loop {
        let next = match pool.upgrade() {
            Some(pool) => pool.look_after(),
            None => return,
        };
        match next {
            Some(pause) => {
                let _woken = tokio::time::timeout(pause, wake.notified()).await;
            }
            None => wake.notified().await,
        }
    }
}

async fn dial(pool: Weak<Pool>, id: u64, address: Address) {
    let Some((config, wake)) = pool
        .upgrade()
        .map(|pool| (pool.config.clone(), Arc::clone(&pool.keeper)))
    else {
        return;
    };
    let naming = Arc::new(Naming {
        service: config.name.clone(),
        target: address.target,
        host: address.host,
    });
    let attempt = connection::open(&config, &naming, &wake);
    let result = tokio::time::timeout(config.connect_timeout, attempt).await;
    let result = result.unwrap_or_else(|_| {
        let limit = config.connect_timeout.as_millis();
        let late = format!("no OCP connection within {limit} ms (limits.connectTimeout)");
        Err(naming.unavailable(late).into())
    });
    if let Some(pool) = pool.upgrade() {
        pool.dialled(id, result);
    }
}

impl Pool {
    fn dialled(&self, id: u64, result: Result<Arc<Handle>, NotOpened>) {
        let (now, random) = (self.now(), self.random.next_u64());
        let mut core = self.core();
        match result {
            Ok(handle) => {
                let capacity = handle.capacity();
                core.connected(id, handle, capacity, now);
            }
            Err(why) => core.not_opened(id, why, now, random),
        }
        drop(core);
        self.on_change();
        self.keeper.notify_one();
    }
}
