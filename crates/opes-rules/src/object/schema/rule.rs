//! `OpesRule`.

use super::{
    count, finish, free_form, list_set, name, pattern, range, require, require_of, set, text, whole,
};
use schemars::Schema;
use serde_json::{Map, Value, json};

/// Most values in one list of `match`, as the compiler has it.
const VALUES_MAX: u32 = 10_000;

pub(crate) fn rule(schema: &mut Schema) {
    finish(schema);
    set(schema, "at", list_set(1, 13));
    set(
        schema,
        "priority",
        range(i64::from(i32::MIN), i64::from(i32::MAX)),
    );
    require(
        schema,
        &[
            (
                "has(self.callout) != has(self.action)",
                "exactly one of callout and action is needed: write two rules, or say what the rule does",
            ),
            (
                "!has(self.action) || !self.at.exists(p, p in ['answered', 'delivered', 'deferred', 'bounced'])",
                "at: no action can be done at answered, delivered, deferred and bounced: the message is settled; call an observer there",
            ),
            (
                "!has(self.action) || !has(self.action.reject) || !('routing' in self.at)",
                "at: reject cannot be done at routing: the message has been accepted; move it to content",
            ),
            (
                "!has(self.action) || !(has(self.action.discard) || has(self.action.quarantine) || has(self.action.addHeader) || has(self.action.markSubject)) || self.at.all(p, p in ['content', 'routing'])",
                "at: discard, quarantine, addHeader and markSubject can be done at content and routing; move the rule there",
            ),
            (
                "!has(self.action) || !has(self.action.route) || self.at.all(p, p in ['rcptTo', 'content', 'routing'])",
                "at: route can be done at rcptTo, content and routing; move the rule there",
            ),
            (
                "!has(self.callout) || !has(self.callout.onFailure) || self.callout.onFailure != 'quarantine' || self.at.all(p, p in ['content', 'routing'])",
                "callout.onFailure: quarantine is possible at content and routing; use tempfail: the message is tried again later",
            ),
            (
                "!has(self.callout) || !has(self.callout.onFailure) || self.callout.onFailure != 'reject' || !('routing' in self.at)",
                "callout.onFailure: reject is not possible at routing; use tempfail: the message is tried again later",
            ),
        ],
    );
}

pub(crate) fn matching(schema: &mut Schema) {
    finish(schema);
    for (field, chars) in [
        ("listener", 253),
        ("senderDomains", 255),
        ("recipientDomains", 255),
    ] {
        set(schema, field, list_set(1, VALUES_MAX));
        set(schema, &format!("{field}/items"), text(1, chars));
    }
    set(schema, "clientNetworks", list_set(1, VALUES_MAX));
    set(schema, "cel", text(1, 4096));
}

pub(crate) fn callout(schema: &mut Schema) {
    finish(schema);
    set(schema, "allow", list_set(0, 13));
    free_form(schema, "parameters");
}

pub(crate) fn service_ref(schema: &mut Schema) {
    finish(schema);
    set(schema, "name", name());
}

pub(crate) fn wants(schema: &mut Schema) {
    finish(schema);
    require(
        schema,
        &[(
            "has(self.prefix) == (has(self.content) && self.content == 'prefix')",
            "prefix is needed with content: prefix, and used with nothing else; write wants: { content: prefix, prefix: 64Ki }",
        )],
    );
}

/// A choice between objects: one field for each, of which exactly one is there.
pub(crate) fn action(schema: &mut Schema) {
    let Some(members) = schema.as_object_mut() else {
        return;
    };
    let variants = members.remove("oneOf");
    let mut fields = Map::new();
    for variant in variants
        .as_ref()
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        for (name, field) in variant
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let mut field: Schema = field.clone().try_into().unwrap_or_default();
            finish(&mut field);
            if let Some(about) = variant.get("description") {
                field.insert("description".into(), about.clone());
            }
            fields.insert(name.clone(), field.to_value());
        }
    }
    let names: Vec<String> = fields.keys().cloned().collect();
    members.insert("properties".into(), fields.into());
    finish(schema);
    for name in &names {
        set(schema, name, whole());
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let one = format!("{} == 1", count(&names));
    let message = format!(
        "exactly one action is needed; write one of {}",
        names.join(", ")
    );
    require(schema, &[(&one, &message)]);
    action_fields(schema);
}

fn action_fields(schema: &mut Schema) {
    let codes = |class: u32| {
        format!("!has(self.code) || (self.code >= {class}00 && self.code <= {class}59)")
    };
    let enhanced =
        |class: u32| format!("!has(self.enhanced) || self.enhanced.startsWith('{class}.')");
    for (field, class, other) in [("reject", 5, "tempfail"), ("tempfail", 4, "reject")] {
        let code = format!(
            "code is not a reply code from {class}00 to {class}59; for the others use {other}"
        );
        let status = format!("enhanced does not start with {class}; write {class}.7.1");
        let rules = [
            (codes(class), code.as_str()),
            (enhanced(class), status.as_str()),
        ];
        let rules = rules
            .each_ref()
            .map(|(rule, message)| (rule.as_str(), *message));
        require_of(schema, field, &rules);
    }
    require_of(
        schema,
        "discard",
        &[(
            "has(self.acknowledgeLoss) && self.acknowledgeLoss",
            "the message would be lost and nobody told; write discard: { acknowledgeLoss: true }",
        )],
    );
    set(schema, "quarantine/properties/reason", text(1, 500));
    set(
        schema,
        "addHeader/properties/name",
        pattern(76, "^[!-9;-~]+$"),
    );
    set(
        schema,
        "addHeader/properties/value",
        pattern(998, "^[\\t -~]+$"),
    );
    set(schema, "markSubject/properties/text", text(1, 100));
    set(schema, "route/properties/host", text(1, 253));
    set(schema, "route/properties/port", range(1, 65_535));
}

pub(crate) fn reply(schema: &mut Schema) {
    finish(schema);
    set(schema, "code", range(400, 559));
    set(
        schema,
        "enhanced",
        pattern(9, "^[45]\\.[0-9]{1,3}\\.[0-9]{1,3}$"),
    );
    set(schema, "text", pattern(450, "^[ -~]+$"));
}

pub(crate) fn rollout(schema: &mut Schema) {
    finish(schema);
    set(schema, "percent", json!({ "minimum": 0, "maximum": 100 }));
}
