package send_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postseal/reporting/send"
)

// edKey is always the same.
func edKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed([]byte(strings.Repeat("postseal", 4))) }

func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// shortKey is one that crypto/rsa does not make any more.
func shortKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	e, one := big.NewInt(65537), big.NewInt(1)
	for {
		p, err := rand.Prime(rand.Reader, 256)
		if err != nil {
			t.Fatal(err)
		}
		q, err := rand.Prime(rand.Reader, 256)
		if err != nil {
			t.Fatal(err)
		}
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		d := new(big.Int).ModInverse(e, phi)
		if d == nil || p.Cmp(q) == 0 {
			continue
		}
		return &rsa.PrivateKey{
			PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}, D: d, Primes: []*big.Int{p, q},
			Precomputed: rsa.PrecomputedValues{
				Dp: new(big.Int).Mod(d, new(big.Int).Sub(p, one)), Dq: new(big.Int).Mod(d, new(big.Int).Sub(q, one)),
				Qinv: new(big.Int).ModInverse(q, p),
			},
		}
	}
}

func pkcs8(t *testing.T, key crypto.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// keyFile writes one that only its owner may read.
func keyFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dkim.pem")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func loadKey(t *testing.T, selector, text string) send.Key {
	t.Helper()
	key, err := send.LoadKey("mta.example.org", selector, keyFile(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestLoadKey(t *testing.T) {
	good := func(name, text, record, warning string) {
		t.Run("RPT-075 "+name, func(t *testing.T) {
			key := loadKey(t, "s1", text)
			if got := key.Record(); !strings.HasPrefix(got, record) || strings.Contains(got, "s=") {
				t.Errorf("record %s", got)
			}
			if got := key.Warning(); warning == "" && got != "" || !strings.Contains(got, warning) {
				t.Errorf("warning %q", got)
			}
		})
	}
	rsa2048 := rsaKey(t, 2048)
	good("Ed25519", pkcs8(t, edKey()), "v=DKIM1; k=ed25519; p=", "")
	good("RSA PKCS#8", pkcs8(t, rsa2048), "v=DKIM1; k=rsa; p=MII", "")
	good("RSA PKCS#1", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsa2048)), "v=DKIM1; k=rsa; p=MII", "")
	good("weak", pkcs8(t, rsaKey(t, 1024)), "v=DKIM1; k=rsa; p=MI", "s1._domainkey.mta.example.org has 1024 bits")
	good("behind something else", "# key of 2026\n"+block("EC PARAMETERS", []byte{1})+pkcs8(t, edKey()), "v=DKIM1; k=ed25519", "")

	bad := func(name, text, want string) {
		t.Run("RPT-075 refused: "+name, func(t *testing.T) {
			path := keyFile(t, text)
			_, err := send.LoadKey("mta.example.org", "s1", path)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v", err)
			}
		})
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	bad("empty", "", "no PEM")
	bad("a public key", block("PUBLIC KEY", []byte{1}), `but "PUBLIC KEY"`)
	bad("ECDSA", pkcs8(t, curve), "neither RSA nor Ed25519")
	bad("encrypted", block("ENCRYPTED PRIVATE KEY", []byte{1}), "openssl pkey")
	bad("broken", block("PRIVATE KEY", []byte{1}), "asn1")
	bad("too short", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(shortKey(t))), "512")
	bad("too long", strings.Repeat("x", 70_000), "larger than 65536")
}

func TestLoadKeyAccess(t *testing.T) {
	path := keyFile(t, pkcs8(t, edKey()))
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: true, 0o644: false, 0o604: false, 0o602: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := send.LoadKey("mta.example.org", "s1", path)
		if ok != (err == nil) || err != nil && !strings.Contains(err.Error(), "chmod o= "+path) {
			t.Errorf("%04o: %v", mode, err)
		}
	}
	if _, err := send.LoadKey("mta.example.org", "s1", path+".gone"); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	for _, name := range [][2]string{{"", "s1"}, {"example.org", ""}, {"exämple.org", "s1"}, {"example.org; l=0", "s1"}, {"example..org", "s1"}} {
		if _, err := send.LoadKey(name[0], name[1], path); err == nil {
			t.Errorf("%q", name)
		}
	}
}
