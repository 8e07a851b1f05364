package main

import (
	"crypto"
	"crypto/ed25519"
	"slices"
	"testing"
)

func TestClosingWipesTheKeysOfEd25519(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	pairs := KeyPairs{private: map[uint32]crypto.Signer{1: private}}
	pairs.Close()
	if !slices.Equal(private, make([]byte, len(private))) || len(pairs.private) != 0 {
		t.Error("a private key is left")
	}
}
