//! The table of `docs/spool.md`, row by row.

use super::*;

const OWN_FILE_STATES: [OwnFileState; 3] = [
    OwnFileState::Absent,
    OwnFileState::Complete,
    OwnFileState::WrongSize,
];
const SETTLED_PARTS: [SettledPart; 3] = [SettledPart::None, SettledPart::Some, SettledPart::All];

fn all_states() -> Vec<OnDisk> {
    let mut states = Vec::new();
    for message in [false, true] {
        for needs_own_file in [false, true] {
            for own_file in OWN_FILE_STATES {
                for settled in SETTLED_PARTS {
                    states.push(OnDisk {
                        message,
                        needs_own_file,
                        own_file,
                        settled,
                    });
                }
            }
        }
    }
    states
}

#[test]
fn an_acknowledged_message_is_queued_until_all_is_settled_or_reported_lost() {
    for state in all_states() {
        let acknowledged = state.message && state.settled != SettledPart::All;
        let complete = !state.needs_own_file || state.own_file == OwnFileState::Complete;
        let expected = match (acknowledged, complete) {
            (false, _) => Verdict::Forget,
            (true, true) => Verdict::Queue,
            (true, false) => Verdict::Lost,
        };
        assert_eq!(verdict(state), expected, "{state:?}");
    }
}
