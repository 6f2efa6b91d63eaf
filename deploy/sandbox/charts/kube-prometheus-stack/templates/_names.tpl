{{- define "kps.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "kps.fullname" -}}
{{- $name := include "kps.name" . -}}
{{- $made := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $made .Values.fullnameOverride | trunc 26 | trimSuffix "-" -}}
{{- end }}

{{- define "kps.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end }}

{{/* Takes the root and the value of the label "app" without the chart's name. */}}
{{- define "kps.labels" -}}
app: {{ include "kps.name" .root }}-{{ .app }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: {{ include "kps.name" .root }}
app.kubernetes.io/version: {{ .root.Chart.Version | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
release: {{ .root.Release.Name | quote }}
heritage: {{ .root.Release.Service | quote }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of what the charts inside the real one make: takes the root, the name and the component. */}}
{{- define "kps.part-labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
release: {{ .root.Release.Name | quote }}
{{- end }}

{{- define "kps.image" -}}
{{ default .image.registry .root.Values.global.imageRegistry }}/{{ .image.repository }}:{{ default .tag .image.tag }}
{{- end }}
