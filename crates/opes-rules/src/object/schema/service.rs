//! `CalloutService`.

use super::{
    count, finish, free_form, list, list_map, list_set, name, pattern, range, require, require_of,
    set, text,
};
use schemars::Schema;
use serde_json::json;

/// Most instances of a service.
const INSTANCES_MAX: i64 = 10_000;
const ENDPOINT: &str =
    "self.matches('^(https?|dns)://[^/]+:[0-9]{1,5}/?$') || self.matches('^unix:/.+$')";
const ENDPOINT_SAYS: &str = "is not an endpoint; write http://HOST:PORT, https://HOST:PORT, dns://NAME:PORT or unix:/absolute/path";
const TARGETS: [&str; 4] = ["builtin", "image", "endpoint", "endpoints"];

pub(crate) fn service(schema: &mut Schema) {
    finish(schema);
    require_of(
        schema,
        "class",
        &[(
            "self == oldSelf",
            "class cannot be changed: it decides what rules let the service do; make another CalloutService and move the rules to it one by one",
        )],
    );
    set(schema, "endpoint", text(1, 512));
    require_of(schema, "endpoint", &[(ENDPOINT, ENDPOINT_SAYS)]);
    set(schema, "endpoints", list_set(1, 256));
    set(schema, "endpoints/items", text(1, 512));
    require_of(schema, "endpoints/items", &[(ENDPOINT, ENDPOINT_SAYS)]);
    set(schema, "replicas", range(1, INSTANCES_MAX));
    let one = format!("{} == 1", count(&TARGETS));
    require(
        schema,
        &[
            (
                &one,
                "exactly one of builtin, image, endpoint and endpoints is needed; say where the service is",
            ),
            (
                "!has(self.replicas) || (has(self.pool) && has(self.pool.engine) && self.pool.engine == 'none')",
                "replicas: something else scales this pool; write pool: { engine: none }, or remove replicas and set pool.min",
            ),
            (
                "!(has(self.replicas) || has(self.pod)) || has(self.builtin) || has(self.image)",
                "replicas, pod: there are no pods to be run, as the service has endpoints; remove them, or write builtin or image",
            ),
        ],
    );
}

pub(crate) fn bypass(schema: &mut Schema) {
    finish(schema);
    set(schema, "uri", text(1, 256));
}

pub(crate) fn builtin(schema: &mut Schema) {
    finish(schema);
    set(schema, "name", name());
    require_of(
        schema,
        "name",
        &[(
            "self == oldSelf",
            "builtin.name cannot be changed: it is what the pool runs; make another CalloutService and move the rules to it",
        )],
    );
    free_form(schema, "config");
}

pub(crate) fn image(schema: &mut Schema) {
    finish(schema);
    set(schema, "reference", pattern(512, "^\\S+$"));
    set(schema, "port", range(1, 65_535));
    set(schema, "args", list(64));
    set(schema, "args/items", text(0, 4096));
}

pub(crate) fn pool(schema: &mut Schema) {
    finish(schema);
    set(schema, "min", range(0, INSTANCES_MAX));
    set(schema, "max", range(1, INSTANCES_MAX));
    set(schema, "targetInFlight", range(1, 1_000_000));
    set(schema, "targetCpuPercent", range(0, 1_000));
    set(
        schema,
        "scaleDownAfter",
        json!({ "x-kubernetes-validations": [{
            "rule": "duration(self) <= duration('1h')",
            "message": "is more than 1h, the longest that autoscalers wait",
        }] }),
    );
    require(
        schema,
        &[
            (
                "(has(self.min) ? self.min : 2) <= (has(self.max) ? self.max : 10)",
                "max is less than min (2 if absent); raise max, or lower min",
            ),
            (
                "!has(self.min) || self.min > 0 || (has(self.engine) && self.engine == 'keda')",
                "min: a service without instances fails every message; write 1 or more, or engine: keda, which can scale to zero",
            ),
            (
                "!has(self.pdb) || !has(self.pdb.minAvailable) || self.pdb.minAvailable <= (has(self.max) ? self.max : 10)",
                "pdb.minAvailable is more than max; lower it, or no pod can ever be moved",
            ),
        ],
    );
}

pub(crate) fn disruption_budget(schema: &mut Schema) {
    finish(schema);
    set(schema, "minAvailable", range(0, INSTANCES_MAX));
}

pub(crate) fn transport(schema: &mut Schema) {
    finish(schema);
    set(schema, "serverName", text(1, 253));
    set(schema, "maxTransactionsPerConnection", range(1, 65_536));
    require(
        schema,
        &[(
            "!has(self.serverName) || !has(self.tls) || self.tls != 'none'",
            "serverName: there is no certificate without TLS; leave it out, or write tls: mutual",
        )],
    );
}

pub(crate) fn limits(schema: &mut Schema) {
    finish(schema);
    set(schema, "maxInFlight", range(1, 1_000_000));
    set(schema, "maxQueued", range(0, 1_000_000));
}

// === pods ===

pub(crate) fn pod(schema: &mut Schema) {
    finish(schema);
    for (field, chars) in [("nodeSelector", 63), ("labels", 63), ("annotations", 4096)] {
        set(schema, field, json!({ "maxProperties": 64 }));
        let about = json!({ "description": "The value.", "maxLength": chars });
        set(schema, &format!("{field}/additionalProperties"), about);
    }
    require_of(
        schema,
        "labels",
        &[(
            "self.all(key, !key.startsWith('opes.dev/') && !key.startsWith('app.kubernetes.io/'))",
            "labels of opes.dev and app.kubernetes.io are the operator's; use a prefix of your own",
        )],
    );
    require_of(
        schema,
        "annotations",
        &[(
            "self.all(key, !key.startsWith('opes.dev/'))",
            "annotations of opes.dev are the operator's; use a prefix of your own",
        )],
    );
    set(schema, "priorityClassName", name());
    set(schema, "imagePullSecrets", list_map(8, "name"));
    set(schema, "mounts", list_map(32, "path"));
}

pub(crate) fn resources(schema: &mut Schema) {
    finish(schema);
    for field in ["requests", "limits"] {
        set(schema, field, json!({ "maxProperties": 16 }));
    }
}

pub(crate) fn pull_secret(schema: &mut Schema) {
    finish(schema);
    set(schema, "name", name());
}

pub(crate) fn mount(schema: &mut Schema) {
    finish(schema);
    let sources = ["secret", "configMap", "persistentVolumeClaim"];
    for field in sources {
        set(schema, field, name());
    }
    set(schema, "path", pattern(512, "^/[^:]+$"));
    let one = format!("{} == 1", count(&sources));
    require(
        schema,
        &[
            (
                &one,
                "exactly one of secret, configMap and persistentVolumeClaim is needed; write one entry for each",
            ),
            (
                "!has(self.readOnly) || self.readOnly || has(self.persistentVolumeClaim)",
                "readOnly: a Secret and a ConfigMap cannot be written to; remove it",
            ),
            (
                "!self.path.split('/').exists(part, part == '..')",
                "path must not have `..` in it; write where the files are to be, as /etc/filter",
            ),
        ],
    );
}
