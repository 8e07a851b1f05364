{{/*
Templates for the pods of another chart. Each takes the settings of values.yaml, for one Secret. README.md has an example.
*/}}

{{/* An init container that writes the plaintext once for each start of a pod. */}}
{{- define "datakey-unwrap.initContainer" -}}
{{- include "datakey-unwrap._container" (dict "settings" . "command" "file") }}
{{- end }}

{{/* A sidecar that also writes it again after a rotation: an item of initContainers, which Kubernetes lets run beside the others. */}}
{{- define "datakey-unwrap.sidecar" -}}
{{- include "datakey-unwrap._container" (dict "settings" . "command" "watch") }}
{{- end }}

{{/* The volumes of the pod. */}}
{{- define "datakey-unwrap.volumes" -}}
{{- $settings := include "datakey-unwrap._settings" . | fromYaml -}}
- name: {{ include "datakey-unwrap._name" (list "wrapped" $settings) }}
  secret:
    secretName: {{ $settings.secretName | toJson }}
{{- if $settings.roleArn }}
- name: {{ include "datakey-unwrap._name" (list "token" $settings) }}
  projected:
    sources:
    - serviceAccountToken:
        path: token
        audience: sts.amazonaws.com
        expirationSeconds: 3600
{{- end }}
- name: {{ include "datakey-unwrap._name" (list "plaintext" $settings) }}
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end }}

{{/* The mount of a container that gets the plaintext. */}}
{{- define "datakey-unwrap.volumeMount" -}}
{{- $settings := include "datakey-unwrap._settings" . | fromYaml -}}
- name: {{ include "datakey-unwrap._name" (list "plaintext" $settings) }}
  mountPath: {{ $settings.mountPath }}
  readOnly: true
{{- end }}

{{- define "datakey-unwrap._container" -}}
{{- $settings := include "datakey-unwrap._settings" .settings | fromYaml -}}
- name: {{ include "datakey-unwrap._name" (list "unwrap" $settings) }}
  image: {{ $settings.image | toJson }}
  {{- with $settings.imagePullPolicy }}
  imagePullPolicy: {{ . }}
  {{- end }}
  {{- if eq .command "watch" }}
  restartPolicy: Always
  {{- end }}
  args:
  - {{ .command }}
  - --from=/keys
  {{- range $settings.trust }}
  - {{ include "datakey-unwrap._trust" . }}
  {{- end }}
  {{- with $settings.keySpec }}
  - --key-spec={{ . }}
  {{- end }}
  {{- with $settings.numberOfBytes }}
  - --number-of-bytes={{ int . }}
  {{- end }}
  {{- with $settings.keyPairSpec }}
  - --key-pair-spec={{ . }}
  {{- end }}
  {{- with $settings.versions }}
  - --versions={{ . }}
  {{- end }}
  {{- with $settings.minVersion }}
  - --min-version={{ int . }}
  {{- end }}
  {{- with $settings.format }}
  - --format={{ . }}
  {{- end }}
  {{- with $settings.region }}
  - --region={{ . }}
  {{- end }}
  - --to={{ $settings.mountPath }}
  - --mode={{ $settings.mode }}
  {{- with $settings.roleArn }}
  env:
  - name: AWS_ROLE_ARN
    value: {{ . | toJson }}
  - name: AWS_WEB_IDENTITY_TOKEN_FILE
    value: /aws-token/token
  {{- end }}
  {{- if eq .command "watch" }}
  startupProbe:
    exec:
      command:
      - /datakey-unwrap
      - ready
      - --to={{ $settings.mountPath }}
    periodSeconds: 1
    failureThreshold: 120
  {{- end }}
  {{- with $settings.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    {{- with $settings.runAsUser }}
    runAsUser: {{ int64 . }}
    {{- end }}
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop:
      - ALL
    seccompProfile:
      type: RuntimeDefault
  volumeMounts:
  - name: {{ include "datakey-unwrap._name" (list "wrapped" $settings) }}
    mountPath: /keys
    readOnly: true
  {{- if $settings.roleArn }}
  - name: {{ include "datakey-unwrap._name" (list "token" $settings) }}
    mountPath: /aws-token
    readOnly: true
  {{- end }}
  - name: {{ include "datakey-unwrap._name" (list "plaintext" $settings) }}
    mountPath: {{ $settings.mountPath }}
{{- end }}

{{/* A KMS key and its encryption context, as the AWS CLI takes it; JSON where that would be ambiguous. Kubernetes expands $(NAME). */}}
{{- define "datakey-unwrap._trust" -}}
{{- $pairs := list }}
{{- $plain := true }}
{{- range $key, $value := .encryptionContext }}
{{- $pairs = append $pairs (printf "%s=%s" $key $value) }}
{{- $plain = and $plain (regexMatch "^[A-Za-z0-9._:/-]+$" $key) (regexMatch "^[A-Za-z0-9._:/-]+$" $value) }}
{{- end }}
{{- $context := "none" }}
{{- if $pairs }}
{{- $context = ternary (join "," $pairs) (toJson .encryptionContext) $plain }}
{{- end }}
{{- printf "--trust=%s %s" .keyArn $context | replace "$" "$$" | toJson }}
{{- end }}

{{/* The name of a container or volume: of one Secret, so that a pod can have several, and at most 63 characters, without dots. */}}
{{- define "datakey-unwrap._name" -}}
{{- $secret := (last .).secretName }}
{{- $plain := replace "." "-" $secret }}
{{- $whole := printf "datakey-%s-%s" (first .) $plain }}
{{- if and (eq $plain $secret) (le (len $whole) 63) }}
{{- $whole }}
{{- else }}
{{- printf "%s-%s" ($whole | trunc 54 | trimSuffix "-") ($secret | sha256sum | trunc 8) }}
{{- end }}
{{- end }}
