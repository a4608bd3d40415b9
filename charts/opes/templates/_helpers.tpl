{{/* Names, labels and images. Everything here is a function of values and release: nothing random, nothing looked up. */}}

{{- define "opes.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters, so that every name made from it stays below 63. */}}
{{- define "opes.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "opes.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "opes.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "opes.operator.name" -}}{{ include "opes.fullname" . }}-operator{{- end -}}
{{/* For what stands outside the release's namespace: two releases of one name, in two namespaces, must not meet. */}}
{{- define "opes.operator.clusterName" -}}
{{- printf "%s-%s" (include "opes.operator.name" .) .Release.Namespace | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- define "opes.edge.name" -}}{{ include "opes.fullname" . }}-edge{{- end -}}

{{- define "opes.operator.serviceAccount" -}}
{{- default (include "opes.operator.name" .) .Values.operator.serviceAccount.name -}}
{{- end -}}
{{- define "opes.edge.serviceAccount" -}}
{{- default (include "opes.edge.name" .) .Values.edge.serviceAccount.name -}}
{{- end -}}

{{/* What pods are selected by: never changes between versions. Takes (list ROOT COMPONENT). */}}
{{- define "opes.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "opes.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Takes (list ROOT COMPONENT). Our own labels win over `commonLabels`. */}}
{{- define "opes.labels" -}}
{{- $root := index . 0 -}}
{{- $ours := include "opes.selectorLabels" . | fromYaml -}}
{{- $more := dict "app.kubernetes.io/managed-by" $root.Release.Service "app.kubernetes.io/part-of" "opes" "app.kubernetes.io/version" $root.Chart.AppVersion "helm.sh/chart" (printf "%s-%s" $root.Chart.Name ($root.Chart.Version | replace "+" "_")) -}}
{{- toYaml (merge $ours $more $root.Values.commonLabels) -}}
{{- end -}}

{{/* Takes (list ROOT COMPONENT POD-LABELS): labels of pods. Without the chart's version, so that only what matters restarts them. */}}
{{- define "opes.podLabels" -}}
{{- $root := index . 0 -}}
{{- $ours := include "opes.selectorLabels" . | fromYaml -}}
{{- toYaml (merge $ours (index . 2) $root.Values.commonLabels) -}}
{{- end -}}

{{/* Takes (list ROOT IMAGE). */}}
{{- define "opes.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := $root.Values.global.imageRegistry | trimSuffix "/" -}}
{{- if $registry }}{{ $registry }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest -}}
@{{ $image.digest }}
{{- else -}}
:{{ default $root.Chart.AppVersion $root.Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "opes.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "opes.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
{{- end -}}

{{/* Where a pod may run, the part that is alike everywhere. Takes (list ROOT COMPONENT SECTION HASH-LABEL). */}}
{{- define "opes.placement" -}}
{{- $root := index . 0 -}}
{{- $section := index . 2 -}}
{{- $labels := include "opes.selectorLabels" (list $root (index . 1)) | fromYaml -}}
{{- $own := list -}}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" -}}
{{- $own = append $own (dict "maxSkew" 1 "topologyKey" $key "whenUnsatisfiable" "ScheduleAnyway" "labelSelector" (dict "matchLabels" $labels) "matchLabelKeys" (list (index $ 3))) -}}
{{- end -}}
{{- if has (index . 1) (list "operator" "edge") -}}
topologySpreadConstraints:
  {{- toYaml (default $own $section.topologySpreadConstraints) | nindent 2 }}
{{- end }}
{{- with $section.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $section.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $section.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $section.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "opes.dns.egress" -}}
- ports:
    - { protocol: UDP, port: 53 }
    - { protocol: TCP, port: 53 }
{{- end -}}

{{/* `443` of `https://host/path`, `5432` of `postgres://host`: takes (list URL DEFAULT). */}}
{{- define "opes.urlPort" -}}
{{- $host := (urlParse (index . 0)).host -}}
{{- $port := regexFind ":[0-9]+$" $host | trimPrefix ":" -}}
{{- default (toString (index . 1)) $port -}}
{{- end -}}
