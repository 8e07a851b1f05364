// Package unwrap has AWS KMS unwrap the versions of a mounted wrapped-key Secret.
package unwrap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"
)

// The KMS key is disabled or deleted, or this workload may not use it any more. Other errors can pass, or mean that the Secret was
// changed.
var keyIsGone = []string{"AccessDeniedException", "DisabledException", "KMSInvalidStateException", "NotFoundException"}

var errNotTrusted = errors.New("which is not in KMS_KEY_ARNS")

// Version is the plaintext of a version in the folder of a Secret. If its KMS key is gone, it is that of a version with the same
// one, which another trusted KMS key wrapped.
func Version(
	ctx context.Context, settings aws.Config, secret string, version uint32, trusted []string, encryptionContext map[string]string,
) ([]byte, error) {
	plaintext, first := decrypt(ctx, settings, secret, version, trusted, encryptionContext)
	if first == nil || !isGone(first) {
		return plaintext, first
	}
	for _, other := range sameKey(secret, version) {
		plaintext, err := decrypt(ctx, settings, secret, other, trusted, encryptionContext)
		if err == nil || !isGone(err) {
			return plaintext, err
		}
	}
	return nil, first
}

func isGone(err error) bool {
	var refusal smithy.APIError
	return errors.Is(err, errNotTrusted) || errors.As(err, &refusal) && slices.Contains(keyIsGone, refusal.ErrorCode())
}

func decrypt(
	ctx context.Context, settings aws.Config, secret string, version uint32, trusted []string, encryptionContext map[string]string,
) ([]byte, error) {
	keyID, err := os.ReadFile(filepath.Join(secret, fmt.Sprintf("keyId.v%d", version)))
	if err != nil {
		return nil, err
	}
	if !slices.Contains(trusted, string(keyID)) {
		return nil, fmt.Errorf("version %d is wrapped by %s, %w", version, keyID, errNotTrusted)
	}
	blob, err := os.ReadFile(filepath.Join(secret, fmt.Sprintf("ciphertextBlob.v%d", version)))
	if err != nil {
		return nil, err
	}
	key, err := arn.Parse(string(keyID))
	if err != nil {
		return nil, err
	}
	client := kms.NewFromConfig(settings, func(options *kms.Options) { options.Region = key.Region })
	// Without a deadline, a KMS endpoint that does not answer stops the workload for good.
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	answer, err := client.Decrypt(ctx, &kms.DecryptInput{
		KeyId:             aws.String(string(keyID)),
		CiphertextBlob:    blob,
		EncryptionContext: encryptionContext,
	})
	if err != nil {
		return nil, err
	}
	return answer.Plaintext, nil
}

// sameKey has the other versions with the same plaintext, in ascending order.
func sameKey(secret string, version uint32) []uint32 {
	var same []uint32
	blobs, _ := filepath.Glob(filepath.Join(secret, "ciphertextBlob.v*"))
	for _, blob := range blobs {
		_, number, _ := strings.Cut(filepath.Base(blob), ".v")
		other, err := strconv.ParseUint(number, 10, 32)
		if err == nil && uint32(other) != version && root(secret, uint32(other)) == root(secret, version) {
			same = append(same, uint32(other))
		}
	}
	slices.Sort(same)
	return same
}

// root is the version as which the plaintext of a version was issued: a rewrap names an earlier version, and no other does.
func root(secret string, version uint32) uint32 {
	text, err := os.ReadFile(filepath.Join(secret, fmt.Sprintf("rewrapOf.v%d", version)))
	if err != nil {
		return version
	}
	earlier, err := strconv.ParseUint(string(text), 10, 32)
	if err != nil || uint32(earlier) >= version {
		return version
	}
	return root(secret, uint32(earlier))
}
