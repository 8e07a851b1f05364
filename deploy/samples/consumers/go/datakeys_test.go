package main

import (
	"slices"
	"testing"
)

func TestClosingWipesThePlaintexts(t *testing.T) {
	plaintext := []byte("for the test alone")
	keys := DataKeys{plaintexts: map[uint32][]byte{1: plaintext}}
	keys.Close()
	if !slices.Equal(plaintext, make([]byte, len(plaintext))) || len(keys.plaintexts) != 0 {
		t.Error("a plaintext is left")
	}
}
