package status

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	flux "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

// As much of the form of CustomResourceStateMetrics as the configuration needs: another field in it fails.
type metricsConfig struct {
	Kind string
	Spec struct {
		Resources []struct {
			GroupVersionKind struct{ Group, Version, Kind string }
			MetricNamePrefix string
			LabelsFromPath   map[string][]string
			Metrics          []metric
		}
	}
}

type metric struct {
	Name, Help string
	Each       struct {
		Type        string
		Gauge, Info *source
	}
}

type source struct {
	Path           []string
	LabelsFromPath map[string][]string
	ValueFrom      []string
}

func at(value any, path []string) any {
	for _, name := range path {
		fields, _ := value.(map[string]any)
		value = fields[name]
	}
	return value
}

// What kube-state-metrics makes of a value.
func number(value any) (float64, error) {
	switch value := value.(type) {
	case int64:
		return float64(value), nil
	case string:
		switch value {
		case "True":
			return 1, nil
		case "False", "Unknown":
			return 0, nil
		}
		moment, err := time.Parse(time.RFC3339, value)
		return float64(moment.Unix()), err
	}
	return 0, fmt.Errorf("%v is no number", value)
}

// A stand-in for kube-state-metrics, which is no dependency of these tests: the metrics of a DataKey by its rules. Its output was the
// same as that of kube-state-metrics 2.20.0 for all recorded DataKeys, but for the labels customresource_group, _version and _kind.
func metricsOf(t *testing.T, object map[string]any) []string {
	t.Helper()
	text, err := os.ReadFile("../../../deploy/kube-state-metrics/datakeys.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var config metricsConfig
	if err := yaml.UnmarshalStrict(text, &config); err != nil {
		t.Fatal(err)
	}
	if len(config.Spec.Resources) != 2 {
		t.Fatalf("%d resources", len(config.Spec.Resources))
	}
	resource := config.Spec.Resources[0]
	for _, other := range config.Spec.Resources[1:] {
		if other.GroupVersionKind.Kind == object["kind"] {
			resource = other
		}
	}
	kind := resource.GroupVersionKind
	if is := kind.Group + "/" + kind.Version; is != object["apiVersion"] || kind.Kind != object["kind"] {
		t.Fatalf("the configuration is for %s %s", is, kind.Kind)
	}

	var lines []string
	for _, metric := range resource.Metrics {
		from := metric.Each.Gauge
		if metric.Each.Type == "Info" {
			from = metric.Each.Info
		}
		found := at(object, from.Path)
		elements, isList := found.([]any)
		if !isList {
			elements = []any{found}
		}
		for _, element := range elements {
			value := 1.0
			if metric.Each.Type == "Gauge" {
				// An element without it has no metric.
				content := at(element, from.ValueFrom)
				if content == nil {
					continue
				}
				if value, err = number(content); err != nil {
					t.Fatalf("%s: %v", metric.Name, err)
				}
			}
			var labels []string
			add := func(paths map[string][]string, within any) {
				for label, path := range paths {
					if content := at(within, path); content != nil {
						labels = append(labels, fmt.Sprintf("%s=%q", label, content))
					}
				}
			}
			add(from.LabelsFromPath, element)
			if metric.Each.Type == "Info" && len(labels) == 0 {
				continue
			}
			add(resource.LabelsFromPath, object)
			slices.Sort(labels)
			name := resource.MetricNamePrefix + "_" + metric.Name
			lines = append(lines, fmt.Sprintf("%s{%s} %.0f", name, strings.Join(labels, ","), value))
		}
	}
	return lines
}

func TestKubeStateMetricsReadsDataKeys(t *testing.T) {
	const arn = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	objects := recorded(t)
	for name, expected := range map[string][]string{
		"created": {
			`kube_datakey_status_condition{name="created",namespace="shop",reason="Pending",type="Ready"} 0`,
		},
		"access-denied": {
			`kube_datakey_status_condition{name="access-denied",namespace="shop",reason="AccessDenied",type="Ready"} 0`,
			`kube_datakey_status_condition{name="access-denied",namespace="shop",reason="AccessDenied",type="Stalled"} 1`,
			`kube_datakey_info{kms_key="alias/shop",name="access-denied",namespace="shop"} 1`,
		},
		"ready-version-2": {
			`kube_datakey_status_condition{name="ready-version-2",namespace="shop",reason="Issued",type="Ready"} 1`,
			`kube_datakey_status_version{name="ready-version-2",namespace="shop"} 2`,
			`kube_datakey_status_issued_time_seconds{name="ready-version-2",namespace="shop"} 1767323045`,
			`kube_datakey_info{kms_key="` + arn + `",name="ready-version-2",namespace="shop",secret="ready-version-2"} 1`,
		},
		"ready-key-unusable": {
			`kube_datakey_status_condition{name="ready-key-unusable",namespace="shop",reason="Issued",type="Ready"} 1`,
			`kube_datakey_status_condition{name="ready-key-unusable",namespace="shop",reason="KeyStateInvalid",type="KeyUsable"} 0`,
			`kube_datakey_status_version{name="ready-key-unusable",namespace="shop"} 1`,
			`kube_datakey_status_issued_time_seconds{name="ready-key-unusable",namespace="shop"} 1767323045`,
			`kube_datakey_info{kms_key="` + arn + `",name="ready-key-unusable",namespace="shop",secret="ready-key-unusable"} 1`,
		},
	} {
		if shown := metricsOf(t, objects[name].Object); !slices.Equal(shown, expected) {
			t.Errorf("%s:\n%s\ninstead of\n%s", name, strings.Join(shown, "\n"), strings.Join(expected, "\n"))
		}
	}
}

// So an alert on Stalled fires where Flux and Helm report a failure. Right after a change of the spec it still shows what was.
func TestStalledMetricIsOneWhereKstatusReadsFailed(t *testing.T) {
	compared := 0
	for name, object := range recorded(t) {
		observed := at(object.Object, []string{"status", "observedGeneration"})
		if name != "created" && observed != object.GetGeneration() {
			continue
		}
		compared++
		var ready, stalled int
		for _, line := range metricsOf(t, object.Object) {
			if strings.Contains(line, `type="Ready"`) {
				ready++
			}
			if strings.Contains(line, `type="Stalled"`) && strings.HasSuffix(line, " 1") {
				stalled++
			}
		}
		if isFailed := expected[name] == flux.FailedStatus; ready != 1 || (stalled == 1) != isFailed {
			t.Errorf("%s, which kstatus reads as %s: %d metrics of Ready, %d of Stalled", name, expected[name], ready, stalled)
		}
	}
	if compared < 40 {
		t.Errorf("%d DataKeys are compared", compared)
	}
}
