//! Two agents, two directions of a transport, and a model of what either wants.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use opes_proto::ocp::Message;

use super::super::support::*;
use crate::{
    AdaptedEnd, CallError, CalloutServer, Extensions, Failure, OriginalEnd, Processor,
    ProcessorEvent, ServerEvent, StartTransaction,
};

/// Transactions of one run.
const JOBS_MAX: usize = 6;
/// Rounds of fair acting after which something must have waited for ever.
const ROUNDS_MAX: usize = 400;

pub(super) struct World {
    p: Processor,
    s: CalloutServer,
    to_s: VecDeque<Message>,
    to_p: VecDeque<Message>,
    jobs: Vec<Job>,
    works: BTreeMap<u32, Work>,
    extensions: Extensions,
    script: VecDeque<u16>,
    lost: bool,
}

/// One transaction as P means it.
#[derive(Default)]
struct Job {
    original: Vec<u8>,
    /// The adapted message as it comes.
    built: Vec<u8>,
    enough: Option<u64>,
    stop_wanted: bool,
    granted: u64,
    ended: Vec<Result<(), Failure>>,
}

/// One transaction as S means it.
#[derive(Default)]
struct Work {
    received: Vec<u8>,
    /// Octets of the original that the adapted message has dealt with.
    covered: usize,
    /// The adapted message that S means.
    meant: Vec<u8>,
    started: bool,
    original_end: Option<OriginalEnd>,
    joint: Option<usize>,
    adapted_ended: bool,
    /// Credit limit of the original.
    granted: u64,
    ended: Vec<Result<(), Failure>>,
}

impl World {
    pub(super) fn new(extensions: Extensions, script: Vec<u16>) -> Self {
        Self {
            p: processor(extensions),
            s: server(extensions),
            to_s: VecDeque::new(),
            to_p: VecDeque::new(),
            jobs: Vec::new(),
            works: BTreeMap::new(),
            extensions,
            script: script.into(),
            lost: false,
        }
    }

    fn next(&mut self, below: usize) -> usize {
        usize::from(self.script.pop_front().unwrap_or(0)) % below.max(1)
    }

    pub(super) fn run_script(&mut self) {
        while !self.script.is_empty() {
            match self.next(4) {
                0 => self.act_p(),
                1 => self.act_s(),
                2 => {
                    let count = self.next(6);
                    self.deliver_to_s(count);
                }
                _ => {
                    let count = self.next(6);
                    self.deliver_to_p(count);
                }
            }
        }
    }

    pub(super) fn run_fairly(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if self.jobs.iter().all(|j| !j.ended.is_empty()) {
                break;
            }
            for index in 0..self.jobs.len() {
                self.finish_p(index);
            }
            self.deliver_to_s(usize::MAX);
            let xids: Vec<u32> = self.works.keys().copied().collect();
            for xid in xids {
                self.finish_s(xid);
            }
            self.deliver_to_p(usize::MAX);
        }
        self.deliver_to_s(usize::MAX);
    }

    pub(super) fn lose(&mut self) {
        self.lost = true;
        self.p.connection_lost();
        self.s.connection_lost();
        self.hear_p();
        self.hear_s();
    }

    // ---- transport ---------------------------------------------------------------------------------------------------

    fn deliver_to_s(&mut self, count: usize) {
        self.to_s.extend(out(&mut self.p));
        for _ in 0..count.min(self.to_s.len()) {
            if let Some(message) = self.to_s.pop_front() {
                self.s.receive(message);
            }
        }
        self.hear_s();
    }

    fn deliver_to_p(&mut self, count: usize) {
        self.to_p.extend(out(&mut self.s));
        for _ in 0..count.min(self.to_p.len()) {
            if let Some(message) = self.to_p.pop_front() {
                self.p.receive(message);
            }
        }
        self.hear_p();
    }

    fn hear_p(&mut self) {
        while let Some(event) = self.p.next_event() {
            self.note_p(event);
        }
    }

    fn job(&mut self, xid: u32) -> &mut Job {
        &mut self.jobs[xid as usize]
    }

    fn work(&mut self, xid: u32) -> &mut Work {
        self.works.entry(xid).or_default()
    }

    fn note_p(&mut self, event: ProcessorEvent) {
        match event {
            ProcessorEvent::AdaptedData { xid, payload, .. } => {
                self.job(xid).built.extend_from_slice(&payload);
            }
            ProcessorEvent::UseOriginal { xid, offset, size } => {
                let job = self.job(xid);
                let range = offset as usize..(offset + size) as usize;
                job.built.extend_from_slice(&job.original[range]);
            }
            ProcessorEvent::AdaptedEnd {
                xid,
                end: AdaptedEnd::Rest { from },
                ..
            } => {
                let job = self.job(xid);
                job.built.extend_from_slice(&job.original[from as usize..]);
            }
            ProcessorEvent::StopReceiving { xid, size } => self.job(xid).enough = Some(size),
            ProcessorEvent::StopSendingWanted { xid } => self.job(xid).stop_wanted = true,
            ProcessorEvent::Ended { xid, result } => self.job(xid).ended.push(result),
            ProcessorEvent::ConnectionEnded { result } => {
                assert!(self.lost, "connection ended: {result:?}");
            }
            _ => {}
        }
    }

    fn hear_s(&mut self) {
        while let Some(event) = self.s.next_event() {
            self.note_s(event);
        }
    }

    fn note_s(&mut self, event: ServerEvent) {
        match event {
            ServerEvent::Started { xid, .. } => self.work(xid).granted = CREDIT,
            ServerEvent::OriginalData {
                xid,
                offset,
                payload,
                ..
            } => {
                let work = self.work(xid);
                assert_eq!(work.received.len() as u64, offset);
                work.received.extend_from_slice(&payload);
            }
            ServerEvent::OriginalEnd { xid, end } => self.work(xid).original_end = Some(end),
            ServerEvent::StopSending { xid, from } => self.work(xid).joint = Some(from as usize),
            ServerEvent::Ended { xid, result } => self.work(xid).ended.push(result),
            ServerEvent::ConnectionEnded { result } => {
                assert!(self.lost, "connection ended: {result:?}");
            }
            _ => {}
        }
    }

    // ---- P ------------------------------------------------------------------------------------------------------------

    fn act_p(&mut self) {
        if self.jobs.is_empty() || (self.next(4) == 0 && self.jobs.len() < JOBS_MAX) {
            self.start_job();
            return;
        }
        let (index, amount) = (self.next(self.jobs.len()), self.next(30));
        let xid = index as u32;
        let _refused = match self.next(12) {
            0..=4 => {
                self.send_original(index, amount);
                Ok(())
            }
            5 => self.end_original(index),
            6 => self.p.pause(xid, amount as u64),
            7 => self.p.resume(xid),
            8 => {
                self.grant_adapted(index, amount as u64);
                Ok(())
            }
            9 => self.p.keep(xid, 0, (1 << 31) - 1),
            10 => self.p.stop_sending(xid),
            _ if amount == 0 => self.p.abort(xid, "client left"),
            _ => self.p.progress_query(Some(xid)),
        };
    }

    fn start_job(&mut self) {
        let length = self.next(60);
        let original: Vec<u8> = (0..length).map(|i| b'a' + (i % 26) as u8).collect();
        let am_el = (self.next(2) == 0).then_some(length as u64);
        match self.p.start(StartTransaction {
            am_el,
            ..Default::default()
        }) {
            Ok(xid) => {
                assert_eq!(xid as usize, self.jobs.len());
                self.jobs.push(Job {
                    original,
                    granted: CREDIT,
                    ..Default::default()
                });
            }
            Err(error) => assert!(matches!(error, CallError::TooMany { .. }), "{error}"),
        }
    }

    fn send_original(&mut self, index: usize, most: usize) {
        let (xid, job) = (index as u32, &self.jobs[index]);
        let sent = self.p.sent(xid) as usize;
        let left = job.original.len().saturating_sub(sent);
        let octets = most.min(left).min(self.p.sendable(xid) as usize);
        if octets > 0 {
            let chunk = Bytes::copy_from_slice(&job.original[sent..sent + octets]);
            self.p.data(xid, 1, chunk).expect("sendable said so");
        }
    }

    fn end_original(&mut self, index: usize) -> Result<(), CallError> {
        let (xid, job) = (index as u32, &self.jobs[index]);
        let sent = self.p.sent(xid);
        if sent == job.original.len() as u64 {
            self.p.finish(xid, true)
        } else if job.enough.is_some_and(|size| sent >= size) {
            self.p.finish(xid, false)
        } else {
            Ok(())
        }
    }

    fn grant_adapted(&mut self, index: usize, more: u64) {
        let job = &mut self.jobs[index];
        job.granted += more;
        let _refused = self.p.grant(index as u32, job.granted);
    }

    /// Does all that is left to do.
    fn finish_p(&mut self, index: usize) {
        let xid = index as u32;
        if !self.jobs[index].ended.is_empty() {
            return;
        }
        let _open = self.p.resume(xid);
        if self.extensions.credit {
            self.grant_adapted(index, 50);
        }
        if self.jobs[index].stop_wanted {
            let _granted_before = self.p.stop_sending(xid);
        }
        self.send_original(index, 50);
        let _ended_before = self.end_original(index);
    }

    // ---- S ------------------------------------------------------------------------------------------------------------

    fn act_s(&mut self) {
        let xids: Vec<u32> = self.works.keys().copied().collect();
        let Some(&xid) = xids.get(self.next(xids.len())) else {
            return;
        };
        let amount = self.next(30);
        let _refused = match self.next(14) {
            0 => {
                self.start_adapted(xid);
                Ok(())
            }
            1 | 2 => {
                self.cover(xid, amount, 0);
                Ok(())
            }
            3 => {
                self.cover(xid, amount, 1);
                Ok(())
            }
            4 => {
                self.cover(xid, amount, 2);
                Ok(())
            }
            5 => {
                self.insert(xid);
                Ok(())
            }
            6 => self.s.want_stop_sending(xid),
            7 => self.s.want_stop_receiving(xid, amount as u64),
            8 => {
                self.end_adapted(xid, true);
                Ok(())
            }
            9 => self.s.pause(xid, amount as u64),
            10 => self.s.resume(xid),
            11 => {
                self.grant_original(xid, amount as u64);
                Ok(())
            }
            12 => self.s.progress_report(Some(xid)),
            _ if amount == 0 => self.s.refuse(xid, "overloaded"),
            _ => {
                self.end_adapted(xid, false);
                Ok(())
            }
        };
    }

    fn start_adapted(&mut self, xid: u32) {
        if self.s.adapted_start(xid, vec![], Bytes::new()).is_ok() {
            self.works.entry(xid).or_default().started = true;
        }
    }

    /// Deals with up to `most` octets of the original: changed, as they are, or by reference.
    fn cover(&mut self, xid: u32, most: usize, how: usize) {
        let Some(work) = self.works.get_mut(&xid) else {
            return;
        };
        let end = work.joint.unwrap_or(work.received.len());
        let room = if how == 2 {
            most
        } else {
            most.min(self.s.sendable(xid) as usize)
        };
        let octets = room.min(end.saturating_sub(work.covered));
        let from = work.covered;
        let chunk = work.received[from..from + octets].to_vec();
        if octets == 0 {
            return;
        }
        let (sent, meant) = match how {
            0 => {
                let changed = chunk.to_ascii_uppercase();
                (
                    self.s
                        .adapted_data(xid, 1, Bytes::from(changed.clone()), None, None),
                    changed,
                )
            }
            1 => (
                self.s
                    .adapted_data(xid, 1, Bytes::from(chunk.clone()), Some(from as u64), None),
                chunk,
            ),
            _ => (self.s.use_original(xid, from as u64, octets as u64), chunk),
        };
        if sent.is_ok() {
            work.covered += octets;
            work.meant.extend(meant);
        }
    }

    fn insert(&mut self, xid: u32) {
        if self.s.sendable(xid) >= 3
            && self
                .s
                .adapted_data(xid, 1, "NEW".into(), None, Some(100))
                .is_ok()
        {
            self.works
                .entry(xid)
                .or_default()
                .meant
                .extend_from_slice(b"NEW");
        }
    }

    fn grant_original(&mut self, xid: u32, more: u64) {
        let work = self.works.entry(xid).or_default();
        work.granted += more;
        let _refused = self.s.grant(xid, work.granted);
    }

    /// Ends the adapted flow if it can be ended honestly now. `early`: by the standing stop too.
    fn end_adapted(&mut self, xid: u32, early: bool) {
        let Some(work) = self.works.get_mut(&xid) else {
            return;
        };
        if !work.started || work.adapted_ended {
            return;
        }
        let all = work.covered == work.received.len();
        let standing = self.extensions.standing_stop && work.joint.is_none();
        let end = match (&work.original_end, work.joint) {
            (_, Some(joint)) if work.covered == joint => AdaptedEnd::Rest { from: joint as u64 },
            (Some(OriginalEnd::Complete), None) if all && !early => AdaptedEnd::Complete,
            (Some(OriginalEnd::Partial), None) if all && !standing => AdaptedEnd::Complete,
            (end, None) if standing && (early || end.is_some()) => AdaptedEnd::Rest {
                from: work.covered as u64,
            },
            _ => return,
        };
        if self.s.adapted_end(xid, end, Bytes::new()).is_err() {
            return;
        }
        work.adapted_ended = true;
        if let AdaptedEnd::Rest { from } = end {
            work.meant
                .extend_from_slice(&self.jobs[xid as usize].original[from as usize..]);
        }
        self.s.end(xid, Ok(())).expect("the adapted flow has ended");
    }

    /// Does all that is left to do.
    fn finish_s(&mut self, xid: u32) {
        if !self.works[&xid].ended.is_empty() {
            return;
        }
        let _open = self.s.resume(xid);
        if self.extensions.credit {
            self.grant_original(xid, 50);
        }
        self.start_adapted(xid);
        self.cover(xid, 50, 0);
        self.end_adapted(xid, false);
    }

    // ---- judgement ------------------------------------------------------------------------------------------------------

    pub(super) fn check_results(&self) {
        self.check_all_ended();
        for (xid, job) in self.jobs.iter().enumerate() {
            if job.ended.iter().all(Result::is_ok) {
                let meant = &self.works[&(xid as u32)].meant;
                assert_eq!(job.built, *meant, "transaction {xid}");
            }
        }
        assert_eq!(
            (self.p.transactions_open(), self.s.transactions_open()),
            (0, 0)
        );
    }

    pub(super) fn check_all_ended(&self) {
        let works = self.works.values().map(|w| &w.ended);
        for ended in self.jobs.iter().map(|j| &j.ended).chain(works) {
            assert_eq!(ended.len(), 1, "one end for each: {ended:?}");
            let violation = ended
                .iter()
                .any(|e| matches!(e, Err(Failure::Violation(_) | Failure::Unfinished)));
            assert!(!violation, "{ended:?}");
        }
    }
}
