{{- /* What values.schema.json cannot say of durations. The operator has the same bounds: src/args/values.rs. */ -}}

{{- define "datakey.checkDurations" -}}
{{- $config := .Values.config -}}
{{- include "datakey.checkDuration" (list "config.kmsTimeout" $config.kmsTimeout "100ms" "1h") -}}
{{- include "datakey.checkDuration" (list "config.kmsRsaTimeout" $config.kmsRsaTimeout "100ms" "1h") -}}
{{- include "datakey.checkDuration" (list "config.kubeTimeout" $config.kubeTimeout "100ms" "1h") -}}
{{- include "datakey.checkDuration" (list "config.retryMin" $config.retryMin "1ms" "24h") -}}
{{- include "datakey.checkDuration" (list "config.retryMax" $config.retryMax "1ms" "24h") -}}
{{- include "datakey.checkDuration" (list "config.resync" $config.resync "100ms" "720h") -}}
{{- if ne $config.keyCheckInterval "0" -}}
{{- include "datakey.checkDuration" (list "config.keyCheckInterval" $config.keyCheckInterval "1s" "72h") -}}
{{- end -}}
{{- include "datakey.checkDuration" (list "config.shutdownGrace" $config.shutdownGrace "1ms" "1h") -}}
{{- include "datakey.checkDuration" (list "leaderElection.duration" .Values.leaderElection.duration "1s" "1h") -}}
{{- if gt (include "datakey.milliseconds" $config.retryMin | int64) (include "datakey.milliseconds" $config.retryMax | int64) -}}
{{- fail (printf "config.retryMin: %s is longer than config.retryMax, %s: write the shorter wait in config.retryMin" $config.retryMin $config.retryMax) -}}
{{- end -}}
{{- end -}}

{{- /* (list NAME VALUE LEAST MOST) */ -}}
{{- define "datakey.checkDuration" -}}
{{- $milliseconds := include "datakey.milliseconds" (index . 1) | int64 -}}
{{- $least := include "datakey.milliseconds" (index . 2) | int64 -}}
{{- $most := include "datakey.milliseconds" (index . 3) | int64 -}}
{{- if or (lt $milliseconds $least) (gt $milliseconds $most) -}}
{{- fail (printf "%s: %s is refused: write a duration from %s to %s" (index . 0) (index . 1) (index . 2) (index . 3)) -}}
{{- end -}}
{{- end -}}

{{- define "datakey.milliseconds" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $sum = add $sum (mul $number (get $units (regexFind "[a-z]+$" .))) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}
