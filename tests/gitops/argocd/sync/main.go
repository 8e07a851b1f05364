// Command sync brings manifests into a namespace as Argo CD's application controller does, by its engine: in waves, of
// which each waits until what the one before brought is healthy, by the health checks in argocd-cm.
//
//	sync NAMESPACE ARGOCD-CM MANIFEST...
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/cache"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/sync"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/sync/common"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/utils/kube"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/utils/tracing"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"

	"datakey.dev/operator/tests/gitops/argocd/config"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(namespace, configMap string, files []string) error {
	ctx := context.Background()
	overrides, err := config.Overrides(ctx, configMap)
	if err != nil {
		return err
	}
	targets := make([]*unstructured.Unstructured, 0, len(files))
	for _, file := range files {
		target, err := config.Object(file)
		if err != nil {
			return err
		}
		targets = append(targets, target)
	}
	return bring(ctx, namespace, targets, overrides)
}

func bring(ctx context.Context, namespace string, targets []*unstructured.Unstructured, overrides lua.ResourceHealthOverrides) error {
	cluster, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	log := logr.Discard()
	kubectl := &kube.KubectlCmd{Log: log, Tracer: tracing.NopTracer{}}
	live := cache.NewClusterCache(cluster, cache.SetNamespaces([]string{namespace}), cache.SetLogr(log), cache.SetKubectl(kubectl))
	if err := live.EnsureSynced(); err != nil {
		return err
	}
	var (
		phase   = common.OperationRunning
		message string
		results []common.ResourceSyncResult
		begun   = metav1.Now()
	)
	// As the controller does: each look is a new context that goes on where the last one stopped.
	for ; !phase.Completed(); time.Sleep(200 * time.Millisecond) {
		managed, err := live.GetManagedLiveObjs(targets, func(*cache.Resource) bool { return false })
		if err != nil {
			return err
		}
		look, end, err := sync.NewSyncContext("revision", sync.Reconcile(targets, managed, namespace, live), cluster, cluster, kubectl, namespace,
			sync.WithInitialState(phase, message, results, begun),
			sync.WithHealthOverride(overrides),
			sync.WithLogr(log))
		if err != nil {
			return err
		}
		look.Sync(ctx)
		phase, message, results = look.GetState()
		end()
	}
	if phase != common.OperationSucceeded {
		for _, result := range results {
			message += fmt.Sprintf("\n%s %s: %s", result.ResourceKey.Kind, result.ResourceKey.Name, result.Message)
		}
		return fmt.Errorf("%s: %s", phase, message)
	}
	return nil
}
