//! Values that people write as text.

use crate::object::{HumanDuration, Network, Quantity, ResourceAmount};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

impl JsonSchema for HumanDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 2,
            "maxLength": 16,
            "pattern": "^[0-9]{1,9}(ms|s|m|h)$",
            "x-kubernetes-validations": [{
                "rule": "duration(self) >= duration('10ms') && duration(self) <= duration('600s')",
                "message": "is not between 10ms and 600s: clients give up waiting for a reply after some minutes",
            }],
        })
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Octets".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 24,
            "pattern": "^[0-9]{1,19}(k|M|G|T|Ki|Mi|Gi|Ti)?$",
        })
    }
}

impl JsonSchema for ResourceAmount {
    fn schema_name() -> Cow<'static, str> {
        "ResourceAmount".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An amount, such as 500m or 2 for cpu, 256Mi for memory.",
            "x-kubernetes-int-or-string": true,
            "maxLength": 32,
            "pattern": "^[0-9]+(\\.[0-9]+)?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
        })
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 2,
            "maxLength": 64,
            "pattern": "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$",
        })
    }
}
