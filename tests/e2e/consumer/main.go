// A workload as the README describes one: its init container unwraps the data key from the mounted Secret, its container
// decrypts data with it. With datakey-unwrap it is the application, which reads a key file and does not call KMS. It runs from an
// empty image. It also is the pause container of the test's node.
package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

const usage = `consumer unwrap SECRET-FOLDER KEY-FILE
consumer serve KEY-FILE DATA-FILE
consumer serve --key-file=KEY-FILE
consumer decrypt KEY-FILE BASE64
consumer pause`

const keyFileFlag = "--key-file="

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "unwrap":
		return unwrap(args[1], args[2])
	case len(args) == 3 && args[0] == "serve":
		return serve(func(*http.Request) ([]byte, error) { return decryptFile(args[1], args[2]) })
	case len(args) == 2 && args[0] == "serve" && strings.HasPrefix(args[1], keyFileFlag):
		keyFile := strings.TrimPrefix(args[1], keyFileFlag)
		return serve(func(request *http.Request) ([]byte, error) { return decryptRequest(keyFile, request) })
	case len(args) == 3 && args[0] == "decrypt":
		return decryptArgument(args[1], args[2])
	case len(args) == 1 && args[0] == "pause":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		<-ctx.Done()
		return nil
	default:
		return errors.New(usage)
	}
}

// unwrap asks KMS for the plaintext of the wrapped data key in a mounted Secret, and writes it to a file, which belongs
// into memory.
func unwrap(secret, keyFile string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	blob, err := os.ReadFile(filepath.Join(secret, "ciphertextBlob"))
	if err != nil {
		return err
	}
	keyID, err := os.ReadFile(filepath.Join(secret, "keyId"))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(secret, "encryptionContext"))
	if err != nil {
		return err
	}
	var encryptionContext map[string]string
	if err := json.Unmarshal(text, &encryptionContext); err != nil {
		return fmt.Errorf("encryptionContext: %w", err)
	}
	settings, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	answer, err := kms.NewFromConfig(settings).Decrypt(ctx, &kms.DecryptInput{
		KeyId:             aws.String(string(keyID)),
		CiphertextBlob:    blob,
		EncryptionContext: encryptionContext,
	})
	if err != nil {
		return err
	}
	// Another run of the init container meets the file of the last one.
	if err := os.Remove(keyFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(keyFile, answer.Plaintext, 0o400); err != nil {
		return err
	}
	log.Printf("unwrapped a data key of %d bytes under %s", len(answer.Plaintext), keyID)
	return nil
}

// serve answers each request with decrypted data.
func serve(decrypt func(*http.Request) ([]byte, error)) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	server := &http.Server{Addr: ":8080", ReadHeaderTimeout: 5 * time.Second}
	server.Handler = http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		plaintext, err := decrypt(request)
		if err != nil {
			log.Print(err)
			http.Error(response, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = response.Write(plaintext)
	})
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// decryptFile decrypts the data of a file.
func decryptFile(keyFile, dataFile string) ([]byte, error) {
	data, err := os.ReadFile(dataFile)
	if err != nil {
		return nil, err
	}
	return decrypt(keyFile, data)
}

// decryptRequest decrypts the data of a request. The key file is read each time: a rotation replaces it. A request for /NAME
// means the file of that name in the same folder.
func decryptRequest(keyFile string, request *http.Request) ([]byte, error) {
	if name := path.Base(path.Clean(request.URL.Path)); name != "/" {
		keyFile = filepath.Join(filepath.Dir(keyFile), name)
	}
	data, err := io.ReadAll(io.LimitReader(request.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	return decrypt(keyFile, data)
}

// decryptArgument prints the decrypted data of an argument, and ends.
func decryptArgument(keyFile, argument string) error {
	data, err := base64.StdEncoding.DecodeString(argument)
	if err != nil {
		return err
	}
	plaintext, err := decrypt(keyFile, data)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(plaintext)
	return err
}

// decrypt opens data that is a nonce of 12 bytes and what AES-GCM sealed.
func decrypt(keyFile string, data []byte) ([]byte, error) {
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	if len(data) < gcm.NonceSize() {
		return nil, errors.New("the data is too short")
	}
	return gcm.Open(nil, data[:gcm.NonceSize()], data[gcm.NonceSize():], nil)
}
