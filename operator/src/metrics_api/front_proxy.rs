//! Who the API server's front proxy is, as the cluster says it.

use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Where every cluster with an aggregation layer keeps it.
const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
const CA: &str = "requestheader-client-ca-file";
const NAMES: &str = "requestheader-allowed-names";

/// Whom to let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FrontProxy {
    /// Authorities of its certificate, in PEM.
    pub(super) ca: String,
    /// Common names that it may have; empty: any.
    names: Vec<String>,
}

// === impl FrontProxy ===

impl FrontProxy {
    fn read(map: &ConfigMap) -> Result<Self, String> {
        let text = |name: &str| map.data.as_ref().and_then(|data| data.get(name));
        let ca = text(CA).filter(|ca| !ca.trim().is_empty()).ok_or_else(|| {
            format!("{CA} is missing: the API server has to be started with --requestheader-client-ca-file")
        })?;
        let names = match text(NAMES) {
            Some(names) => {
                serde_json::from_str(names).map_err(|error| format!("{NAMES}: {error}"))?
            }
            None => Vec::new(),
        };
        Ok(Self {
            ca: ca.clone(),
            names,
        })
    }

    /// May who shows this certificate, which the handshake has verified, ask?
    pub(super) fn admits(&self, certificate: Option<&CertificateDer<'_>>) -> bool {
        let Some(certificate) = certificate else {
            return false;
        };
        if self.names.is_empty() {
            return true;
        }
        let Ok((_, read)) = X509Certificate::from_der(certificate) else {
            return false;
        };
        // As the API server's own library reads it: the last one counts.
        let name = read.subject().iter_common_name().last();
        let name = name.and_then(|name| name.as_str().ok());
        name.is_some_and(|name| self.names.iter().any(|allowed| allowed == name))
    }
}

/// Until the receivers are gone.
pub(super) async fn follow(client: Client, proxy: watch::Sender<Option<Arc<FrontProxy>>>) {
    let api: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let mut events = std::pin::pin!(watch_object(api, NAME).default_backoff());
    let place = format!("{NAMESPACE}/{NAME}");
    loop {
        let event = tokio::select! {
            () = proxy.closed() => return,
            event = events.next() => event,
        };
        match event.map(|event| event.map(|map| map.as_ref().map(FrontProxy::read))) {
            Some(Ok(Some(Ok(fresh)))) => {
                proxy.send_if_modified(|current| {
                    let differs = current.as_deref() != Some(&fresh);
                    if differs {
                        *current = Some(Arc::new(fresh));
                    }
                    differs
                });
            }
            Some(Ok(Some(Err(error)))) => {
                tracing::error!(%error, config_map = %place, "who may ask for metrics is not known; the last known may");
            }
            Some(Ok(None)) => tracing::error!(
                config_map = %place,
                "who may ask for metrics is not known: the cluster has no aggregation layer"
            ),
            Some(Err(error)) => tracing::warn!(
                %error, config_map = %place,
                "who may ask for metrics cannot be read; is there a RoleBinding to extension-apiserver-authentication-reader?"
            ),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn map(entries: &[(&str, &str)]) -> ConfigMap {
        let entry = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        ConfigMap {
            data: Some(entries.iter().map(entry).collect()),
            ..ConfigMap::default()
        }
    }

    fn named(name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn only_the_names_of_the_front_proxy_are_admitted() {
        let proxy = FrontProxy::read(&map(&[(CA, "PEM"), (NAMES, r#"["front-proxy-client"]"#)]));
        let proxy = proxy.unwrap();
        assert!(proxy.admits(Some(&named("front-proxy-client"))));
        assert!(!proxy.admits(Some(&named("kubelet"))));
        assert!(!proxy.admits(None));
        let any = FrontProxy::read(&map(&[(CA, "PEM"), (NAMES, "[]")])).unwrap();
        assert!(any.admits(Some(&named("kubelet"))));
        assert!(!any.admits(None));
    }

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let error = FrontProxy::read(&map(&[])).unwrap_err();
        assert!(error.contains("--requestheader-client-ca-file"), "{error}");
        let error = FrontProxy::read(&map(&[(CA, "PEM"), (NAMES, "x")])).unwrap_err();
        assert!(error.starts_with(NAMES), "{error}");
    }
}
