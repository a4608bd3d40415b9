//! Service groups of one creator (RFC 4037 §11.3, §11.4): ids only grow; a destroyed id is dead.

use crate::limits::{ID_MAX, Limits};
use crate::violation::Rule;

#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Ascending.
    live: Vec<u32>,
    highest: Option<u32>,
}

impl Groups {
    pub(crate) fn contains(&self, sg_id: u32) -> bool {
        self.live.binary_search(&sg_id).is_ok()
    }

    pub(crate) fn create(&mut self, sg_id: u32, limits: &Limits) -> Result<(), Rule> {
        if sg_id > ID_MAX {
            return Err(Rule::IdTooLarge(sg_id));
        }
        if let Some(highest) = self.highest.filter(|highest| sg_id <= *highest) {
            return Err(Rule::IdNotIncreasing { id: sg_id, highest });
        }
        let max = limits.groups_max.max(1);
        if self.live.len() as u64 >= u64::from(max) {
            return Err(Rule::TooMany {
                what: "service groups",
                max: u64::from(max),
            });
        }
        self.highest = Some(sg_id);
        self.live.push(sg_id);
        Ok(())
    }

    /// The id that the next group of ours gets; `None` when they are used up.
    pub(crate) fn next_id(&self, id_max: u32) -> Option<u32> {
        self.highest
            .map_or(Some(0), |highest| highest.checked_add(1))
            .filter(|id| *id <= id_max.min(ID_MAX))
    }

    pub(crate) fn destroy(&mut self, sg_id: u32) -> Result<(), Rule> {
        let at = self
            .live
            .binary_search(&sg_id)
            .map_err(|_| Rule::UnknownGroup(sg_id))?;
        self.live.remove(at);
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        self.live.clear();
    }
}
