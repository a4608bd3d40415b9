//! An object that an applied document empties: `{}` stays `{}`.

mod control_plane {
    use anyhow::{Context as _, Result, ensure};
    use kube::api::{Api, Patch, PatchParams};
    use opes_k8s::OpesRule;
    use serde_json::json;

    use crate::control_plane::{apply, plane, rule, service};

    /// API servers make `null` of an object that applying empties, unless it is replaced as a whole.
    #[tokio::test]
    async fn what_is_emptied_is_empty_and_not_null() -> Result<()> {
        let plane = plane().await?;
        let namespace = plane.namespace("emptied").await?;
        let action =
            |action: &str| rule("emptied", &format!("at: [rcptTo], action: {{ {action} }}"));
        for (kind, field, full, empty) in [
            (
                "calloutservice",
                "spec.builtin.config",
                service(
                    "emptied",
                    "class: adapt, builtin: { name: normalizer, config: { domain: example.com } }",
                ),
                service(
                    "emptied",
                    "class: adapt, builtin: { name: normalizer, config: {} }",
                ),
            ),
            (
                "opesrule",
                "spec.action.reject",
                action("reject: { text: sorry }"),
                action("reject: {}"),
            ),
        ] {
            apply(plane, &namespace, &full)?;
            apply(plane, &namespace, &empty).with_context(|| field.to_owned())?;
            let path = format!("jsonpath={{.{field}}}");
            let said = plane.kubectl(&["get", kind, "emptied", "-n", &namespace, "-o", &path])?;
            ensure!(said == "{}", "{field}: {said}");
        }
        // What the operator keeps of a rule, it gets back.
        let api: Api<OpesRule> = Api::namespaced(plane.client()?, &namespace);
        for action in [
            json!({ "reject": { "text": "sorry" } }),
            json!({ "reject": {} }),
        ] {
            let kept = json!({ "at": ["rcptTo"], "action": action });
            let document = json!({
                "apiVersion": "opes.dev/v1alpha1",
                "kind": "OpesRule",
                "status": { "lastAccepted": { "generation": 1, "spec": kept } },
            });
            let parameters = PatchParams::apply("operator").force();
            let patched = api
                .patch_status("emptied", &parameters, &Patch::Apply(&document))
                .await?;
            let accepted = patched.status.and_then(|status| status.last_accepted);
            ensure!(
                accepted.as_ref().is_some_and(|it| it.spec == kept),
                "{accepted:?}"
            );
        }
        Ok(())
    }
}
