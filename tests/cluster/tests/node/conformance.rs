//! The conformance kit, in a pod beside a service.

use anyhow::{Result, ensure};

use super::world::World;

/// The service is a sidecar that has to be ready first; the pod has succeeded when the kit has found nothing.
const POD: &str = "apiVersion: v1
kind: Pod
metadata: { name: conform }
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: { runAsNonRoot: true, seccompProfile: { type: RuntimeDefault } }
  initContainers:
    - name: service
      image: registry.example.com/opes/opes-security-filter:0.1.0
      imagePullPolicy: Never
      restartPolicy: Always
      args: [--listen, '127.0.0.1:4037', --admin, '0.0.0.0:9090']
      startupProbe: { httpGet: { path: /readyz, port: 9090 }, periodSeconds: 1, failureThreshold: 60 }
      securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
  containers:
    - name: conform
      image: registry.example.com/opes/opes-edge:0.1.0
      imagePullPolicy: Never
      command: [/usr/bin/opes]
      args: [conform, '127.0.0.1:4037', --patience, '20']
      securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
";

/// Checklist 40: what `opes conform` finds on a machine of ours it finds in a pod: nothing.
pub(crate) async fn a_service_in_a_pod_passes_the_conformance_kit(world: &World<'_>) -> Result<()> {
    world.apply(POD)?;
    let phase = world
        .eventually("the kit has ended", |world| {
            let pod = world.get(&["pod/conform"])?;
            let phase = pod["status"]["phase"].as_str().unwrap_or_default();
            Ok(["Succeeded", "Failed"]
                .contains(&phase)
                .then(|| phase.to_owned()))
        })
        .await?;
    let report = world.kubectl(&["logs", "conform", "--container", "conform"])?;
    let last = report.lines().last().unwrap_or_default();
    ensure!(
        phase == "Succeeded" && last.contains(" 0 failed"),
        "{phase}:\n{report}"
    );
    println!("{last}");
    world.kubectl(&["delete", "pod", "conform", "--wait=false"])?;
    Ok(())
}
