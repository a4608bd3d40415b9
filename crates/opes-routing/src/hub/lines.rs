//! The lines to the operators: the first address, and the replicas that were learnt of.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use opes_proto::routing::from_edge::Kind;
use opes_proto::routing::{FromEdge, Hello, Load, Peers, PoolLoad};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::choice::LineId;
use crate::config::{Address, FollowerConfig, PEERS_MAX};
use crate::line::{Line, Word};

/// What lines have said and the hub has not heard; a line that is faster waits.
const WORDS_MAX: usize = 4;

/// Addresses of one `Peers` that are looked at.
const NAMED_MAX: usize = 1_000;

pub(crate) struct Lines {
    config: FollowerConfig,
    stop: CancellationToken,
    words: mpsc::Receiver<(LineId, Word)>,
    speak: mpsc::Sender<(LineId, Word)>,
    slots: BTreeMap<LineId, Slot>,
    first: Option<LineId>,
    ids: LineId,
}

struct Slot {
    address: Address,
    server_name: String,
    stop: CancellationToken,
    /// There while the stream is open.
    outbox: Option<mpsc::Sender<FromEdge>>,
    /// The replica is named no more: its stream may live on, and there is no other after it.
    unwanted: bool,
    peers: Option<Peers>,
    /// Why there is no stream.
    trouble: Option<String>,
}

// === impl Lines ===

impl Lines {
    pub(crate) fn new(config: FollowerConfig, stop: CancellationToken) -> Self {
        let (speak, words) = mpsc::channel(WORDS_MAX);
        Self {
            config,
            stop,
            words,
            speak,
            slots: BTreeMap::new(),
            first: None,
            ids: 0,
        }
    }

    /// What a line says next, of those that were not hung up.
    pub(crate) async fn next(&mut self) -> (LineId, Word) {
        loop {
            match self.words.recv().await {
                Some((id, word)) if self.slots.contains_key(&id) => return (id, word),
                Some(_) => {}
                // We hold a sender ourselves.
                None => std::future::pending().await,
            }
        }
    }

    fn call(&mut self, address: Address, server_name: String) -> LineId {
        self.ids += 1;
        let (id, stop) = (self.ids, self.stop.child_token());
        let line = Line {
            id,
            address: address.clone(),
            server_name: server_name.clone(),
            tls: self.config.tls.clone(),
            host: self.config.host.clone(),
            words: self.speak.clone(),
            stop: stop.clone(),
        };
        tokio::spawn(line.run());
        let slot = Slot {
            address,
            server_name,
            stop,
            outbox: None,
            unwanted: false,
            peers: None,
            trouble: None,
        };
        self.slots.insert(id, slot);
        id
    }

    // ---- the first address ---------------------------------------------------------------------------------------

    pub(crate) fn first(&self) -> Option<LineId> {
        self.first
    }

    pub(crate) fn call_first(&mut self) {
        if self.first.is_none() {
            let operator = self.config.operator.clone();
            let name = operator.host().to_owned();
            self.first = Some(self.call(operator, name));
        }
    }

    /// The line that was hung up, if there was one.
    pub(crate) fn hang_up_first(&mut self) -> Option<LineId> {
        let id = self.first.take()?;
        self.hang_up(id);
        Some(id)
    }

    // ---- replicas ------------------------------------------------------------------------------------------------

    /// Lines to replicas.
    pub(crate) fn peers(&self) -> impl Iterator<Item = LineId> + '_ {
        let first = self.first;
        self.slots
            .keys()
            .copied()
            .filter(move |id| Some(*id) != first)
    }

    /// What this line says of the replicas, for the time when it is followed.
    pub(crate) fn keep_peers(&mut self, id: LineId, peers: Peers) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.peers = Some(peers);
        }
    }

    /// Calls the replicas that this line has named.
    pub(crate) fn use_peers_of(&mut self, id: Option<LineId>) {
        let slot = id.and_then(|id| self.slots.get(&id));
        let Some(Peers {
            addresses,
            server_name,
        }) = slot.and_then(|slot| slot.peers.clone())
        else {
            return;
        };
        let name = if server_name.is_empty() {
            self.config.operator.host().to_owned()
        } else {
            server_name
        };
        let mut wanted: Vec<Address> = Vec::new();
        for text in addresses.iter().take(NAMED_MAX) {
            match Address::from_str(text) {
                Ok(address) => wanted.push(address),
                Err(error) => {
                    tracing::warn!(%error, "an operator names a replica that cannot be called");
                }
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        wanted.truncate(PEERS_MAX);
        let first = self.first;
        let mut known = Vec::new();
        for (id, slot) in &mut self.slots {
            if Some(*id) != first {
                slot.unwanted = slot.server_name != name || !wanted.contains(&slot.address);
                if !slot.unwanted {
                    known.push(slot.address.clone());
                }
            }
        }
        for address in wanted {
            if !known.contains(&address) {
                self.call(address, name.clone());
            }
        }
    }

    /// Replicas that are named no more, and to which there is no stream. Those that were hung up.
    pub(crate) fn hang_up_unwanted(&mut self) -> Vec<LineId> {
        let over =
            |(id, slot): (&LineId, &Slot)| (slot.unwanted && slot.outbox.is_none()).then_some(*id);
        let ids: Vec<LineId> = self.slots.iter().filter_map(over).collect();
        for id in &ids {
            self.hang_up(*id);
        }
        ids
    }

    fn hang_up(&mut self, id: LineId) {
        if let Some(slot) = self.slots.remove(&id) {
            slot.stop.cancel();
        }
    }

    // ---- streams -------------------------------------------------------------------------------------------------

    pub(crate) fn opened(
        &mut self,
        id: LineId,
        outbox: mpsc::Sender<FromEdge>,
        running: String,
        loads: &[PoolLoad],
    ) {
        let hello = Kind::Hello(Hello {
            edge: self.config.edge.clone(),
            namespace: self.config.namespace.clone(),
            version: self.config.version.clone(),
            running,
        });
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.outbox = Some(outbox);
        }
        self.say_to(id, hello);
        let pools = loads.to_vec();
        self.say_to(id, Kind::Load(Load { pools }));
    }

    /// It has sent a table.
    pub(crate) fn in_order(&mut self, id: LineId) {
        if let Some(slot) = self.slots.get_mut(&id)
            && slot.trouble.take().is_some()
        {
            tracing::info!(operator = %slot.address, "operator reached again");
        }
    }

    /// The same reason again and again is told once.
    pub(crate) fn closed(&mut self, id: LineId, reason: &str) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.outbox = None;
        if slot.trouble.as_deref() == Some(reason) {
            tracing::debug!(operator = %slot.address, reason, "no stream to this operator");
        } else {
            tracing::warn!(operator = %slot.address, reason, "no stream to this operator");
            slot.trouble = Some(reason.to_owned());
        }
    }

    pub(crate) fn say(&mut self, kind: &Kind) {
        let ids: Vec<LineId> = self.slots.keys().copied().collect();
        for id in ids {
            self.say_to(id, kind.clone());
        }
    }

    /// An operator that does not read is given up, and called again.
    pub(crate) fn say_to(&mut self, id: LineId, kind: Kind) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if let Some(outbox) = &slot.outbox
            && outbox.try_send(FromEdge { kind: Some(kind) }).is_err()
        {
            slot.outbox = None;
        }
    }

    // ---- for others to see ---------------------------------------------------------------------------------------

    pub(crate) fn connected(&self) -> usize {
        let open = |slot: &&Slot| slot.outbox.is_some();
        self.slots.values().filter(open).count()
    }

    pub(crate) fn name(&self, id: LineId) -> Option<String> {
        self.slots.get(&id).map(|slot| slot.address.to_string())
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        if self.connected() > 0 {
            return None;
        }
        let mut slots = self.slots.values();
        slots.find_map(|slot| {
            let trouble = slot.trouble.as_ref()?;
            Some(format!("{}: {trouble}", slot.address))
        })
    }
}
