{{/*
The settings with their defaults, as YAML. What is missing or wrong stops the rendering with a message that says what to write: the schema
of the values knows only settings that are values of this chart, and a template can get others.
*/}}
{{- define "datakey-unwrap._settings" -}}
{{- $resources := dict "requests" (dict "cpu" "10m" "memory" "16Mi") "limits" (dict "memory" "64Mi") }}
{{- $settings := dict "mountPath" "/plaintext" "mode" "0400" "resources" $resources }}
{{- $known := list "global" "image" "imagePullPolicy" "secretName" "trust" "keySpec" "numberOfBytes" "keyPairSpec" "versions" "minVersion" "format"
  "mountPath" "mode" "runAsUser" "roleArn" "region" "resources" }}
{{- if not (kindIs "map" .) }}
{{- fail "datakey-unwrap: the template needs settings: write (index .Values \"datakey-unwrap\"), or another map" }}
{{- end }}
{{- range $key, $value := . }}
{{- if not (has $key $known) }}
{{- fail (printf "datakey-unwrap: %s: there is no such setting; write one of %s" $key (join ", " (rest $known))) }}
{{- end }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
{{- $_ := set $settings $key $value }}
{{- end }}
{{- end }}
{{- if not $settings.image }}
{{- fail "datakey-unwrap: image: write the image of datakey-unwrap, as REGISTRY/datakey-unwrap:TAG" }}
{{- end }}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" (toString $settings.secretName)) }}
{{- fail "datakey-unwrap: secretName: write the name of the Secret with the wrapped data keys" }}
{{- end }}
{{- if not (and (kindIs "slice" $settings.trust) $settings.trust) }}
{{- fail "datakey-unwrap: trust: write a list of keyArn with encryptionContext: the KMS keys that may have wrapped the data keys" }}
{{- end }}
{{- range $settings.trust }}
{{- if not (and (kindIs "map" .) (regexMatch "^arn:[a-z0-9-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$" (toString .keyArn))) }}
{{- fail "datakey-unwrap: trust: write the ARN of a KMS key as keyArn, as arn:aws:kms:eu-west-1:111122223333:key/ID; an alias can be moved" }}
{{- end }}
{{- range $key, $value := omit . "keyArn" }}
{{- if ne $key "encryptionContext" }}
{{- fail (printf "datakey-unwrap: trust: %s: there is no such setting; write keyArn and encryptionContext" $key) }}
{{- end }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{- fail "datakey-unwrap: trust: write encryptionContext as a map" }}
{{- end }}
{{- range $name, $text := $value }}
{{- if not (kindIs "string" $text) }}
{{- fail (printf "datakey-unwrap: trust: encryptionContext.%s: write the value in quotes, because it is a text" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- $material := list }}
{{- range list "keySpec" "numberOfBytes" "keyPairSpec" }}
{{- if get $settings . }}
{{- $material = append $material . }}
{{- end }}
{{- end }}
{{- if ne (len $material) 1 }}
{{- fail (printf "datakey-unwrap: write exactly one of keySpec, numberOfBytes and keyPairSpec, not %s" (join " and " $material | default "none")) }}
{{- end }}
{{- if $settings.keySpec }}
{{- if not (has $settings.keySpec (list "AES_256" "AES_128")) }}
{{- fail "datakey-unwrap: keySpec: write AES_256 or AES_128" }}
{{- end }}
{{- end }}
{{- $bytes := int64 ($settings.numberOfBytes | default 32) }}
{{- if or (lt $bytes 1) (gt $bytes 1024) }}
{{- fail "datakey-unwrap: numberOfBytes: write a number from 1 to 1024" }}
{{- end }}
{{- if not (regexMatch "^[A-Z0-9_]*$" ($settings.keyPairSpec | default "" | toString)) }}
{{- fail "datakey-unwrap: keyPairSpec: write the name that AWS KMS has for it, as ECC_NIST_P256" }}
{{- end }}
{{- $formats := ternary (list "pem" "der" "jwk") (list "raw" "hex" "base64" "jwk") (not (empty $settings.keyPairSpec)) }}
{{- if $settings.format }}
{{- if not (has $settings.format $formats) }}
{{- fail (printf "datakey-unwrap: format: write one of %s" (join ", " $formats)) }}
{{- end }}
{{- end }}
{{- if and (eq ($settings.format | default "") "jwk") (regexMatch "^(ML_KEM|SM2)" ($settings.keyPairSpec | default "" | toString)) }}
{{- fail (printf "datakey-unwrap: format: a private key of %s has no JSON Web Key: write pem or der" $settings.keyPairSpec) }}
{{- end }}
{{- if not (regexMatch "^(all|current|[1-9][0-9]*(,[1-9][0-9]*)*)$" (toString ($settings.versions | default "all"))) }}
{{- fail "datakey-unwrap: versions: write all, current, or numbers with commas between them, in quotes" }}
{{- end }}
{{- if not (regexMatch "^[1-9][0-9]*$" (toString ($settings.minVersion | default 1 | int64))) }}
{{- fail "datakey-unwrap: minVersion: write a number from 1" }}
{{- end }}
{{- if not (regexMatch "^(/[A-Za-z0-9._-]+)+$" (toString $settings.mountPath)) }}
{{- fail "datakey-unwrap: mountPath: write an absolute path, as /plaintext" }}
{{- end }}
{{- if not (has (toString $settings.mode) (list "0400" "0440" "0444")) }}
{{- fail "datakey-unwrap: mode: write \"0400\", \"0440\" or \"0444\", in quotes" }}
{{- end }}
{{- if $settings.roleArn }}
{{- if not (regexMatch "^arn:[a-z0-9-]+:iam::[0-9]{12}:role/.+$" $settings.roleArn) }}
{{- fail "datakey-unwrap: roleArn: write the ARN of an IAM role, as arn:aws:iam::111122223333:role/NAME" }}
{{- end }}
{{- end }}
{{- toYaml (omit $settings "global") }}
{{- end }}
