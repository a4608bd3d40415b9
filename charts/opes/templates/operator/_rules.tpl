{{/* What the operator may do in each namespace whose rules and services count. Verbs that it does not use are not there. */}}
{{- define "opes.operator.rules" -}}
# What people write.
- apiGroups: [opes.dev]
  resources: [opesrules, calloutservices]
  verbs: [list, watch]
# What became of it.
- apiGroups: [opes.dev]
  resources: [opesrules/status, calloutservices/status]
  verbs: [patch]
# Where instances are.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
# Pools.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [keda.sh]
  resources: [scaledobjects, triggerauthentications]
  verbs: [get, list, watch, create, patch, delete]
{{- if eq .Values.certificates.issuer "certManager" }}
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [get, list, watch, create, patch, delete]
{{- else }}
# Certificates of pools: written, never read.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, patch]
{{- end }}
# What happened.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}
