#!/bin/sh
# Makes new key pairs with other programs and writes their public halves: in DER into the corpus of the fuzz target, and the forms
# that the tests compare into forms.txt. The private halves are not kept.
# It needs OpenSSL 3 with SM2, ssh-keygen, and Python with jwcrypto and cryptography 48 or newer.
# ML_KEM_512.der is of the crate ml-kem, because cryptography makes no such keys; the script writes its forms again.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
corpus=$here/../../../fuzz/corpus/public_key
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

form() { # NAME FORM VALUE
	echo "$1 $2 $3" >>"$folder/forms.txt"
}

pem_and_sha256() { # NAME
	# OpenSSL 3.0 reads no ML-KEM; base64 wraps the lines as RFC 7468 demands.
	body=$(base64 -w 64 <"$corpus/$1.der" | tr '\n' '|')
	form "$1" pem "-----BEGIN PUBLIC KEY-----|$body-----END PUBLIC KEY-----|"
	form "$1" sha256 "$(sha256sum <"$corpus/$1.der" | cut -d ' ' -f 1)"
}

make_key() { # NAME GENPKEY-ARGUMENTS...
	name=$1
	shift
	openssl genpkey "$@" -out "$folder/private.pem" 2>/dev/null
	openssl pkey -in "$folder/private.pem" -pubout -outform DER -out "$corpus/$name.der"
	openssl pkey -in "$folder/private.pem" -pubout -out "$folder/public.pem"
	form "$name" pem "$(tr '\n' '|' <"$folder/public.pem")"
	form "$name" sha256 "$(sha256sum <"$corpus/$name.der" | cut -d ' ' -f 1)"
	case $name in
	RSA_* | ECC_NIST_P*) form "$name" openssh "$(ssh-keygen -i -m PKCS8 -f "$folder/public.pem")" ;;
	ECC_NIST_EDWARDS25519)
		# ssh-keygen imports no such key in PEM. It reads the line that is written here.
		python3 -c '
import sys
from cryptography.hazmat.primitives import serialization as form
key = form.load_pem_public_key(sys.stdin.buffer.read())
print(key.public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH).decode())
' <"$folder/public.pem" >"$folder/public.ssh"
		ssh-keygen -l -f "$folder/public.ssh" >/dev/null
		form "$name" openssh "$(cat "$folder/public.ssh")"
		;;
	esac
	case $name in
	RSA_* | ECC_*)
		form "$name" jwk "$(python3 -c '
import sys
from jwcrypto.jwk import JWK
key = JWK.from_pem(open(sys.argv[1], "rb").read())
print(key.export_public())
' "$folder/public.pem")"
		;;
	esac
}

for bits in 2048 3072 4096; do
	make_key "RSA_$bits" -algorithm RSA -pkeyopt "rsa_keygen_bits:$bits"
done
for curve in 256 384 521; do
	make_key "ECC_NIST_P$curve" -algorithm EC -pkeyopt "ec_paramgen_curve:P-$curve"
done
make_key ECC_SECG_P256K1 -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1
make_key ECC_NIST_EDWARDS25519 -algorithm ED25519
make_key SM2 -algorithm SM2
for size in 768 1024; do
	python3 -c '
import sys
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import mlkem
key = getattr(mlkem, f"MLKEM{sys.argv[1]}PrivateKey").generate().public_key()
info = serialization.PublicFormat.SubjectPublicKeyInfo
sys.stdout.buffer.write(key.public_bytes(serialization.Encoding.DER, info))
' $size >"$corpus/ML_KEM_$size.der"
done
for size in 512 768 1024; do
	pem_and_sha256 "ML_KEM_$size"
done
cp "$folder/forms.txt" "$here/forms.txt"
