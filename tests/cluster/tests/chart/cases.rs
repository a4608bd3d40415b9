//! The values that the chart is tested with. Together they turn on everything that can be turned on, and off.

use anyhow::Result;

use crate::helm::file;

/// Name and values files, in order.
pub(crate) struct Case {
    /// For messages.
    pub(crate) name: &'static str,
    /// Values, the later ones win.
    pub(crate) values: Vec<String>,
}

impl Case {
    /// As helm's runner takes them.
    pub(crate) fn values(&self) -> Vec<&str> {
        self.values.iter().map(String::as_str).collect()
    }
}

/// One namespace, Roles only.
pub(crate) const SINGLE_NAMESPACE: &str = "
operator: { watch: { namespaces: [mail] } }
";

/// Everything of an edge, with a spool.
pub(crate) const SPOOL: &str = "
edge:
  mode: spool
  replicas: 3
  hostname: mail.example.com
  system: 'https://mail.example.com/opes'
  domains: [example.com, example.org]
  relayNetworks: [192.0.2.0/24, '2001:db8::/32']
  delivery: { nextHop: 'mailstore.example.net:2424', lmtp: true }
  tls: { secretName: mail-tls }
  users: { secretName: mail-users }
  listeners:
    smtp: { proxyFrom: [198.51.100.0/24], options: { sizeMax: 20Mi, dsn: true, mixedVerdicts: rejectAll } }
    submission: { enabled: true, options: { requireTls: true } }
    submissions: { enabled: true }
    lmtp: { enabled: true }
  bounces: { senders: known, postmaster: postmaster@example.com }
  notifications: { administrator: postmaster@example.com, perRecipientPerHour: 6, perRulePerHour: 100 }
  bypass: { identities: ['*'], networks: [192.0.2.7/32] }
  incidents: { webhookUrl: 'https://ids.example.com:8443/mail', tokenSecretName: ids }
  quarantine:
    keep: 14d
    postgres: { url: 'postgres://opes@db.example.net:5433/quarantine', secretName: quarantine-db }
    s3: { endpoint: 'https://s3.example.net', bucket: quarantine, prefix: edge, secretName: quarantine-s3 }
    api: { tokenSecretName: quarantine-api }
  spool: { size: 20Gi, storageClassName: fast, drainOrdinals: [3, 4] }
  service: { type: NodePort }
";

/// cert-manager, a balancer with PROXY.
pub(crate) const CERT_MANAGER: &str = "
certificates: { issuer: certManager, certManager: { issuerRef: { name: mail-ca } } }
edge:
  domains: [example.com]
  delivery: { nextHop: '[2001:db8::25]:25' }
  service: { type: LoadBalancer, externalTrafficPolicy: Cluster, loadBalancerSourceRanges: [192.0.2.0/24] }
  listeners: { smtp: { proxyFrom: [198.51.100.0/24] } }
";

/// Everything that watches.
pub(crate) const MONITORING: &str = "
monitoring:
  serviceMonitor: { enabled: true, labels: { release: prometheus } }
  prometheusRule: { enabled: true, labels: { release: prometheus } }
  dashboards: { enabled: true }
";

/// Images by digest, from one registry.
pub(crate) const DIGESTS: &str = "
global: { imageRegistry: registry.example.com/mail, imagePullSecrets: [{ name: pull }] }
operator: { image: { digest: 'sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' } }
pools: { digests: { security-filter: 'sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc' } }
edge:
  mode: spool
  image: { digest: 'sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb' }
  spool: { drainOrdinals: [2] }
";

/// Nothing that can be left out.
pub(crate) const NOTHING: &str = "
crds: { enabled: false }
test: { enabled: false }
operator:
  metricsApi: { enabled: false }
  serviceAccount: { create: false, name: theirs }
  rbac: { create: false }
  pdb: { enabled: false }
  networkPolicy: { enabled: false }
pools: { networkPolicy: { enabled: false } }
edge:
  serviceAccount: { create: false, name: default }
  pdb: { enabled: false }
  networkPolicy: { enabled: false }
";

/// Other names, labels, places to run, more objects.
pub(crate) const NAMES: &str = "
nameOverride: filter
fullnameOverride: mailfilter
commonLabels: { team: mail }
extraObjects:
  - { apiVersion: v1, kind: ConfigMap, metadata: { name: more, namespace: mail } }
  - |
    apiVersion: v1
    kind: ConfigMap
    metadata: { name: '{{ include \"opes.fullname\" . }}-text', namespace: '{{ .Release.Namespace }}' }
global: { listenAddress: 0.0.0.0 }
tenants: { grants: [{ namespace: one, domains: [example.com, '*.example.com'] }] }
pools:
  nodeSelector: { pool: mail }
  tolerations: [{ key: mail, operator: Exists }]
  priorityClassName: mail
  networkPolicy: { egress: [{ services: [mail/spam-filter], ports: [{ port: 11333, protocol: TCP }] }] }
operator:
  podLabels: { colour: blue }
  podAnnotations: { note: some }
  priorityClassName: mail
  nodeSelector: { pool: mail }
  tolerations: [{ key: mail, operator: Exists }]
  affinity: { nodeAffinity: {} }
  topologySpreadConstraints: [{ maxSkew: 2, topologyKey: rack, whenUnsatisfiable: DoNotSchedule }]
  service: { clusterIP: 10.0.0.53 }
edge:
  podLabels: { colour: blue }
  podAnnotations: { note: some }
  priorityClassName: mail
  nodeSelector: { pool: mail }
  tolerations: [{ key: mail, operator: Exists }]
  affinity: { nodeAffinity: {} }
  topologySpreadConstraints: [{ maxSkew: 2, topologyKey: rack, whenUnsatisfiable: DoNotSchedule }]
  hostAliases: [{ ip: 10.0.0.53, hostnames: [mailfilter-operator.mail.svc] }]
  service: { type: NodePort, annotations: { note: some } }
  listeners: { smtp: { nodePort: 30025 } }
  domains: [example.com]
  delivery: { nextHop: 'mailstore.example.net:25' }
";

/// All of them.
pub(crate) fn all() -> Result<Vec<Case>> {
    let case = |name, values: &[&str]| Case {
        name,
        values: values.iter().map(|&text| text.to_owned()).collect(),
    };
    let high = file("values-ha.yaml")?;
    Ok(vec![
        case("default", &[]),
        case("documented defaults", &[&file("values.yaml")?]),
        case("high availability", &[&high]),
        case(
            "high availability, spool",
            &[
                &high,
                "edge: { mode: spool, autoscaling: { enabled: false } }",
            ],
        ),
        case("single namespace", &[SINGLE_NAMESPACE]),
        case("spool", &[SPOOL]),
        case("certManager", &[CERT_MANAGER]),
        case("monitoring", &[MONITORING]),
        case("digests", &[DIGESTS]),
        case("nothing", &[NOTHING]),
        case("names", &[NAMES]),
    ])
}
