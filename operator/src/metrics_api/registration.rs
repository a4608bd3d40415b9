//! The `APIService` that makes the API server ask us: made and kept by the replica that leads, and never taken from somebody else.

use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceSpec, ServiceReference,
};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, Resource as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::answers::{GROUP, VERSION};
use super::metrics::Metrics;
use super::{MetricsApiConfig, PORT};
use crate::certificates::OwnCertificates;
use crate::shared::Leading;

const MANAGER: &str = "opes-operator";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Where other providers of this API put themselves.
const PRIORITY: i32 = 100;
/// After a write that failed; doubled each time, up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(5);

/// Whose `external.metrics.k8s.io` is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nobody's, or not known yet.
    #[default]
    Unknown,
    /// Ours: HPAs can scale our pools.
    Ours,
    /// Another provider's, by what its registration points at: HPAs cannot; KEDA can.
    Foreign(String),
}

/// Keeps the registration as it should be, for ever.
pub(super) async fn keep(
    client: Client,
    config: MetricsApiConfig,
    mut own: OwnCertificates,
    mut leading: Leading,
    standing: watch::Sender<Standing>,
    metrics: Metrics,
) {
    let api: Api<APIService> = Api::all(client.clone());
    let name = name();
    let mut events = std::pin::pin!(watch_object(api.clone(), &name).default_backoff());
    let mut current: Option<Option<APIService>> = None;
    let (mut retry, mut wait) = (RETRY_MIN, RETRY_MAX);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(object)) => current = Some(object),
                Some(Err(error)) => tracing::warn!(%error, %name, "the APIService cannot be watched"),
                None => return,
            },
            Ok(()) = own.changed() => {}
            Ok(()) = leading.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
        wait = RETRY_MAX;
        let Some(found) = &current else { continue };
        tell(&stands(found.as_ref(), &config), &standing, &metrics);
        let bundle = own.borrow_and_update().clone();
        let Some(bundle) = bundle.filter(|_| *leading.borrow_and_update()) else {
            continue;
        };
        match put_right(&client, &api, found.as_ref(), &config, &bundle.ca).await {
            Ok(()) => retry = RETRY_MIN,
            Err(error) => {
                tracing::error!(%error, %name, "the metrics API is not registered; it is tried again");
                wait = retry;
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

/// Takes our registration away, once this replica leads; somebody else's stays. For a metrics API that is switched off.
pub async fn remove(
    client: Client,
    config: MetricsApiConfig,
    mut leading: Leading,
    shutdown: CancellationToken,
) {
    let api: Api<APIService> = Api::all(client);
    let mut retry = RETRY_MIN;
    loop {
        let led = tokio::select! {
            () = shutdown.cancelled() => return,
            led = leading.wait_for(|leads| *leads) => led.is_ok(),
        };
        if !led {
            return;
        }
        match take_away(&api, &config).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(%error, "our APIService of an earlier configuration is not taken away");
            }
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(RETRY_MAX);
    }
}

async fn take_away(api: &Api<APIService>, config: &MetricsApiConfig) -> kube::Result<()> {
    let found = match api.get_opt(&name()).await {
        // In one namespace there are no rights for that, and never were.
        Err(kube::Error::Api(status)) if status.code == 403 => return Ok(()),
        found => found?,
    };
    let Some(found) = found.filter(|found| is_ours(found, config)) else {
        return Ok(());
    };
    let only_this = DeleteParams::default().preconditions(Preconditions {
        uid: found.metadata.uid,
        resource_version: None,
    });
    match api.delete(&name(), &only_this).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        deleted => deleted.map(|_| tracing::info!("our APIService is taken away")),
    }
}

fn name() -> String {
    format!("{VERSION}.{GROUP}")
}

fn stands(found: Option<&APIService>, config: &MetricsApiConfig) -> Standing {
    match found {
        None => Standing::Unknown,
        Some(found) if is_ours(found, config) => Standing::Ours,
        Some(found) => {
            let service = found.spec.as_ref().and_then(|spec| spec.service.as_ref());
            let part = |part: Option<&String>| part.cloned().unwrap_or_default();
            let place = service.map(|service| {
                format!(
                    "{}/{}",
                    part(service.namespace.as_ref()),
                    part(service.name.as_ref())
                )
            });
            Standing::Foreign(place.unwrap_or_else(|| "the API server itself".to_owned()))
        }
    }
}

/// It points at our Service. Labels can be copied; this cannot be meant otherwise.
fn is_ours(found: &APIService, config: &MetricsApiConfig) -> bool {
    let service = found.spec.as_ref().and_then(|spec| spec.service.as_ref());
    service.is_some_and(|service| {
        service.namespace.as_ref() == Some(&config.namespace)
            && service.name.as_ref() == Some(&config.service)
    })
}

fn tell(now: &Standing, standing: &watch::Sender<Standing>, metrics: &Metrics) {
    metrics.registered.set((*now == Standing::Ours).into());
    standing.send_if_modified(|before| {
        if before == now {
            return false;
        }
        match now {
            Standing::Foreign(provider) => tracing::warn!(
                %provider,
                "external.metrics.k8s.io has another provider: HPAs cannot scale pools by transactions in flight; use pool.engine: keda, or CPU"
            ),
            Standing::Ours => tracing::info!("external.metrics.k8s.io is ours"),
            Standing::Unknown => {}
        }
        *before = now.clone();
        true
    });
}

async fn put_right(
    client: &Client,
    api: &Api<APIService>,
    found: Option<&APIService>,
    config: &MetricsApiConfig,
    bundle: &str,
) -> kube::Result<()> {
    if found.is_some_and(|found| !is_ours(found, config) || is_right(found, config, bundle)) {
        return Ok(());
    }
    let owner = owner(client, config).await?;
    let wanted = wanted(config, bundle, owner);
    if found.is_some() {
        let apply = PatchParams::apply(MANAGER).force();
        api.patch(&name(), &apply, &Patch::Apply(&wanted)).await?;
        tracing::info!("the APIService is brought up to date");
        return Ok(());
    }
    // Not applied, created: who else registers in this moment is not overwritten.
    let params = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    match api.create(&params, &wanted).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        created => created.map(|_| ()),
    }
}

fn is_right(found: &APIService, config: &MetricsApiConfig, bundle: &str) -> bool {
    let Some(spec) = &found.spec else {
        return false;
    };
    let port = spec.service.as_ref().and_then(|service| service.port);
    spec.ca_bundle
        .as_ref()
        .is_some_and(|ca| ca.0 == bundle.as_bytes())
        && port.unwrap_or(PORT.into()) == i32::from(config.port)
        && spec.insecure_skip_tls_verify != Some(true)
}

/// Our ClusterRole, which the cluster collects our registration with.
async fn owner(client: &Client, config: &MetricsApiConfig) -> kube::Result<Option<OwnerReference>> {
    let Some(name) = &config.cluster_role else {
        return Ok(None);
    };
    let role = Api::<ClusterRole>::all(client.clone())
        .get_opt(name)
        .await?;
    if role.is_none() {
        tracing::warn!(cluster_role = %name, "metricsApi.clusterRole: there is no such ClusterRole; the APIService stays when OPES is uninstalled");
    }
    Ok(role.and_then(|role| role.owner_ref(&())))
}

fn wanted(config: &MetricsApiConfig, bundle: &str, owner: Option<OwnerReference>) -> APIService {
    let label = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let labels = [("app.kubernetes.io/name", MANAGER), (MANAGED_BY, MANAGER)];
    APIService {
        metadata: ObjectMeta {
            name: Some(name()),
            labels: Some(labels.into_iter().map(label).collect()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(APIServiceSpec {
            ca_bundle: Some(ByteString(bundle.as_bytes().to_vec())),
            group: Some(GROUP.to_owned()),
            group_priority_minimum: PRIORITY,
            insecure_skip_tls_verify: None,
            service: Some(ServiceReference {
                name: Some(config.service.clone()),
                namespace: Some(config.namespace.clone()),
                port: Some(config.port.into()),
            }),
            version: Some(VERSION.to_owned()),
            version_priority: PRIORITY,
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(namespace: &str) -> MetricsApiConfig {
        MetricsApiConfig {
            namespace: namespace.into(),
            service: "opes-operator".into(),
            port: PORT,
            cluster_role: None,
        }
    }

    #[test]
    fn ours_is_what_points_at_our_service() {
        let ours = wanted(&config("opes"), "PEM", None);
        assert_eq!(stands(Some(&ours), &config("opes")), Standing::Ours);
        let elsewhere = stands(Some(&ours), &config("other"));
        assert_eq!(elsewhere, Standing::Foreign("opes/opes-operator".into()));
        assert_eq!(stands(None, &config("opes")), Standing::Unknown);
        let mut local = ours.clone();
        local.spec = None;
        let Standing::Foreign(provider) = stands(Some(&local), &config("opes")) else {
            panic!("not foreign");
        };
        assert_eq!(provider, "the API server itself");
    }

    #[test]
    fn what_is_right_is_not_written() {
        let mut found = wanted(&config("opes"), "PEM", None);
        assert!(is_right(&found, &config("opes"), "PEM"));
        assert!(!is_right(&found, &config("opes"), "PEM of a rotation"));
        found.spec.as_mut().unwrap().insecure_skip_tls_verify = Some(true);
        assert!(!is_right(&found, &config("opes"), "PEM"));
    }
}
