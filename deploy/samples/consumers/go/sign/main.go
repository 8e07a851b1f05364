// A workload that signs each line of its input with a key pair of a wrapped-key-pair Secret, with Ed25519 or with ECDSA on
// P-256, and its counterpart, which verifies the lines with the published public keys.
//
//	sign sign                prints VERSION.SIGNATURE for each line, signed with the version SIGNING_VERSION
//	sign verify PUBLISHED    for each "VERSION.SIGNATURE LINE", prints LINE or ends with an error
//
// PUBLISHED is a folder with the entries of the ConfigMap that `kubectl datakey public-key receipts -o configmap`
// prints. KEY_PAIR_SPEC is ECC_NIST_EDWARDS25519 or ECC_NIST_P256.
package main

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
)

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "sign":
		ctx := context.Background()
		// A setting, not the current version of the Secret: verifiers need the public key of a version before it signs.
		version, err := strconv.ParseUint(os.Getenv("SIGNING_VERSION"), 10, 32)
		if err != nil {
			return fmt.Errorf("SIGNING_VERSION: %w", err)
		}
		pairs, err := fromEnvironment(ctx)
		if err != nil {
			return err
		}
		defer pairs.Close()
		return eachLine(func(line string) (string, error) { return sign(ctx, pairs, uint32(version), line) })
	case len(args) == 2 && args[0] == "verify":
		spec, err := specOfSettings()
		if err != nil {
			return err
		}
		return eachLine(func(line string) (string, error) { return verify(args[1], spec, line) })
	default:
		return errors.New("say sign, or verify and a folder")
	}
}

func eachLine(translate func(string) (string, error)) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		line, err := translate(lines.Text())
		if err != nil {
			return err
		}
		fmt.Println(line)
	}
	return lines.Err()
}

func sign(ctx context.Context, pairs *KeyPairs, version uint32, line string) (string, error) {
	private, err := pairs.Private(ctx, version)
	if err != nil {
		return "", err
	}
	// Ed25519 signs the message itself, ECDSA its digest.
	message, hash := []byte(line), crypto.Hash(0)
	if _, isEd25519 := private.(ed25519.PrivateKey); !isEd25519 {
		digest := sha256.Sum256(message)
		message, hash = digest[:], crypto.SHA256
	}
	signature, err := private.Sign(rand.Reader, message, hash)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d.%s", version, base64.StdEncoding.EncodeToString(signature)), nil
}

// verify uses the public key of the version that the signature names. A signature under another version fails.
func verify(published, spec, line string) (string, error) {
	mark, message, _ := strings.Cut(line, " ")
	number, encoded, _ := strings.Cut(mark, ".")
	version, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return "", err
	}
	signature, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return "", err
	}
	public, err := publicKey(published, uint32(version))
	if err != nil {
		return "", err
	}
	// The kind is a setting: the published keys must not choose the algorithm.
	if specOf(public) != spec {
		return "", fmt.Errorf("the public key of version %d is no %s", version, spec)
	}
	digest := sha256.Sum256([]byte(message))
	valid := false
	switch key := public.(type) {
	case ed25519.PublicKey:
		valid = ed25519.Verify(key, []byte(message), signature)
	case *ecdsa.PublicKey:
		valid = ecdsa.VerifyASN1(key, digest[:], signature)
	}
	if !valid {
		return "", fmt.Errorf("the signature is not one of version %d", version)
	}
	return message, nil
}
