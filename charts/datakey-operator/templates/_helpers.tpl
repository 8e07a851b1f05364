{{- define "datakey.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "datakey.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "datakey.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "datakey.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Cluster-wide objects of two releases of one name must not be one. */ -}}
{{- define "datakey.clusterName" -}}
{{- if eq .Release.Namespace (include "datakey.fullname" .) -}}
{{- include "datakey.fullname" . -}}
{{- else -}}
{{- printf "%s:%s" .Release.Namespace (include "datakey.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "datakey.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "datakey.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "datakey.selector" -}}
app.kubernetes.io/name: {{ include "datakey.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "datakey.labels" -}}
{{ include "datakey.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Labels and annotations of an object: (dict "root" . "labels" {} "annotations" {}) */ -}}
{{- define "datakey.metadata" -}}
labels:
  {{- include "datakey.labels" .root | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "datakey.image" -}}
{{- with .Values.image -}}
{{- $repository := required "image.repository is required: build the image with `make image`, push it to your registry, and set for example --set image.repository=REGISTRY/datakey-operator" .repository -}}
{{- if not (regexMatch "^([^@A-Z]*/)?[^/:@A-Z]+$" $repository) -}}
{{- fail (printf "image.repository: %q is refused: write the name in lower-case letters, and the tag in image.tag or the digest in image.digest" $repository) -}}
{{- end -}}
{{- if .digest -}}
{{- printf "%s@%s" $repository .digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "datakey.subject" -}}
- kind: ServiceAccount
  name: {{ include "datakey.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}
