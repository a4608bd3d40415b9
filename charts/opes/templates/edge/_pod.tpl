{{/* Mounts of configuration and secrets; the spool's is with it. */}}
{{- define "opes.edge.mounts" -}}
- name: config
  mountPath: /etc/opes/config
  readOnly: true
{{- range include "opes.edge.secrets" . | fromYamlArray }}
- name: {{ .name }}
  mountPath: /etc/opes/{{ .name }}
  readOnly: true
{{- end }}
- name: spool
  mountPath: /var/spool/opes
{{- end -}}

{{- define "opes.edge.volumes" -}}
- name: config
  configMap:
    name: {{ include "opes.edge.name" . }}
{{- range include "opes.edge.secrets" . | fromYamlArray }}
- name: {{ .name }}
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{/* Preparing to stop, hearing of it, then transactions, deliveries and observers, and something to spare. */}}
{{- define "opes.edge.grace" -}}
{{- add (.Values.edge.preStopSeconds | int) (.Values.edge.drainDelaySeconds | int) (mul 3 (.Values.edge.drainSeconds | int)) 15 -}}
{{- end -}}

{{/* What Deployment and StatefulSet have in common: the pod template. */}}
{{- define "opes.edge.template" -}}
{{- $edge := .Values.edge -}}
{{- $ports := include "opes.edge.ports" . | fromYaml -}}
metadata:
  labels:
    {{- include "opes.podLabels" (list . "edge" $edge.podLabels) | nindent 4 }}
  annotations:
    {{- $checksum := dict "checksum/config" (include "opes.edge.config" . | sha256sum) }}
    {{- toYaml (merge $checksum $edge.podAnnotations) | nindent 4 }}
spec:
  serviceAccountName: {{ include "opes.edge.serviceAccount" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    {{- include "opes.podSecurityContext" . | nindent 4 }}
  terminationGracePeriodSeconds: {{ include "opes.edge.grace" . }}
  {{- with $edge.hostAliases }}
  hostAliases:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- include "opes.placement" (list . "edge" $edge (eq $edge.mode "spool" | ternary "controller-revision-hash" "pod-template-hash")) | nindent 2 }}
  containers:
    - name: edge
      image: {{ include "opes.image" (list . $edge.image) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [/usr/bin/opes]
      args: [edge, --config, /etc/opes/config/edge.yaml, --log-format, json, --log, {{ $edge.log | quote }}]
      env:
        - name: POD_NAME
          valueFrom: { fieldRef: { fieldPath: metadata.name } }
        - name: POD_NAMESPACE
          valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
      ports:
        {{- range $key := list "smtp" "submission" "submissions" "lmtp" }}
        {{- if (index $edge.listeners $key).enabled }}
        - name: {{ $key }}
          containerPort: {{ index $ports $key }}
        {{- end }}
        {{- end }}
        - name: admin
          containerPort: 9090
        {{- if $edge.quarantine.api.tokenSecretName }}
        - name: quarantine
          containerPort: 9091
        {{- end }}
      # A spool is read again at the start, and the first table may be a while away: two minutes of patience, once.
      startupProbe:
        httpGet: { path: /healthz, port: admin }
        periodSeconds: 1
        timeoutSeconds: 1
        failureThreshold: 120
      # The process answers at all. A full disk or a lost operator is no reason to restart.
      livenessProbe:
        httpGet: { path: /healthz, port: admin }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      # Mail can be accepted: a table is in force, the spool works, no drain.
      readinessProbe:
        httpGet: { path: /readyz, port: admin }
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      lifecycle:
        preStop:
          sleep:
            seconds: {{ $edge.preStopSeconds | int }}
      resources:
        {{- toYaml $edge.resources | nindent 8 }}
      securityContext:
        {{- include "opes.securityContext" . | nindent 8 }}
      volumeMounts:
        {{- include "opes.edge.mounts" . | nindent 8 }}
  volumes:
    {{- include "opes.edge.volumes" . | nindent 4 }}
    {{- if ne $edge.mode "spool" }}
    - name: spool
      emptyDir:
        sizeLimit: {{ $edge.scratch.sizeLimit }}
    {{- end }}
{{- end -}}

{{/* The pod that delivers what is in the volume of an edge that is gone. Takes (list ROOT ORDINAL). */}}
{{- define "opes.edge.drain" -}}
{{- $root := index . 0 -}}
{{- $edge := $root.Values.edge -}}
metadata:
  labels:
    {{- include "opes.podLabels" (list $root "drain" $edge.podLabels) | nindent 4 }}
spec:
  restartPolicy: OnFailure
  serviceAccountName: {{ include "opes.edge.serviceAccount" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    {{- include "opes.podSecurityContext" $root | nindent 4 }}
  terminationGracePeriodSeconds: {{ include "opes.edge.grace" $root }}
  {{- with $edge.hostAliases }}
  hostAliases:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- include "opes.placement" (list $root "drain" $edge "controller-revision-hash") | nindent 2 }}
  containers:
    - name: drain
      image: {{ include "opes.image" (list $root $edge.image) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: [/usr/bin/opes]
      args: [edge, --config, /etc/opes/config/edge.yaml, --drain, --log-format, json, --log, {{ $edge.log | quote }}]
      resources:
        {{- toYaml $edge.resources | nindent 8 }}
      securityContext:
        {{- include "opes.securityContext" $root | nindent 8 }}
      volumeMounts:
        {{- include "opes.edge.mounts" $root | nindent 8 }}
  volumes:
    {{- include "opes.edge.volumes" $root | nindent 4 }}
    - name: spool
      persistentVolumeClaim:
        claimName: spool-{{ include "opes.edge.name" $root }}-{{ index . 1 }}
{{- end -}}
