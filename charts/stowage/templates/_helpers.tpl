{{- /*
SPDX-FileCopyrightText: The Stowage authors
SPDX-License-Identifier: EUPL-1.2
*/ -}}
{{- define "stowage.labels" -}}
app.kubernetes.io/name: stowage-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: stowage
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "stowage.selector" -}}
app.kubernetes.io/name: stowage-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stowage.image" -}}
{{- $tag := .image.tag | default .version -}}
{{ .image.repository }}:{{ $tag }}{{ with .image.digest }}@{{ . }}{{ end }}
{{- end }}
