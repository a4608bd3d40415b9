//! A seed, spelled out: what is sent, how the services fail, and what goes wrong when.

use std::time::Duration;

use opes_host::Random;

use crate::client::PATIENCE;
use crate::mail::Mail;

/// Messages begin within this time.
const SPAN_MS: u64 = 20_000;

/// Faults begin a little later, and have all begun by then.
const FAULTS_AFTER_MS: u64 = 500;
pub(crate) const FAULTS_END_MS: u64 = FAULTS_AFTER_MS + SPAN_MS;

/// At the latest by then everything is healed.
pub(crate) const HEALED_MS: u64 = 30_000;

/// Messages of a run.
const MAILS_MIN: u64 = 10;
const MAILS_SPREAD: u64 = 15;

const FAULTS_MAX: u64 = 7;

/// Of one operation.
const SLOW_DISK: Duration = Duration::from_millis(300);

/// The hosts that faults happen to.
pub(crate) const HOSTS: [&str; 3] = ["hop", "judge", "adapter"];

/// What the edge does when a service fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFailure {
    Accept,
    Tempfail,
    Reject,
    Quarantine,
}

/// Bugs that are switched on to see whether they are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KnownBug {
    /// None.
    #[default]
    None,
    /// The disk says that data is durable when it is not.
    LyingDisk,
    /// The next hop says 250 and forgets the message.
    ForgetfulHop,
    /// The edge accepts what it should hold because a service has failed.
    LenientPolicy,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The edge's process ends, or its machine.
    KillEdge { power: bool, down_ms: u64 },
    /// The same, within the disk operation that is so many ahead.
    KillEdgeAt {
        power: bool,
        ahead: u64,
        down_ms: u64,
    },
    /// A service or the next hop.
    Kill { host: usize, down_ms: u64 },
    /// Nothing gets through, and what was sent meanwhile is lost.
    Partition { host: usize, ms: u64 },
    /// Only one direction.
    Deaf { host: usize, ms: u64 },
    /// Everything gets through, late.
    Hold { host: usize, ms: u64 },
    /// A host, or the edge, reads a few octets at a time.
    SlowReader {
        host: usize,
        octets: usize,
        pause_ms: u64,
        ms: u64,
    },
    /// So many octets for a new file.
    LowDisk { octets: u64, ms: u64 },
    /// So many syncs fail.
    FailingSyncs { count: u32 },
    /// Octets take up to so long.
    Latency { host: usize, max_ms: u64, ms: u64 },
}

/// Everything that a seed decides.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) mails: Vec<Mail>,
    pub(crate) judge_fails: OnFailure,
    pub(crate) adapter_fails: OnFailure,
    pub(crate) pause_max_ms: u64,
    pub(crate) disk_latency: Duration,
    pub(crate) message_latency_max: Duration,
    pub(crate) greylists: u64,
    pub(crate) kept_octets: u64,
    pub(crate) cut_through: bool,
    pub(crate) faults: Vec<(u64, Fault)>,
    pub(crate) bug: KnownBug,
}

impl Plan {
    pub(crate) fn new(seed: u64, bug: KnownBug) -> Self {
        let random = Random::seeded(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let count = MAILS_MIN + random.below(MAILS_SPREAD);
        let mails = (0..count)
            .map(|number| Mail::random(usize::try_from(number).unwrap_or(0), &random, SPAN_MS));
        let mails = mails.collect();
        let mut faults: Vec<_> = (0..random.below(FAULTS_MAX + 1))
            .map(|_| {
                (
                    FAULTS_AFTER_MS + random.below(SPAN_MS),
                    Fault::random(&random),
                )
            })
            .collect();
        faults.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            mails,
            judge_fails: OnFailure::random(&random),
            adapter_fails: OnFailure::random(&random),
            pause_max_ms: [0, 20, 300, 4000][index(&random, 4)],
            disk_latency: Duration::from_millis([0, 3, 30, 300][index(&random, 4)]),
            message_latency_max: Duration::from_millis([10, 30, 100][index(&random, 3)]),
            greylists: [0, 0, 8][index(&random, 3)],
            kept_octets: [0, 40_000, 1 << 20][index(&random, 3)],
            cut_through: random.below(8) == 0,
            faults,
            bug,
        }
    }

    /// How long clients wait for the reply to the content. A message may be stored for each of its recipients, and a slow disk takes a
    /// quarter of a minute for one.
    pub(crate) fn patience(&self) -> Duration {
        if self.disk_latency < SLOW_DISK {
            PATIENCE
        } else {
            5 * PATIENCE
        }
    }

    /// For a person who has to understand a failure.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!(
            "seed {}: {} messages, judge fails: {:?}, adapter fails: {:?}, pauses up to {} ms, disk latency {:?}, link latency up to {:?}, greylisting 1/{}, {} octets kept, cut-through {}\n",
            self.seed,
            self.mails.len(),
            self.judge_fails,
            self.adapter_fails,
            self.pause_max_ms,
            self.disk_latency,
            self.message_latency_max,
            self.greylists,
            self.kept_octets,
            self.cut_through,
        );
        for mail in &self.mails {
            text += &format!(
                "  message {} at {} ms: {:?} {:?} to {}\n",
                mail.number,
                mail.start_ms,
                mail.kind,
                mail.manner,
                mail.recipients.join(" ")
            );
        }
        for (at, fault) in &self.faults {
            text += &format!("  at {at} ms: {fault:?}\n");
        }
        text
    }
}

impl OnFailure {
    fn random(random: &Random) -> Self {
        [
            Self::Accept,
            Self::Tempfail,
            Self::Tempfail,
            Self::Reject,
            Self::Quarantine,
        ][index(random, 5)]
    }

    pub(crate) fn word(self, bug: KnownBug) -> &'static str {
        match self {
            Self::Quarantine if bug == KnownBug::LenientPolicy => "accept",
            Self::Accept => "accept",
            Self::Tempfail => "tempfail",
            Self::Reject => "reject",
            Self::Quarantine => "quarantine",
        }
    }
}

impl Fault {
    fn random(random: &Random) -> Self {
        let host = index(random, HOSTS.len());
        let ms = 200 + random.below(8_000);
        let down_ms = 100 + random.below(4_000);
        let power = random.below(3) > 0;
        match random.below(12) {
            0 => Self::KillEdge { power, down_ms },
            1..=3 => Self::KillEdgeAt {
                power,
                ahead: 1 + random.below(30),
                down_ms,
            },
            4 | 5 => Self::Kill { host, down_ms },
            6 => Self::Partition { host, ms },
            7 => Self::Deaf { host, ms },
            8 => Self::Hold { host, ms },
            9 => Self::SlowReader {
                host: index(random, HOSTS.len() + 1),
                octets: [1, 100, 3000][index(random, 3)],
                pause_ms: 1 + random.below(60),
                ms,
            },
            10 => match random.below(3) {
                0 => Self::FailingSyncs {
                    count: 1 + u32::try_from(random.below(3)).unwrap_or(0),
                },
                1 => Self::LowDisk { octets: 0, ms },
                _ => Self::LowDisk {
                    octets: 100 * 1024,
                    ms,
                },
            },
            _ => Self::Latency {
                host,
                max_ms: 200 + random.below(1500),
                ms,
            },
        }
    }
}

fn index(random: &Random, len: usize) -> usize {
    usize::try_from(random.below(len as u64)).unwrap_or(0)
}
