//! Whether the other end is there at all: after silence a progress query, which must be answered at once (RFC 4037 §11.22).
//!
//! Counted in ticks of the connection's task, not in time: a task that gets no CPU hears no answer either.

/// Ticks without a word before asking, while transactions are open.
const QUIET_TICKS: u32 = 4;

/// The same while none is.
const IDLE_TICKS: u32 = 40;

/// Ticks without an answer until nothing new is sent there.
const UNRESPONSIVE_TICKS: u32 = 4;

/// …and until the connection counts as lost, with what runs on it.
const LOST_TICKS: u32 = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beat {
    Fine,
    /// Send a progress query.
    Ask,
    Unresponsive,
    Lost,
}

#[derive(Debug, Default)]
pub(crate) struct Pulse {
    quiet: u32,
    /// Ticks since the query.
    asked: Option<u32>,
}

impl Pulse {
    /// The other end has said something.
    pub(crate) fn heard(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn tick(&mut self, busy: bool) -> Beat {
        if let Some(asked) = &mut self.asked {
            *asked += 1;
            return match *asked {
                LOST_TICKS.. => Beat::Lost,
                UNRESPONSIVE_TICKS.. => Beat::Unresponsive,
                _ => Beat::Fine,
            };
        }
        self.quiet += 1;
        let patience = if busy { QUIET_TICKS } else { IDLE_TICKS };
        if self.quiet < patience {
            return Beat::Fine;
        }
        self.asked = Some(0);
        Beat::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats(pulse: &mut Pulse, busy: bool, ticks: usize) -> Vec<Beat> {
        (0..ticks).map(|_| pulse.tick(busy)).collect()
    }

    #[test]
    fn asks_after_silence_and_gives_up_in_two_steps() {
        let mut pulse = Pulse::default();
        let all = beats(&mut pulse, true, 16);
        let count = |beat| all.iter().filter(|b| **b == beat).count();
        assert_eq!(all[3], Beat::Ask);
        assert_eq!(count(Beat::Ask), 1);
        assert_eq!(all[7], Beat::Unresponsive);
        assert_eq!(all[15], Beat::Lost);
        assert_eq!(count(Beat::Lost), 1);
    }

    #[test]
    fn any_word_starts_it_anew_and_idle_ones_are_asked_less() {
        let mut pulse = Pulse::default();
        beats(&mut pulse, true, 7);
        pulse.heard();
        assert_eq!(beats(&mut pulse, false, 39), vec![Beat::Fine; 39]);
        assert_eq!(pulse.tick(false), Beat::Ask);
    }
}
