// Package status proves what kstatus (Flux, Helm 4), the health script for Argo CD and the configuration of kube-state-metrics
// make of a DataKey in every state that the operator leaves it in. The DataKeys were recorded from the real operator and API server;
// tests/integration/health_states.rs does that and fails when they are stale.
package status

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	flux "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	sigs "sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

const customizations = "../../../deploy/argocd/resource_customizations/datakey.dev/"

// The kinds whose states are recorded: of DataKey all, of DataKeyPair those that its life and KMS cause.
var kinds = []string{"DataKey", "DataKeyPair"}

// What kstatus must read in each recorded DataKey.
var expected = map[string]flux.Status{
	"created":         flux.InProgressStatus,
	"recorded":        flux.InProgressStatus,
	"ready":           flux.CurrentStatus,
	"ready-version-2": flux.CurrentStatus,
	// KeyUsable is False beside Ready. Its Secret is what it must be, and a failed Kustomization restores no KMS key.
	"ready-key-unusable": flux.CurrentStatus,
	"spec-changed":       flux.InProgressStatus,
	"failing-version-2":  flux.FailedStatus,
	"waiting-version-2":  flux.InProgressStatus,
	"spec-corrected":     flux.InProgressStatus,
	"deleting":           flux.TerminatingStatus,

	// A person must act: Stalled.
	"access-denied":        flux.FailedStatus,
	"class-missing":        flux.FailedStatus,
	"class-not-found":      flux.FailedStatus,
	"class-refused":        flux.FailedStatus,
	"grant-token-invalid":  flux.FailedStatus,
	"key-disabled":         flux.FailedStatus,
	"secret-immutable":     flux.FailedStatus,
	"record-newer":         flux.FailedStatus,
	"spec-newer":           flux.FailedStatus,
	"region-unknown":       flux.FailedStatus,
	"restored-without-key": flux.FailedStatus,
	"key-not-found":        flux.FailedStatus,
	"key-state-invalid":    flux.FailedStatus,
	"key-usage-invalid":    flux.FailedStatus,
	"pin-conflict":         flux.FailedStatus,
	"pin-invalid":          flux.FailedStatus,
	"region-missing":       flux.FailedStatus,
	"request-invalid":      flux.FailedStatus,
	"secret-conflict":      flux.FailedStatus,
	"secret-too-large":     flux.FailedStatus,
	"spec-invalid":         flux.FailedStatus,
	"too-many-versions":    flux.FailedStatus,

	// A retry can help.
	"admission-unavailable": flux.InProgressStatus,
	"api-server-failed":     flux.InProgressStatus,
	"classes-unavailable":   flux.InProgressStatus,
	"internal-error":        flux.InProgressStatus,
	"issuing-disabled":      flux.InProgressStatus,
	"credentials-missing":   flux.InProgressStatus,
	"credentials-rejected":  flux.InProgressStatus,
	"kms-answer-invalid":    flux.InProgressStatus,
	"kms-error":             flux.InProgressStatus,
	"kms-timeout":           flux.InProgressStatus,
	"kms-unavailable":       flux.InProgressStatus,
	"kms-unreachable":       flux.InProgressStatus,
	"tls-failed":            flux.InProgressStatus,
	"secret-contested":      flux.InProgressStatus,
	"throttled":             flux.InProgressStatus,
	"write-rejected":        flux.InProgressStatus,
}

// What the health script must say where kstatus says this.
var health = map[flux.Status]string{
	flux.CurrentStatus:     "Healthy",
	flux.FailedStatus:      "Degraded",
	flux.InProgressStatus:  "Progressing",
	flux.TerminatingStatus: "Progressing",
}

// The recorded DataKeys by the names of their files.
func recorded(t *testing.T) map[string]*unstructured.Unstructured {
	t.Helper()
	return recordedOf(t, "DataKey")
}

// The recorded objects of a kind by the names of their files.
func recordedOf(t *testing.T, kind string) map[string]*unstructured.Unstructured {
	t.Helper()
	files, err := filepath.Glob(customizations + kind + "/testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects := map[string]*unstructured.Unstructured{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// As clients of Kubernetes read it: whole numbers are whole.
		json, err := yaml.YAMLToJSON(text)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		objects[name] = &unstructured.Unstructured{}
		if err := objects[name].UnmarshalJSON(json); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	return objects
}

// A recorded DataKey that is changed.
func changed(t *testing.T, name string, change func(map[string]any)) map[string]any {
	t.Helper()
	object := recorded(t)[name].DeepCopy().Object
	change(object)
	return object
}

func conditions(object map[string]any) []any {
	return object["status"].(map[string]any)["conditions"].([]any)
}

func message(object *unstructured.Unstructured, kind string) string {
	for _, condition := range conditions(object.Object) {
		if condition := condition.(map[string]any); condition["type"] == kind {
			return condition["message"].(string)
		}
	}
	return ""
}

func TestEveryRecordedDataKeyIsExpected(t *testing.T) {
	for _, kind := range kinds {
		for name := range recordedOf(t, kind) {
			if _, ok := expected[name]; !ok {
				t.Errorf("%s %s is recorded, but not in the table of what kstatus must read", kind, name)
			}
		}
	}
	objects := recorded(t)
	for name := range expected {
		if objects[name] == nil {
			t.Errorf("%s is not recorded", name)
		}
	}
}

func TestKstatusReadsEveryState(t *testing.T) {
	for _, kind := range kinds {
		readsEveryState(t, kind)
	}
}

func readsEveryState(t *testing.T, kind string) {
	t.Helper()
	for name, object := range recordedOf(t, kind) {
		fromFlux, err := flux.Compute(object)
		if err != nil {
			t.Fatalf("%s %s: %v", kind, name, err)
		}
		if fromFlux.Status != expected[name] {
			t.Errorf("%s %s: %s (%s) instead of %s", kind, name, fromFlux.Status, fromFlux.Message, expected[name])
		}
		if stalled := message(object, "Stalled"); fromFlux.Status == flux.FailedStatus && fromFlux.Message != stalled {
			t.Errorf("%s %s: the user reads %q instead of %q", kind, name, fromFlux.Message, stalled)
		}
		fromSigs, err := sigs.Compute(object)
		if err != nil {
			t.Fatalf("%s %s: %v", kind, name, err)
		}
		if fromSigs.Status.String() != fromFlux.Status.String() || fromSigs.Message != fromFlux.Message {
			t.Errorf("%s %s: two kstatus, two answers: %v and %v", kind, name, fromSigs, fromFlux)
		}
	}
}

// The reason for the status that the definition gives to every new DataKey.
func TestKstatusWouldTakeADataKeyWithoutStatusForCurrent(t *testing.T) {
	object := changed(t, "created", func(object map[string]any) { delete(object, "status") })
	result, err := flux.Compute(&unstructured.Unstructured{Object: object})
	if err != nil || result.Status != flux.CurrentStatus {
		t.Errorf("%v, %v", result, err)
	}
}

// What the script says: status and message.
func run(t *testing.T, script string, object map[string]any) [2]string {
	t.Helper()
	// As much of Lua as Argo CD gives to a script.
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, library := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage,
		lua.BaseLibName: lua.OpenBase,
		lua.TabLibName:  lua.OpenTable,
	} {
		open := lua.P{Fn: state.NewFunction(library), Protect: true}
		if err := state.CallByParam(open, lua.LString(name)); err != nil {
			t.Fatal(err)
		}
	}
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(script); err != nil {
		t.Fatal(err)
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		t.Fatalf("the script returns %v", state.Get(-1))
	}
	return [2]string{table.RawGetString("status").String(), table.RawGetString("message").String()}
}

// JSON as Lua.
func value(state *lua.LState, json any) lua.LValue {
	switch json := json.(type) {
	case nil:
		return lua.LNil
	case bool:
		return lua.LBool(json)
	case string:
		return lua.LString(json)
	case int64:
		return lua.LNumber(json)
	case []any:
		table := state.NewTable()
		for _, item := range json {
			table.Append(value(state, item))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for name, item := range json {
			table.RawSetString(name, value(state, item))
		}
		return table
	default:
		panic(json)
	}
}

func script(t *testing.T, kind string) string {
	t.Helper()
	text, err := os.ReadFile(customizations + kind + "/health.lua")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheHealthScriptsSayWhatTheirTestFilesSay(t *testing.T) {
	for _, kind := range kinds {
		saysWhatItsTestFileSays(t, kind)
	}
}

func saysWhatItsTestFileSays(t *testing.T, kind string) {
	t.Helper()
	var file struct {
		Tests []struct {
			InputPath    string
			HealthStatus struct{ Status, Message string }
		}
	}
	text, err := os.ReadFile(customizations + kind + "/health_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		t.Fatal(err)
	}
	objects := recordedOf(t, kind)
	for _, test := range file.Tests {
		name := strings.TrimSuffix(filepath.Base(test.InputPath), ".yaml")
		object := objects[name]
		if object == nil {
			t.Errorf("%s is not recorded, or listed twice", name)
			continue
		}
		delete(objects, name)
		said := run(t, script(t, kind), object.Object)
		if said != [2]string{test.HealthStatus.Status, test.HealthStatus.Message} {
			t.Errorf("%s: the script says %q, its test file %q", name, said, test.HealthStatus)
		}
		if said[0] != health[expected[name]] {
			t.Errorf("%s: %s beside %s", name, said[0], expected[name])
		}
	}
	for name := range objects {
		t.Errorf("the test file lacks %s", name)
	}
}

// States that this operator never writes: another client edits the status, or an older definition is installed.
func TestTheHealthScriptBelievesNothingAboutAnEarlierSpec(t *testing.T) {
	status := func(object map[string]any) map[string]any { return object["status"].(map[string]any) }
	earlier := func(object map[string]any) {
		for _, condition := range conditions(object) {
			condition.(map[string]any)["observedGeneration"] = int64(0)
		}
	}
	for what, object := range map[string]map[string]any{
		"no status":         changed(t, "ready", func(object map[string]any) { delete(object, "status") }),
		"no generation":     changed(t, "ready", func(object map[string]any) { delete(status(object), "observedGeneration") }),
		"no conditions":     changed(t, "ready", func(object map[string]any) { delete(status(object), "conditions") }),
		"earlier Ready":     changed(t, "ready", earlier),
		"earlier Stalled":   changed(t, "access-denied", earlier),
		"a status too late": changed(t, "ready", func(object map[string]any) { status(object)["observedGeneration"] = int64(7) }),
	} {
		if said := run(t, script(t, "DataKey"), object); said[0] != "Progressing" || said[1] == "" {
			t.Errorf("%s: %q", what, said)
		}
	}
	both := changed(t, "ready", func(object map[string]any) {
		stalled := map[string]any{
			"type": "Stalled", "status": "True", "message": "act", "observedGeneration": status(object)["observedGeneration"],
		}
		status(object)["conditions"] = append(conditions(object), stalled)
	})
	if said := run(t, script(t, "DataKey"), both); said != [2]string{"Degraded", "act"} {
		t.Errorf("Stalled beside Ready: %q", said)
	}
}
