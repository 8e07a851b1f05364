import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.Signature;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;

/** Signs a text with a private key in PKCS #8: Sign KEY-FILE KEY-ALGORITHM SIGNATURE-ALGORITHM TEXT. Prints base64. */
class Sign {
    public static void main(String[] arguments) throws Exception {
        byte[] encoded = decoded(Files.readAllBytes(Path.of(arguments[0])));
        PrivateKey key = KeyFactory.getInstance(arguments[1]).generatePrivate(new PKCS8EncodedKeySpec(encoded));
        Signature signature = Signature.getInstance(arguments[2]);
        signature.initSign(key);
        signature.update(arguments[3].getBytes(StandardCharsets.UTF_8));
        System.out.println(Base64.getEncoder().encodeToString(signature.sign()));
    }

    /** What is in PEM, as DER; DER begins with another byte than a hyphen. */
    private static byte[] decoded(byte[] file) {
        if (file[0] != '-') {
            return file;
        }
        String pem = new String(file, StandardCharsets.US_ASCII);
        return Base64.getMimeDecoder().decode(pem.replaceAll("-----(BEGIN|END) PRIVATE KEY-----", ""));
    }
}
