package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"datakey.dev/operator/deploy/samples/consumers/go/unwrap"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
)

// Set here and in the settings of the workload, not read from the Secret: a user who changes the Secret cannot make the
// workload unwrap another data key.
var encryptionContext = map[string]string{"purpose": "orders"}

// AES_256. AES-GCM would take a shorter key, too.
const keyBytes = 32

// DataKeys unwraps the versions of a mounted wrapped-key Secret, each once, when it is first needed. Not for several
// goroutines at once.
type DataKeys struct {
	secret     string
	trusted    []string
	settings   aws.Config
	plaintexts map[uint32][]byte
}

// Open takes the folder where the Secret is mounted, and the ARNs of the KMS keys that may have wrapped its data keys.
func Open(ctx context.Context, mount string, trusted []string) (*DataKeys, error) {
	settings, err := config.LoadDefaultConfig(ctx)
	// The kubelet replaces this link to all entries as one. The links beside it follow, so a new entry is here first.
	secret := filepath.Join(mount, "..data")
	return &DataKeys{secret, trusted, settings, map[uint32][]byte{}}, err
}

// Close wipes the plaintexts. What the SDK made of KMS's answer on the way is beyond reach.
func (k *DataKeys) Close() {
	for _, plaintext := range k.plaintexts {
		clear(plaintext)
	}
	clear(k.plaintexts)
}

// Current is the version to encrypt under. It is read each time, so that a rotation needs no restart.
func (k *DataKeys) Current() (uint32, error) {
	text, err := os.ReadFile(filepath.Join(k.secret, "version"))
	if err != nil {
		return 0, err
	}
	version, err := strconv.ParseUint(string(text), 10, 32)
	return uint32(version), err
}

// Plaintext is the plaintext of a version; it belongs to k. The entries of a version never change, so a rotation
// cannot mix two versions.
func (k *DataKeys) Plaintext(ctx context.Context, version uint32) ([]byte, error) {
	if plaintext, unwrapped := k.plaintexts[version]; unwrapped {
		return plaintext, nil
	}
	plaintext, err := unwrap.Version(ctx, k.settings, k.secret, version, k.trusted, encryptionContext)
	if err != nil {
		return nil, err
	}
	if len(plaintext) != keyBytes {
		defer clear(plaintext)
		return nil, fmt.Errorf("the plaintext of version %d has %d bytes, not %d", version, len(plaintext), keyBytes)
	}
	k.plaintexts[version] = plaintext
	return plaintext, nil
}

func fromEnvironment(ctx context.Context) (*DataKeys, error) {
	trusted := strings.Fields(os.Getenv("KMS_KEY_ARNS"))
	if len(trusted) == 0 {
		return nil, errors.New("KMS_KEY_ARNS names no KMS key")
	}
	mount := os.Getenv("KEYS")
	if mount == "" {
		mount = "/keys"
	}
	return Open(ctx, mount, trusted)
}
