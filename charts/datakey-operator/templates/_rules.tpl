{{- /* What the operator may do where it watches. */ -}}
{{- define "datakey.rules" -}}
{{- $pairs := .Values.dataKeyPairs.enabled -}}
# These are what the operator works on. It never changes their spec, their metadata or their existence. get: the
# newest state of one that another client changed while KMS was asked, and of one that has something to do and is not in memory.
- apiGroups: [datakey.dev]
  resources: [datakeys{{ if $pairs }}, datakeypairs{{ end }}]
  verbs: [get, list, watch]
# The record of what was issued and the conditions are written to the status, by PUT with a resource version.
- apiGroups: [datakey.dev]
  resources: [datakeys/status{{ if $pairs }}, datakeypairs/status{{ end }}]
  verbs: [update]
# list, watch: only the metadata of Secrets of types datakey.dev/wrapped-key... are asked for; RBAC can't say so.
# get: a look at a name before KMS is called, and the content of a Secret that bears the operator's marks and was
# changed or lost its object. create: a Secret is only ever created where none is. update: what was changed is put
# back, by PUT with uid and resource version. No patch, no delete.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, update]
# Events report what was issued, and why an object is not ready.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}
