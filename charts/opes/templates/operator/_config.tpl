{{/* operator.yaml, as a map. docs/operate/operator-config.md has the keys. */}}
{{- define "opes.operator.config" -}}
{{- $listen := .Values.global.listenAddress -}}
{{- $pools := .Values.pools -}}
{{- $images := dict "registry" .Values.global.imageRegistry "tag" (default .Chart.AppVersion .Values.image.tag) "digests" $pools.digests "pullPolicy" .Values.image.pullPolicy -}}
{{- $secrets := list -}}
{{- range .Values.global.imagePullSecrets }}{{- $secrets = append $secrets .name -}}{{- end -}}
{{- $_ := set $images "pullSecrets" $secrets -}}
{{- $certificates := dict "issuer" .Values.certificates.issuer "authoritySecret" (printf "%s-ca" (include "opes.fullname" .)) "folder" "/etc/opes/tls" "lifetime" .Values.certificates.lifetime "authorityLifetime" .Values.certificates.authorityLifetime -}}
{{- if eq .Values.certificates.issuer "certManager" -}}
{{- $_ := set $certificates "issuerRef" .Values.certificates.certManager.issuerRef -}}
{{- end -}}
{{- $pods := dict "listen" $listen "resources" $pools.resources "nodeSelector" $pools.nodeSelector "tolerations" $pools.tolerations "terminationGrace" $pools.terminationGrace -}}
{{- with $pools.priorityClassName }}{{- $_ := set $pods "priorityClass" . -}}{{- end -}}
{{- $metrics := and .Values.operator.metricsApi.enabled (not .Values.operator.watch.namespaces) -}}
{{- $metricsApi := dict "listen" (printf "%s:9444" $listen) "enabled" ($metrics | ternary "auto" "off") -}}
{{- if $metrics }}{{- $_ := set $metricsApi "clusterRole" (include "opes.operator.clusterName" .) -}}{{- end -}}
{{- $config := dict
  "watch" (dict "namespaces" (.Values.operator.watch.namespaces | sortAlpha | uniq))
  "service" (include "opes.operator.name" .)
  "images" $images
  "routing" (dict "listen" (printf "%s:9443" $listen))
  "metricsApi" $metricsApi
  "admin" (dict "listen" (printf "%s:9090" $listen))
  "certificates" $certificates
  "edge" (dict "secret" (printf "%s-tls" (include "opes.edge.name" .)) "podLabels" (include "opes.selectorLabels" (list . "edge") | fromYaml))
  "tenants" .Values.tenants.grants
  "pods" $pods
  "networkPolicy" (dict "enabled" $pools.networkPolicy.enabled "egress" $pools.networkPolicy.egress)
-}}
{{- toYaml $config -}}
{{- end -}}
