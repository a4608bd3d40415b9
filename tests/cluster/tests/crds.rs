//! The custom resource definitions on a real API server: what it takes, what it refuses and how it says so, what `kubectl` shows.

mod crds {
    mod emptied;
}

mod control_plane {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use anyhow::{Context as _, Result, bail, ensure};
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::api::{Api, ListParams, Patch, PatchParams};
    use opes_cluster::{Cluster, ControlPlane, DEADLINE, eventually};
    use opes_k8s::{CalloutService, Kind, OpesRule};
    use opes_rules::{Object, Resource};
    use serde_json::{Value, json};

    /// Longest line that fits a terminal of usual width.
    const COLUMNS_MAX: usize = 120;
    const OURS: [&str; 2] = ["opesrules.opes.dev", "calloutservices.opes.dev"];

    pub(crate) async fn plane() -> Result<&'static ControlPlane> {
        let plane = ControlPlane::shared().await?;
        ensure!(plane.apply_crds().await? == 2, "there are two definitions");
        Ok(plane)
    }

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    /// Applies on the server, without effect; what it says if it refuses.
    fn refusal(cluster: &Cluster, namespace: &str, text: &str) -> Option<String> {
        let arguments = [
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
        ];
        let arguments = [&arguments[..], &["-n", namespace, "-f", "-"]].concat();
        let refused = cluster.kubectl_with(&arguments, text).err();
        refused.map(|error| format!("{error:#}"))
    }

    pub(crate) fn apply(cluster: &Cluster, namespace: &str, text: &str) -> Result<String> {
        let arguments = ["apply", "--server-side", "-n", namespace, "-f", "-"];
        cluster.kubectl_with(&arguments, text)
    }

    // === examples ===

    /// Every file and every block of documentation that has objects of ours, with its place.
    fn written() -> Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        for folder in ["examples", "docs", "charts"] {
            collect(&root().join(folder), &mut found)?;
        }
        Ok(found)
    }

    fn collect(folder: &Path, found: &mut Vec<(String, String)>) -> Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.display().to_string();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if path.is_dir() && !path.ends_with("templates") {
                collect(&path, found)?;
            } else if extension == Some("yaml") {
                found.extend(ours(&std::fs::read_to_string(&path)?).map(|text| (name, text)));
            } else if extension == Some("md") {
                let page = std::fs::read_to_string(&path)?;
                let blocks = page.split("```yaml\n").skip(1);
                let blocks = blocks.filter_map(|block| block.split("```").next());
                found.extend(blocks.filter_map(ours).map(|text| (name.clone(), text)));
            }
        }
        Ok(())
    }

    /// The documents of ours in a text; none of others, which may need what is not installed.
    fn ours(text: &str) -> Option<String> {
        let is_ours = |document: &&str| {
            document
                .lines()
                .any(|line| line.starts_with("apiVersion: opes.dev/"))
        };
        let documents: Vec<&str> = text.split("\n---").filter(is_ours).collect();
        (!documents.is_empty()).then(|| documents.join("\n---\n"))
    }

    #[tokio::test]
    async fn every_example_is_taken_as_it_is_and_comes_back_the_same() -> Result<()> {
        let plane = plane().await?;
        let examples = written()?;
        ensure!(examples.len() > 20, "{} examples", examples.len());
        let mut objects = 0;
        for (place, text) in &examples {
            let namespace = plane.namespace("example").await?;
            let (written, found) = opes_rules::parse(place, text);
            ensure!(found.is_empty(), "{found:?}");
            // What names a namespace is moved to ours.
            let mut text = text.clone();
            for object in &written {
                let theirs = format!("namespace: {}", object.metadata().namespace);
                text = text.replace(&theirs, &format!("namespace: {namespace}"));
            }
            if let Some(said) = refusal(plane, &namespace, &text) {
                bail!("{place}: {said}\n{text}");
            }
            apply(plane, &namespace, &text).with_context(|| place.clone())?;
            for object in written {
                let stored = stored(plane, &namespace, &object).await?;
                ensure!(same(&stored, &object), "{place}: {stored:?}");
                objects += 1;
            }
        }
        ensure!(objects > 30, "{objects} objects");
        Ok(())
    }

    async fn stored(cluster: &Cluster, namespace: &str, object: &Object) -> Result<Object> {
        let name = &object.metadata().name;
        let client = cluster.client()?;
        let read = match &object.resource {
            Resource::OpesRule(_) => {
                let api: Api<OpesRule> = Api::namespaced(client, namespace);
                api.get(name).await?.object()
            }
            Resource::CalloutService(_) => {
                let api: Api<CalloutService> = Api::namespaced(client, namespace);
                api.get(name).await?.object()
            }
        };
        read.map_err(|found| anyhow::anyhow!("{found:?}"))
    }

    fn same(a: &Object, b: &Object) -> bool {
        match (&a.resource, &b.resource) {
            (Resource::OpesRule(a), Resource::OpesRule(b)) => a.spec == b.spec,
            (Resource::CalloutService(a), Resource::CalloutService(b)) => a.spec == b.spec,
            _ => false,
        }
    }

    // === refused ===

    #[tokio::test]
    async fn what_is_wrong_is_refused_with_what_to_do_about_it() -> Result<()> {
        let plane = plane().await?;
        let namespace = plane.namespace("refused").await?;
        let mut expected = BTreeSet::new();
        for document in include_str!("crds/refused.yaml").split("---\n").skip(1) {
            let object: Value = serde_saphyr::from_str(document)?;
            let says = object["metadata"]["annotations"]["says"].as_str();
            let says = says.with_context(|| document.to_owned())?;
            let said = refusal(plane, &namespace, document);
            let said = said.with_context(|| format!("this was taken:\n{document}"))?;
            ensure!(said.contains(says), "{says}\n{said}\n{document}");
            expected.insert(says.to_owned());
        }
        // Every rule of the definitions is among them.
        for (_, definition) in opes_k8s::crds()? {
            for (rule, message) in rules(&serde_json::to_value(&definition)?) {
                let tried = expected.iter().any(|says| message.contains(says));
                ensure!(tried || rule.contains("oldSelf"), "not tried: {message}");
            }
        }
        Ok(())
    }

    /// All CEL rules with their messages.
    fn rules(value: &Value) -> Vec<(String, String)> {
        let mut found = Vec::new();
        if let Some(Value::Array(rules)) = value.get("x-kubernetes-validations") {
            let text = |rule: &Value, key: &str| rule[key].as_str().unwrap_or_default().to_owned();
            found.extend(
                rules
                    .iter()
                    .map(|rule| (text(rule, "rule"), text(rule, "message"))),
            );
        }
        match value {
            Value::Object(members) => found.extend(members.values().flat_map(rules)),
            Value::Array(elements) => found.extend(elements.iter().flat_map(rules)),
            _ => {}
        }
        found
    }

    pub(crate) fn service(name: &str, spec: &str) -> String {
        format!(
            "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n"
        )
    }

    pub(crate) fn rule(name: &str, spec: &str) -> String {
        format!(
            "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n"
        )
    }

    #[tokio::test]
    async fn what_cannot_change_does_not() -> Result<()> {
        let plane = plane().await?;
        let namespace = plane.namespace("immutable").await?;
        let before = service("filter", "class: adapt, builtin: { name: normalizer }");
        apply(plane, &namespace, &before)?;
        for (after, says) in [
            (
                before.replace("adapt", "analyze"),
                "class cannot be changed",
            ),
            (
                before.replace("normalizer", "other"),
                "builtin.name cannot be changed",
            ),
        ] {
            let said = refusal(plane, &namespace, &after).context(after)?;
            ensure!(said.contains(says), "{said}");
        }
        let moved = before.replace("builtin: { name: normalizer }", "endpoint: \"unix:/s\"");
        ensure!(refusal(plane, &namespace, &moved).is_none());
        Ok(())
    }

    #[tokio::test]
    async fn what_was_taken_before_a_rule_was_tightened_can_still_be_labelled() -> Result<()> {
        let plane = ControlPlane::start().await?;
        plane.apply_crds().await?;
        let below = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/pool";
        let path = format!("{below}/x-kubernetes-validations");
        let loosen = json!([{ "op": "remove", "path": path }]).to_string();
        let name = OURS[1];
        plane.kubectl(&["patch", "crd", name, "--type=json", "-p", &loosen])?;

        let namespace = plane.namespace("ratchet").await?;
        let image = "image: { reference: registry.example.com/a:1 }";
        let odd = service(
            "odd",
            &format!("class: adapt, {image}, pool: {{ min: 5, max: 2 }}"),
        );
        eventually("the loose definition", DEADLINE, || async {
            Ok(apply(&plane, &namespace, &odd).ok())
        })
        .await?;
        plane.apply_crds().await?;
        let other = odd.replace("name: odd", "name: other");
        eventually("the tight definition", DEADLINE, || async {
            Ok(refusal(&plane, &namespace, &other))
        })
        .await?;
        plane.kubectl(&["label", "-n", &namespace, "csvc", "odd", "team=mail"])?;
        let worse = odd.replace("max: 2", "max: 3");
        let said = refusal(&plane, &namespace, &worse).context("taken")?;
        ensure!(said.contains("max is less than min"), "{said}");
        Ok(())
    }

    // === kubectl ===

    #[tokio::test]
    async fn names_belong_to_us_alone() -> Result<()> {
        let plane = plane().await?;
        let definitions: Api<CustomResourceDefinition> = Api::all(plane.client()?);
        for name in OURS {
            let definition = definitions.get(name).await?;
            let status = definition.status.context("no status")?;
            for kind in ["Established", "NamesAccepted"] {
                let is_true = status
                    .conditions
                    .iter()
                    .flatten()
                    .any(|condition| condition.type_ == kind && condition.status == "True");
                ensure!(is_true, "{name}: {kind}");
            }
            ensure!(status.stored_versions == Some(vec!["v1alpha1".to_owned()]));
        }
        let category = plane.kubectl(&["api-resources", "--categories=opes", "-o", "name"])?;
        ensure!(
            category.lines().collect::<BTreeSet<_>>() == OURS.into(),
            "{category}"
        );
        let all = plane.kubectl(&["api-resources", "--no-headers"])?;
        for name in ["orule", "csvc", "opesrules", "calloutservices", "opes"] {
            let takers = all.lines().filter(|line| {
                let mut words = line.split_whitespace().take(2);
                words.any(|word| word.split(',').any(|taken| taken == name))
            });
            ensure!(
                takers.count() == usize::from(name != "opes"),
                "{name}\n{all}"
            );
        }
        let namespace = plane.namespace("names").await?;
        apply(
            plane,
            &namespace,
            &rule("r", "at: [data], action: { continue: {} }"),
        )?;
        for name in ["orule", "opesrule", "opesrules.opes.dev", "opes"] {
            let shown = plane.kubectl(&["get", "-n", &namespace, name, "-o", "name"])?;
            ensure!(shown.trim() == "opesrule.opes.dev/r", "{name}: {shown}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn every_field_is_explained() -> Result<()> {
        let plane = plane().await?;
        // The API server publishes schemas a moment after it serves what they describe.
        let served = eventually("the schemas", DEADLINE, || async {
            let served = plane.raw("/openapi/v3/apis/opes.dev/v1alpha1").await?;
            let served: Value = serde_json::from_str(&served)?;
            let schemas = &served["components"]["schemas"];
            let is_there = |kind: &str| schemas[format!("dev.opes.v1alpha1.{kind}")].is_object();
            Ok((is_there("OpesRule") && is_there("CalloutService")).then_some(served))
        })
        .await?;
        for kind in ["OpesRule", "CalloutService"] {
            let schema = &served["components"]["schemas"][format!("dev.opes.v1alpha1.{kind}")];
            let mut fields = 0;
            for part in ["spec", "status"] {
                described(part, &schema["properties"][part], &mut fields)?;
            }
            ensure!(fields > 30, "{kind} has {fields} fields");
            plane.kubectl(&["explain", "--recursive", &kind.to_lowercase()])?;
        }
        for (field, says) in [
            ("opesrule.spec.callout.onFailure", "tempfail: A 4xx reply"),
            (
                "opesrule.spec.at",
                "rcptTo: RCPT TO, once for each recipient",
            ),
            ("calloutservice.spec.class", "analyze: Gives a verdict"),
            ("calloutservice.spec.pool.engine", "`hpa` if absent"),
            (
                "opesrule.status.conditions",
                "Programmed (every edge runs it)",
            ),
        ] {
            let shown = plane.kubectl(&["explain", field])?;
            let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
            ensure!(shown.contains(says), "{field}: {shown}");
        }
        Ok(())
    }

    fn described(path: &str, schema: &Value, fields: &mut usize) -> Result<()> {
        *fields += 1;
        let about = schema["description"].as_str().unwrap_or_default();
        ensure!(about.len() > 10, "{path} is not described: {schema}");
        for schema in [schema, &schema["items"]] {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                described(&format!("{path}.{name}"), field, fields)?;
            }
        }
        Ok(())
    }

    fn conditions(types: &[&str]) -> Value {
        let conditions = types.iter().map(|kind| {
            json!({
                "type": kind,
                "status": "Unknown",
                "reason": "BackendNotAccepted",
                "message": "",
                "lastTransitionTime": "2026-01-02T03:04:05Z",
            })
        });
        conditions.collect()
    }

    #[tokio::test]
    async fn columns_fit_a_terminal_and_conditions_can_be_waited_for() -> Result<()> {
        let plane = plane().await?;
        let namespace = plane.namespace("columns").await?;
        let name = "a-name-as-long-as-people-make-them";
        apply(
            plane,
            &namespace,
            &service(
                name,
                "class: observe, endpoint: \"unix:/s\", pool: { engine: keda }",
            ),
        )?;
        let callout = format!(
            "at: [answered, delivered], priority: 100000, callout: {{ serviceRef: {{ name: {name} }} }}"
        );
        apply(plane, &namespace, &rule(name, &callout))?;
        let rules: Api<OpesRule> = Api::namespaced(plane.client()?, &namespace);
        let services: Api<CalloutService> = Api::namespaced(plane.client()?, &namespace);
        let parameters = PatchParams::apply("test").force();
        let status = |kind: &str, status: Value| json!({ "apiVersion": "opes.dev/v1alpha1", "kind": kind, "status": status });
        let of_rules = conditions(&opes_k8s::status::condition::OF_RULES);
        let of_services = conditions(&opes_k8s::status::condition::OF_SERVICES);
        let said = status(
            "OpesRule",
            json!({ "observedGeneration": 1, "conditions": of_rules }),
        );
        rules
            .patch_status(name, &parameters, &Patch::Apply(&said))
            .await?;
        let said = json!({ "replicas": 12, "readyReplicas": 10, "conditions": of_services });
        let said = status("CalloutService", said);
        services
            .patch_status(name, &parameters, &Patch::Apply(&said))
            .await?;

        for (kind, columns) in [
            ("orule", "NAME PRIORITY SERVICE ACCEPTED PROGRAMMED AGE"),
            ("csvc", "NAME CLASS PODS READY-PODS ACCEPTED READY AGE"),
        ] {
            let shown = plane.kubectl(&["get", "-n", &namespace, kind])?;
            let header = shown.lines().next().unwrap_or_default();
            ensure!(
                header.split_whitespace().collect::<Vec<_>>().join(" ") == columns,
                "{shown}"
            );
            ensure!(shown.contains("Unknown"), "{shown}");
            let longest = shown.lines().map(str::len).max().unwrap_or_default();
            ensure!(longest <= COLUMNS_MAX, "{longest}:\n{shown}");
        }
        let wide = plane.kubectl(&["get", "-n", &namespace, "orule", "-o", "wide"])?;
        ensure!(
            wide.contains("BackendNotAccepted") && wide.contains("delivered"),
            "{wide}"
        );

        let selected =
            ListParams::default().fields(&format!("spec.callout.serviceRef.name={name}"));
        ensure!(rules.list(&selected).await?.items.len() == 1);
        let selected = ListParams::default().fields("spec.callout.serviceRef.name=other");
        ensure!(rules.list(&selected).await?.items.is_empty());

        // A second writer of conditions replaces its own by type.
        let mut said = status(
            "OpesRule",
            json!({ "conditions": conditions(&["Programmed"]) }),
        );
        said["status"]["conditions"][0]["status"] = "True".into();
        let other = PatchParams::apply("other").force();
        rules
            .patch_status(name, &other, &Patch::Apply(&said))
            .await?;
        plane.kubectl(&[
            "wait",
            "-n",
            &namespace,
            "--for=condition=Programmed",
            "orule",
            name,
            "--timeout=60s",
        ])?;
        let read = rules.get(name).await?.status.context("no status")?;
        ensure!(read.conditions.len() == 3, "{read:?}");
        Ok(())
    }

    // === scale ===

    #[tokio::test]
    async fn pools_without_an_engine_of_ours_are_scaled_by_kubectl_and_by_an_hpa() -> Result<()> {
        let plane = plane().await?;
        let namespace = plane.namespace("scale").await?;
        let image = "class: adapt, image: { reference: registry.example.com/a:1 }";
        apply(
            plane,
            &namespace,
            &service(
                "own",
                &format!("{image}, pool: {{ engine: none }}, replicas: 1"),
            ),
        )?;
        apply(plane, &namespace, &service("hpa", image))?;
        let services: Api<CalloutService> = Api::namespaced(plane.client()?, &namespace);
        let replicas =
            || async { anyhow::Ok(services.get("own").await?.spec.0["replicas"].clone()) };

        plane.kubectl(&["scale", "-n", &namespace, "csvc/own", "--replicas=2"])?;
        ensure!(replicas().await? == 2);
        for (name, number, says) in [
            ("hpa", 3, "something else scales this pool"),
            ("own", 0, "greater than or equal to 1"),
        ] {
            let target = format!("csvc/{name}");
            let number = format!("--replicas={number}");
            let refused = plane.kubectl(&["scale", "-n", &namespace, &target, &number]);
            let said = format!("{:#}", refused.err().context("scaled")?);
            ensure!(said.contains(says), "{said}");
        }

        let status =
            json!({ "status": { "replicas": 2, "selector": "opes.dev/callout-service=own" } });
        services
            .patch_status("own", &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        let scale = services.get_scale("own").await?;
        let status = scale.status.context("no status")?;
        ensure!(status.replicas == 2);
        ensure!(status.selector.as_deref() == Some("opes.dev/callout-service=own"));

        // Somebody's own HPA. It has no figures here, and raises the pool to its minimum all the same.
        apply(plane, &namespace, include_str!("crds/hpa.yaml"))?;
        eventually("the HPA's minimum", DEADLINE, || async {
            Ok((replicas().await? == 4).then_some(()))
        })
        .await
    }
}
