// Command velero restores a backup by Velero's own restore, as its server does, without a Velero in the cluster: no backup
// storage, no volumes, no hooks. KUBECONFIG names the cluster. It prints each write that Velero sends, one JSON object per line.
//
//	velero RESTORE-NAME OBJECTS [--include-resources R] [--status-include-resources R] [--existing-resource-policy update]
//
// The flags are those of `velero restore create`. OBJECTS is a file: a List as `kubectl get -o json` prints it.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/client"
	"github.com/vmware-tanzu/velero/pkg/cmd/server/config"
	velerodiscovery "github.com/vmware-tanzu/velero/pkg/discovery"
	"github.com/vmware-tanzu/velero/pkg/restore"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"
)

const backupName = "nightly"

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: velero RESTORE-NAME OBJECTS [FLAGS]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(name, objects string, arguments []string) error {
	spec, err := restoreSpec(arguments)
	if err != nil {
		return err
	}
	cluster, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	cluster.Wrap(func(next http.RoundTripper) http.RoundTripper { return &printer{next: next} })
	typed, err := kubernetes.NewForConfig(cluster)
	if err != nil {
		return err
	}
	untyped, err := dynamic.NewForConfig(cluster)
	if err != nil {
		return err
	}
	discoverer, err := discovery.NewDiscoveryClientForConfig(cluster)
	if err != nil {
		return err
	}
	types := runtime.NewScheme()
	if err := scheme.AddToScheme(types); err != nil {
		return err
	}
	if err := velerov1.AddToScheme(types); err != nil {
		return err
	}
	// For the progress of the Restore, which the cluster does not have: Velero logs that, and goes on.
	progress, err := ctrl.New(cluster, ctrl.Options{Scheme: types})
	if err != nil {
		return err
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	resources, err := velerodiscovery.NewHelper(discoverer, log)
	if err != nil {
		return err
	}
	archive, err := backup(objects, resources)
	if err != nil {
		return err
	}

	server := config.GetDefaultConfig()
	restorer, err := restore.NewKubernetesRestorer(resources, client.NewDynamicFactory(untyped), server.RestoreResourcePriorities,
		typed.CoreV1().Namespaces(), nil, server.PodVolumeOperationTimeout, server.ResourceTerminatingTimeout, server.ResourceTimeout,
		log, nil, nil, nil, progress, nil)
	if err != nil {
		return err
	}
	spec.BackupName = backupName
	request := &restore.Request{
		Log:                  log,
		Restore:              &velerov1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: name}, Spec: *spec},
		Backup:               &velerov1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "velero", Name: backupName}},
		BackupReader:         archive,
		DisableInformerCache: server.DisableInformerCache,
	}
	warnings, errors := restorer.Restore(request, nil, nil)
	if !warnings.IsEmpty() {
		fmt.Fprintf(os.Stderr, "Velero warns: %+v\n", warnings)
	}
	if !errors.IsEmpty() {
		return fmt.Errorf("%+v", errors)
	}
	return nil
}

// restoreSpec is what `velero restore create` makes of its flags.
func restoreSpec(arguments []string) (*velerov1.RestoreSpec, error) {
	var spec velerov1.RestoreSpec
	flags := flag.NewFlagSet("velero", flag.ContinueOnError)
	flags.Func("include-resources", "the resources to restore; all without it", func(list string) error {
		spec.IncludedResources = strings.Split(list, ",")
		return nil
	})
	flags.Func("status-include-resources", "the resources to restore with their status", func(list string) error {
		spec.RestoreStatus = &velerov1.RestoreStatusSpec{IncludedResources: strings.Split(list, ",")}
		return nil
	})
	flags.Func("existing-resource-policy", "what becomes of objects that exist: none or update", func(policy string) error {
		spec.ExistingResourcePolicy = velerov1.PolicyType(policy)
		return nil
	})
	return &spec, flags.Parse(arguments)
}

// backup is the archive that Velero writes of these objects.
func backup(file string, resources velerodiscovery.Helper) (io.Reader, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list unstructured.UnstructuredList
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	var buffer bytes.Buffer
	compressed := gzip.NewWriter(&buffer)
	archive := tar.NewWriter(compressed)
	add := func(name string, content []byte) error {
		header := &tar.Header{Name: name, Size: int64(len(content)), Typeflag: tar.TypeReg, Mode: 0o755}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := archive.Write(content)
		return err
	}
	if err := add("metadata/version", []byte("1.1.0")); err != nil {
		return nil, err
	}
	for _, object := range list.Items {
		resource, _, err := resources.KindFor(object.GroupVersionKind())
		if err != nil {
			return nil, err
		}
		if object.GetNamespace() == "" {
			return nil, fmt.Errorf("%s %s: only objects of namespaces are restored", object.GetKind(), object.GetName())
		}
		content, err := object.MarshalJSON()
		if err != nil {
			return nil, err
		}
		name := path.Join("resources", resource.GroupResource().String(), "namespaces", object.GetNamespace(), object.GetName()+".json")
		if err := add(name, content); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return &buffer, compressed.Close()
}

// printer prints the writes that pass through it.
type printer struct {
	next http.RoundTripper
	lock sync.Mutex
}

func (p *printer) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method == http.MethodGet || request.Body == nil {
		return p.next.RoundTrip(request)
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	request.Body = io.NopCloser(bytes.NewReader(body))
	response, err := p.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	return response, json.NewEncoder(os.Stdout).Encode(map[string]any{
		"method":      request.Method,
		"path":        request.URL.Path,
		"contentType": request.Header.Get("Content-Type"),
		"body":        json.RawMessage(body),
		"answer":      response.StatusCode,
	})
}
