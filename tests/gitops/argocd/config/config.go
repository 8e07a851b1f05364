// Package config reads files as Argo CD does.
package config

import (
	"context"
	"fmt"
	"os"

	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/argo-cd/v3/util/settings"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"
)

// Read reads a file into a value that has all its fields.
func Read(file string, into any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// Object reads a manifest.
func Object(file string) (*unstructured.Unstructured, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	// As clients of Kubernetes read it: whole numbers are whole.
	json, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(json); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return object, nil
}

// Overrides gives the health checks of an argocd-cm, by Argo CD's own reader of its settings.
func Overrides(ctx context.Context, file string) (lua.ResourceHealthOverrides, error) {
	var config corev1.ConfigMap
	if err := Read(file, &config); err != nil {
		return nil, err
	}
	// It looks at its own ConfigMap and Secret alone, and knows them by this label.
	config.Labels = map[string]string{"app.kubernetes.io/part-of": "argocd"}
	secret := corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Name: "argocd-secret", Namespace: config.Namespace, Labels: config.Labels,
	}}
	manager := settings.NewSettingsManager(ctx, fake.NewClientset(&config, &secret), config.Namespace)
	return manager.GetResourceOverrides()
}
