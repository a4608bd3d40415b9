{{/* edge.yaml, as a map. docs/operate/edge-config.md has the keys. */}}
{{- define "opes.edge.config" -}}
{{- $edge := .Values.edge -}}
{{- $spooled := eq $edge.mode "spool" -}}
{{- $config := dict
  "hostname" (default (printf "%s.%s.svc" (include "opes.edge.name" .) .Release.Namespace) $edge.hostname)
  "spool" "/var/spool/opes"
  "spoolDurable" $spooled
  "domains" $edge.domains
  "relayNetworks" $edge.relayNetworks
  "admin" (printf "%s:9090" .Values.global.listenAddress)
  "memoryBudget" $edge.memoryBudget
  "memoryPerMessage" $edge.memoryPerMessage
  "sessionsMax" ($edge.sessionsMax | int)
  "decisionTimeout" $edge.decisionTimeout
  "drainDelay" (printf "%ds" ($edge.drainDelaySeconds | int))
  "drainTimeout" (printf "%ds" ($edge.drainSeconds | int))
-}}
{{- with $edge.system }}{{- $_ := set $config "system" . -}}{{- end -}}
{{- range $key := list "bounces" "notifications" "bypass" -}}
{{- with index $edge $key }}{{- $_ := set $config $key . -}}{{- end -}}
{{- end -}}
{{- $_ := set $config "delivery" (dict "nextHop" (default "no-next-hop.invalid:25" $edge.delivery.nextHop) "lmtp" $edge.delivery.lmtp "connectionsMax" ($edge.delivery.connectionsMax | int)) -}}
{{- $_ := set $config "routing" (dict "operator" (printf "https://%s.%s.svc:9443" (include "opes.operator.name" .) .Release.Namespace)) -}}
{{- $_ := set $config "callouts" (dict "certificate" "/etc/opes/edge-tls/tls.crt" "key" "/etc/opes/edge-tls/tls.key" "ca" "/etc/opes/edge-tls/ca.crt") -}}
{{- $_ := set $config "listeners" (include "opes.edge.listeners" . | fromYamlArray) -}}
{{- with $edge.incidents.webhookUrl -}}
{{- $webhook := dict "url" . -}}
{{- with $edge.incidents.tokenSecretName }}{{- $_ := set $webhook "bearerTokenFile" "/etc/opes/incidents/token" -}}{{- end -}}
{{- $_ := set $config "incidents" (dict "webhook" $webhook) -}}
{{- end -}}
{{- $quarantine := dict "keep" $edge.quarantine.keep -}}
{{- with $edge.quarantine.postgres.url -}}
{{- $postgres := dict "url" . -}}
{{- if $edge.quarantine.postgres.secretName }}{{- $_ := set $postgres "passwordFile" (printf "/etc/opes/quarantine-postgres/%s" $edge.quarantine.postgres.passwordKey) -}}{{- end -}}
{{- $_ := set $quarantine "postgres" $postgres -}}
{{- end -}}
{{- with $edge.quarantine.s3.bucket -}}
{{- $s3 := dict "bucket" . "region" $edge.quarantine.s3.region -}}
{{- with $edge.quarantine.s3.endpoint }}{{- $_ := set $s3 "endpoint" . -}}{{- end -}}
{{- with $edge.quarantine.s3.prefix }}{{- $_ := set $s3 "prefix" . -}}{{- end -}}
{{- with $edge.quarantine.s3.secretName }}{{- $_ := set $s3 "accessKeyIdFile" "/etc/opes/quarantine-s3/access-key-id" -}}{{- $_ := set $s3 "secretAccessKeyFile" "/etc/opes/quarantine-s3/secret-access-key" -}}{{- end -}}
{{- $_ := set $quarantine "s3" $s3 -}}
{{- end -}}
{{- with $edge.quarantine.api.tokenSecretName -}}
{{- $_ := set $quarantine "api" (dict "address" (printf "%s:9091" $.Values.global.listenAddress) "tokenFile" "/etc/opes/quarantine-api/token") -}}
{{- end -}}
{{- $_ := set $config "quarantine" $quarantine -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The ports that edges listen on; those of Services are in the values. */}}
{{- define "opes.edge.ports" -}}
{ smtp: 2525, submission: 2587, submissions: 2465, lmtp: 2424 }
{{- end -}}

{{/* The listeners that are on, as a list. */}}
{{- define "opes.edge.listeners" -}}
{{- $edge := .Values.edge -}}
{{- $ports := include "opes.edge.ports" . | fromYaml -}}
{{- $listeners := list -}}
{{- range $key := list "smtp" "submission" "submissions" "lmtp" -}}
{{- $given := index $edge.listeners $key -}}
{{- if $given.enabled -}}
{{- $listener := dict "name" $given.name "address" (printf "%s:%d" $.Values.global.listenAddress (index $ports $key | int)) "delivery" (eq $edge.mode "spool" | ternary "spool" "cutThrough") -}}
{{- with $given.proxyFrom }}{{- $_ := set $listener "proxyFrom" . -}}{{- end -}}
{{- if has $key (list "submission" "submissions") -}}
{{- $_ := set $listener "protocol" "submission" -}}
{{- $_ := set $listener "users" "/etc/opes/users/users" -}}
{{- if not (and $edge.tls.secretName $edge.users.secretName) }}{{- fail (printf "edge.listeners.%s needs edge.tls.secretName and edge.users.secretName" $key) -}}{{- end -}}
{{- else if eq $key "lmtp" -}}
{{- $_ := set $listener "protocol" "lmtp" -}}
{{- end -}}
{{- if $edge.tls.secretName -}}
{{- $tls := dict "certificate" "/etc/opes/tls/tls.crt" "key" "/etc/opes/tls/tls.key" -}}
{{- if eq $key "submissions" }}{{- $_ := set $tls "implicit" true -}}{{- end -}}
{{- $_ := set $listener "tls" $tls -}}
{{- end -}}
{{- $listeners = append $listeners (merge $listener $given.options) -}}
{{- end -}}
{{- end -}}
{{- if not $listeners }}{{- fail "edge.listeners: none is enabled, so the edges would take no mail; enable one" -}}{{- end -}}
{{- toYaml $listeners -}}
{{- end -}}

{{/* Secrets that are mounted: name of the volume, which is its folder in /etc/opes, and the Secret's. */}}
{{- define "opes.edge.secrets" -}}
{{- $edge := .Values.edge -}}
{{- $secrets := list (dict "name" "edge-tls" "secret" (printf "%s-tls" (include "opes.edge.name" .))) -}}
{{- range $name, $secret := dict "tls" $edge.tls.secretName "users" $edge.users.secretName "incidents" $edge.incidents.tokenSecretName "quarantine-postgres" $edge.quarantine.postgres.secretName "quarantine-s3" $edge.quarantine.s3.secretName "quarantine-api" $edge.quarantine.api.tokenSecretName -}}
{{- if $secret }}{{- $secrets = append $secrets (dict "name" $name "secret" $secret) -}}{{- end -}}
{{- end -}}
{{- toYaml $secrets -}}
{{- end -}}
