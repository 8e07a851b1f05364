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
{{- if .Values.rbac.classes }}
# The uid of a namespace, before KMS is called as the role of a class: a namespace that is created again under the same name gets no
# session of the earlier one.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
{{- end }}
# Events report what was issued, why an object is not ready, and why a class cannot be used (in the namespace default,
# because a class is in none).
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}

{{- /* Classes are in no namespace, so only a ClusterRole can grant these. */ -}}
{{- define "datakey.classRules" -}}
# A class says what the objects of a namespace may ask of KMS. list, watch: the operator has all of them in memory, so a decision
# costs no request. It never changes one.
- apiGroups: [datakey.dev]
  resources: [datakeyclasses]
  verbs: [list, watch]
{{- if not .Values.watchNamespaces }}
# The status of a class says whether the operator can use it and how many objects use it, by server-side apply. An operator
# of some namespaces does not see all of these objects and leaves the status alone.
- apiGroups: [datakey.dev]
  resources: [datakeyclasses/status]
  verbs: [patch]
{{- end }}
{{- end -}}
