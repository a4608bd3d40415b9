//! Service groups of one connection: each distinct rule is announced once (SGC) and named by its id from then on.

use std::collections::HashMap;
use std::sync::Arc;

use opes_ocp::{CallError, Processor};
use opes_proto::ocp::Service;
use prost::Message as _;

use crate::request::Group;

/// Groups alive at once. Beyond it the ones without users go, then the oldest.
const GROUPS_MAX: usize = 128;

/// By the address of the shared rule, which is cheap and exact while we hold it.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    known: HashMap<usize, (Arc<Group>, u32)>,
}

impl Groups {
    pub(crate) fn id(
        &mut self,
        group: &Arc<Group>,
        service_uri: &str,
        core: &mut Processor,
    ) -> Result<u32, CallError> {
        let key = Arc::as_ptr(group).addr();
        if let Some((_, sg_id)) = self.known.get(&key) {
            return Ok(*sg_id);
        }
        if self.known.len() >= GROUPS_MAX {
            self.make_room(core)?;
        }
        let parameters = group.parameters().encode_to_vec().into();
        let service = Service {
            uri: service_uri.to_owned(),
            parameters,
        };
        let sg_id = core.create_group(vec![service])?;
        self.known.insert(key, (Arc::clone(group), sg_id));
        Ok(sg_id)
    }

    /// A destroyed group goes on for the transactions that run in it.
    fn make_room(&mut self, core: &mut Processor) -> Result<(), CallError> {
        let unused = self
            .known
            .values()
            .filter(|(group, _)| Arc::strong_count(group) == 1);
        let mut gone: Vec<u32> = unused.map(|(_, sg_id)| *sg_id).collect();
        if gone.is_empty() {
            gone.extend(self.known.values().map(|(_, sg_id)| *sg_id).min());
        }
        self.known.retain(|_, (_, sg_id)| !gone.contains(sg_id));
        gone.into_iter()
            .try_for_each(|sg_id| core.destroy_group(sg_id))
    }
}
