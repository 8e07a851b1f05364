package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"datakey.dev/operator/deploy/samples/consumers/go/unwrap"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
)

// Set here and in the settings of the workload, not read from the Secret: a user who changes the Secret cannot make the
// workload unwrap another key pair.
var encryptionContext = map[string]string{"purpose": "receipts"}

// KeyPairs unwraps the private keys of a mounted wrapped-key-pair Secret, each once, when it is first needed. Not for
// several goroutines at once.
type KeyPairs struct {
	secret   string
	trusted  []string
	spec     string
	settings aws.Config
	private  map[uint32]crypto.Signer
}

// Open takes the folder where the Secret is mounted, the ARNs of the KMS keys that may have wrapped its private keys, and
// the kind of its key pairs.
func Open(ctx context.Context, mount string, trusted []string, spec string) (*KeyPairs, error) {
	settings, err := config.LoadDefaultConfig(ctx)
	// The kubelet replaces this link to all entries as one. The links beside it follow, so a new entry is here first.
	secret := filepath.Join(mount, "..data")
	return &KeyPairs{secret, trusted, spec, settings, map[uint32]crypto.Signer{}}, err
}

// Close wipes the private keys of Ed25519, but not the copies that Go's packages keep. Those of ECDSA are numbers that Go has no
// way to wipe.
func (k *KeyPairs) Close() {
	for _, private := range k.private {
		if key, isBytes := private.(ed25519.PrivateKey); isBytes {
			clear(key)
		}
	}
	clear(k.private)
}

// Private is the private key of a version; it belongs to k. The entries of a version never change, so a rotation cannot
// mix two versions.
func (k *KeyPairs) Private(ctx context.Context, version uint32) (crypto.Signer, error) {
	if private, unwrapped := k.private[version]; unwrapped {
		return private, nil
	}
	plaintext, err := unwrap.Version(ctx, k.settings, k.secret, version, k.trusted, encryptionContext)
	if err != nil {
		return nil, err
	}
	defer clear(plaintext)
	parsed, err := x509.ParsePKCS8PrivateKey(plaintext)
	if err != nil {
		return nil, err
	}
	private, signs := parsed.(crypto.Signer)
	if !signs || specOf(private.Public()) != k.spec {
		return nil, fmt.Errorf("the private key of version %d is no %s", version, k.spec)
	}
	published, err := publicKey(k.secret, version)
	if err != nil {
		return nil, err
	}
	if half, comparable := published.(interface{ Equal(crypto.PublicKey) bool }); !comparable || !half.Equal(private.Public()) {
		return nil, fmt.Errorf("the public key of version %d belongs to another private key", version)
	}
	k.private[version] = private
	return private, nil
}

// publicKey is the public key of a version in a folder: that of the Secret, or of a ConfigMap with the published keys.
func publicKey(folder string, version uint32) (crypto.PublicKey, error) {
	text, err := os.ReadFile(filepath.Join(folder, fmt.Sprintf("publicKey.v%d", version)))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("publicKey.v%d is no PEM", version)
	}
	return x509.ParsePKIXPublicKey(block.Bytes)
}

// specOf is the kind of a public key, of those that this workload can use.
func specOf(public crypto.PublicKey) string {
	switch key := public.(type) {
	case ed25519.PublicKey:
		return "ECC_NIST_EDWARDS25519"
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return "ECC_NIST_P256"
		}
	}
	return ""
}

// specOfSettings is the kind of the key pairs. The keys must not choose it.
func specOfSettings() (string, error) {
	spec := os.Getenv("KEY_PAIR_SPEC")
	if spec != "ECC_NIST_EDWARDS25519" && spec != "ECC_NIST_P256" {
		return "", errors.New("KEY_PAIR_SPEC is neither ECC_NIST_EDWARDS25519 nor ECC_NIST_P256")
	}
	return spec, nil
}

func fromEnvironment(ctx context.Context) (*KeyPairs, error) {
	trusted := strings.Fields(os.Getenv("KMS_KEY_ARNS"))
	if len(trusted) == 0 {
		return nil, errors.New("KMS_KEY_ARNS names no KMS key")
	}
	mount := os.Getenv("KEYS")
	if mount == "" {
		mount = "/keys"
	}
	spec, err := specOfSettings()
	if err != nil {
		return nil, err
	}
	return Open(ctx, mount, trusted, spec)
}
