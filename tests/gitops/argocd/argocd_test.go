// Package argocd proves in Argo CD's own code that what lies in deploy/argocd does what it says.
package argocd

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/health"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/sync/syncwaves"
	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"datakey.dev/operator/tests/gitops/argocd/config"
)

const (
	deploy         = "../../../deploy/"
	customizations = deploy + "argocd/resource_customizations/datakey.dev/"
)

// The kinds, and the least number of recorded states of each.
var kinds = map[string]int{"DataKey": 30, "DataKeyPair": 20}

// The test file of the health script.
type tests struct {
	Tests []struct {
		InputPath    string
		HealthStatus health.HealthStatus
	}
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	if err := config.Read(file, into); err != nil {
		t.Fatal(err)
	}
}

func object(t *testing.T, file string) *unstructured.Unstructured {
	t.Helper()
	object, err := config.Object(file)
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// The recorded states of all kinds, with the paths of their files.
func recorded(t *testing.T) tests {
	t.Helper()
	var all tests
	for kind, least := range kinds {
		var recorded tests
		read(t, customizations+kind+"/health_test.yaml", &recorded)
		if len(recorded.Tests) < least {
			t.Fatalf("%s: %d tests", kind, len(recorded.Tests))
		}
		for _, test := range recorded.Tests {
			test.InputPath = filepath.Join(customizations, kind, test.InputPath)
			all.Tests = append(all.Tests, test)
		}
	}
	return all
}

func TestTheConfigMapGivesEveryRecordedDataKeyItsHealth(t *testing.T) {
	overrides, err := config.Overrides(t.Context(), deploy+"argocd/argocd-cm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range recorded(t).Tests {
		object, expected := object(t, test.InputPath), test.HealthStatus
		if object.GetDeletionTimestamp() != nil {
			// Before it asks any script.
			blocked := "Pending deletion; blocked by finalizers: example.com/hold"
			expected = health.HealthStatus{Status: health.HealthStatusProgressing, Message: blocked}
		}
		found, err := health.GetResourceHealth(object, overrides)
		if err != nil || found == nil || *found != expected {
			t.Errorf("%s: %v, %v instead of %v", test.InputPath, found, err, expected)
		}
	}
}

// The reason for the script: without one Argo CD takes a DataKey for healthy whatever it says, and sync waves don't wait.
func TestWithoutTheConfigMapNoRecordedDataKeyHasAHealth(t *testing.T) {
	for _, test := range recorded(t).Tests {
		object := object(t, test.InputPath)
		if object.GetDeletionTimestamp() != nil {
			continue
		}
		found, err := health.GetResourceHealth(object, lua.ResourceHealthOverrides{})
		if err != nil || found != nil {
			t.Errorf("%s: %v, %v", test.InputPath, found, err)
		}
	}
}

// As Argo CD's own tests run the scripts of its resource_customizations.
func TestTheScriptPassesTheTestOfAContribution(t *testing.T) {
	for _, test := range recorded(t).Tests {
		script, err := os.ReadFile(filepath.Join(filepath.Dir(test.InputPath), "..", "health.lua"))
		if err != nil {
			t.Fatal(err)
		}
		var object unstructured.Unstructured
		read(t, test.InputPath, &object.Object)
		found, err := lua.VM{UseOpenLibs: true}.ExecuteHealthLua(&object, string(script))
		if err != nil || !reflect.DeepEqual(found, &test.HealthStatus) {
			t.Errorf("%s: %v, %v instead of %v", test.InputPath, found, err, test.HealthStatus)
		}
	}
}

func TestTheApplicationsHaveNoUnknownField(t *testing.T) {
	text, err := os.ReadFile(deploy + "argocd/applications.yaml")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var application v1alpha1.Application
		if err := yaml.UnmarshalStrict(document, &application); err != nil {
			t.Fatal(err)
		}
		names = append(names, application.Name)
		if retry := application.Spec.SyncPolicy.Retry; retry != nil {
			if _, err := retry.NextRetryAt(time.Now(), 3); err != nil {
				t.Errorf("%s: %v", application.Name, err)
			}
		}
	}
	if !reflect.DeepEqual(names, []string{"datakey-operator", "shop"}) {
		t.Errorf("%v", names)
	}
}

func TestTheDataKeyOfTheExampleIsInAnEarlierWaveThanTheDeployment(t *testing.T) {
	key, deployment := object(t, deploy+"gitops/keys/orders.yaml"), object(t, deploy+"gitops/app/orders.yaml")
	if key.GetKind() != "DataKey" || deployment.GetKind() != "Deployment" {
		t.Fatalf("%s, %s", key.GetKind(), deployment.GetKind())
	}
	if syncwaves.Wave(key) >= syncwaves.Wave(deployment) {
		t.Errorf("%d, %d", syncwaves.Wave(key), syncwaves.Wave(deployment))
	}
}
