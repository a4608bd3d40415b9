//! Messages on their way out, as frames: what is ready at once goes together.

use std::collections::VecDeque;

use opes_proto::ocp::{Frame, Message};
use prost::Message as _;

/// A frame is full from this many octets on; a single larger message goes alone.
const FRAME_OCTETS: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    messages: VecDeque<(usize, Message)>,
    octets: usize,
}

impl Outgoing {
    pub(crate) fn push(&mut self, message: Message) {
        let octets = message.encoded_len();
        self.octets += octets;
        self.messages.push_back((octets, message));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(crate) fn octets(&self) -> usize {
        self.octets
    }

    pub(crate) fn next_frame(&mut self) -> Frame {
        let mut frame = Frame {
            messages: Vec::with_capacity(self.messages.len().min(256)),
        };
        let mut octets = 0;
        while octets < FRAME_OCTETS {
            let Some((size, message)) = self.messages.pop_front() else {
                break;
            };
            octets += size;
            frame.messages.push(message);
        }
        self.octets -= octets;
        frame
    }
}
