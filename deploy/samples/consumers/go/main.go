// A workload that runs for long: it encrypts or decrypts each line of its input under the data keys of a wrapped-key
// Secret, with AES-256-GCM. A rotation reaches it while it runs.
package main

import (
	"bufio"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
)

// A sealed line is, in base64: version (4 bytes, big-endian), nonce, what AES-GCM made of the data and the version.
const header = 4

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	translate, known := map[string]func(context.Context, *DataKeys, string) (string, error){
		"encrypt": encrypt, "decrypt": decrypt,
	}[append(args, "")[0]]
	if !known || len(args) != 1 {
		return errors.New("say encrypt or decrypt")
	}
	ctx := context.Background()
	keys, err := fromEnvironment(ctx)
	if err != nil {
		return err
	}
	defer keys.Close()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		line, err := translate(ctx, keys, lines.Text())
		if err != nil {
			return err
		}
		fmt.Println(line)
	}
	return lines.Err()
}

func encrypt(ctx context.Context, keys *DataKeys, line string) (string, error) {
	version, err := keys.Current()
	if err != nil {
		return "", err
	}
	gcm, err := keys.cipher(ctx, version)
	if err != nil {
		return "", err
	}
	tag := binary.BigEndian.AppendUint32(nil, version)
	sealed := gcm.Seal(nil, nil, []byte(line), tag)
	return base64.StdEncoding.EncodeToString(append(tag, sealed...)), nil
}

func decrypt(ctx context.Context, keys *DataKeys, line string) (string, error) {
	sealed, err := base64.StdEncoding.DecodeString(line)
	if err != nil || len(sealed) < header {
		return "", errors.New("this is no sealed line")
	}
	gcm, err := keys.cipher(ctx, binary.BigEndian.Uint32(sealed))
	if err != nil {
		return "", err
	}
	data, err := gcm.Open(nil, nil, sealed[header:], sealed[:header])
	return string(data), err
}

// cipher makes and keeps the nonce itself: 12 random bytes before each ciphertext.
func (k *DataKeys) cipher(ctx context.Context, version uint32) (cipher.AEAD, error) {
	plaintext, err := k.Plaintext(ctx, version)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(plaintext)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
