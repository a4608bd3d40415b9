//! The kinds of objects that the operator reads and writes, with where the API server has them.

use kube::api::{ApiResource, GroupVersionKind};

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Ours.
    OpesRule,
    /// Ours.
    CalloutService,
    /// Where the instances of a pool are.
    EndpointSlice,
    /// Without a token.
    ServiceAccount,
    /// Configuration of a built-in service.
    ConfigMap,
    /// Headless.
    Service,
    /// The pool.
    Deployment,
    /// Scales it.
    HorizontalPodAutoscaler,
    /// Keeps it up.
    PodDisruptionBudget,
    /// Says who may call.
    NetworkPolicy,
    /// KEDA's scaler.
    ScaledObject,
    /// KEDA's certificate.
    TriggerAuthentication,
    /// cert-manager's.
    Certificate,
}

/// What the operator makes for a `CalloutService`, in the order in which it is applied: what pods need comes before the pods.
pub const OWNED: [Kind; 10] = [
    Kind::ServiceAccount,
    Kind::ConfigMap,
    Kind::Service,
    Kind::NetworkPolicy,
    Kind::Certificate,
    Kind::Deployment,
    Kind::PodDisruptionBudget,
    Kind::HorizontalPodAutoscaler,
    Kind::TriggerAuthentication,
    Kind::ScaledObject,
];

// === impl Kind ===

impl Kind {
    /// As in `kind:`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpesRule => "OpesRule",
            Self::CalloutService => "CalloutService",
            Self::EndpointSlice => "EndpointSlice",
            Self::ServiceAccount => "ServiceAccount",
            Self::ConfigMap => "ConfigMap",
            Self::Service => "Service",
            Self::Deployment => "Deployment",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ScaledObject => "ScaledObject",
            Self::TriggerAuthentication => "TriggerAuthentication",
            Self::Certificate => "Certificate",
        }
    }

    /// Group, version and plural.
    const fn place(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::OpesRule => ("opes.dev", "v1alpha1", "opesrules"),
            Self::CalloutService => ("opes.dev", "v1alpha1", "calloutservices"),
            Self::EndpointSlice => ("discovery.k8s.io", "v1", "endpointslices"),
            Self::ServiceAccount => ("", "v1", "serviceaccounts"),
            Self::ConfigMap => ("", "v1", "configmaps"),
            Self::Service => ("", "v1", "services"),
            Self::Deployment => ("apps", "v1", "deployments"),
            Self::HorizontalPodAutoscaler => ("autoscaling", "v2", "horizontalpodautoscalers"),
            Self::PodDisruptionBudget => ("policy", "v1", "poddisruptionbudgets"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1", "networkpolicies"),
            Self::ScaledObject => ("keda.sh", "v1alpha1", "scaledobjects"),
            Self::TriggerAuthentication => ("keda.sh", "v1alpha1", "triggerauthentications"),
            Self::Certificate => ("cert-manager.io", "v1", "certificates"),
        }
    }

    /// As in `apiVersion:`.
    pub fn api_version(self) -> String {
        let (group, version, _) = self.place();
        if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        }
    }

    /// What the client has to know.
    pub fn resource(self) -> ApiResource {
        let (group, version, plural) = self.place();
        let gvk = GroupVersionKind::gvk(group, version, self.name());
        ApiResource::from_gvk_with_plural(&gvk, plural)
    }

    /// Does every cluster have it?
    pub const fn is_built_in(self) -> bool {
        !matches!(
            self,
            Self::ScaledObject | Self::TriggerAuthentication | Self::Certificate
        )
    }
}

/// Label that everything has which the operator makes.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value, and the field manager of owned objects.
pub const MANAGER: &str = "opes-operator";
/// Label with the name of the service.
pub const SERVICE_LABEL: &str = "opes.dev/callout-service";
/// Label of an EndpointSlice with the name of its Service.
pub const SLICE_OF: &str = "kubernetes.io/service-name";
