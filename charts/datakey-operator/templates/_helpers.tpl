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
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "datakey.subject" -}}
- kind: ServiceAccount
  name: {{ include "datakey.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{- /* What the operator may do where it watches. */ -}}
{{- define "datakey.rules" -}}
# DataKeys are what the operator works on. It never changes their spec, their metadata or their existence. get: the
# newest state of one that another client changed while KMS was asked.
- apiGroups: [datakey.dev]
  resources: [datakeys]
  verbs: [get, list, watch]
# The record of issued data keys and the conditions are written to the status, by PUT with a resource version.
- apiGroups: [datakey.dev]
  resources: [datakeys/status]
  verbs: [update]
# list, watch: only the metadata of Secrets of type datakey.dev/wrapped-key are asked for; RBAC can't say so.
# get: a look at a name before KMS is called, and the content of a Secret that bears the operator's marks and was
# changed or lost its DataKey. create: a Secret is only ever created where none is. update: what was changed is put
# back, by PUT with uid and resource version. No patch, no delete.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, update]
# Events report why a DataKey is not ready. patch: a repeated event is counted, not written again.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
