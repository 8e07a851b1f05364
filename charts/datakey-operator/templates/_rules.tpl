{{- /* What the operator may do where it watches. */ -}}
{{- define "datakey.rules" -}}
# DataKeys are what the operator works on. It never changes their spec, their metadata or their existence. get: the
# newest state of one that another client changed while KMS was asked, and of one that has something to do and is not in memory.
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
# Events report that a data key was issued, and why a DataKey is not ready.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}
