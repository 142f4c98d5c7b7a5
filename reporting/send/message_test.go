package send_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"flag"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/google/go-cmp/cmp"

	"postseal/reporting/send"
	"postseal/reporting/tlsrpt"
)

var update = flag.Bool("update", false, "write the golden files")

// sent is when the messages of the tests are.
var sent = time.Date(2026, 1, 3, 2, 3, 4, 0, time.UTC)

const (
	from = "noreply@mta.example.org"
	to   = "reports@example.net"
)

func message(t *testing.T, keys ...send.Key) []byte {
	t.Helper()
	m := &send.Mail{From: from, Keys: keys}
	text, err := m.Message(report(), "example.com", to, sent)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// verify is what a receiver finds that knows the records of the keys.
func verify(t *testing.T, text []byte, keys ...send.Key) []*dkim.Verification {
	t.Helper()
	found, err := dkim.VerifyWithOptions(bytes.NewReader(text), &dkim.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) {
			for _, key := range keys {
				if name == key.Selector+"._domainkey."+key.Domain {
					return []string{key.Record()}, nil
				}
			}
			return nil, errors.New("no such record")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestSigned(t *testing.T) {
	ed, rsa := loadKey(t, "ed", pkcs8(t, edKey())), loadKey(t, "rsa", pkcs8(t, rsaKey(t, 2048)))
	text := message(t, ed, rsa)

	t.Run("RPT-075 every key signs, and the signatures verify", func(t *testing.T) {
		found := verify(t, text, ed, rsa)
		if len(found) != 2 {
			t.Fatalf("%d signatures", len(found))
		}
		for _, v := range found {
			if v.Err != nil || v.Domain != "mta.example.org" {
				t.Errorf("%+v", v)
			}
		}
	})
	head, _, _ := strings.Cut(string(text), "\r\nDate:")
	t.Run("RPT-075 relaxed, and without l=", func(t *testing.T) {
		if strings.Count(head, "c=relaxed/relaxed;") != 2 || strings.Contains(head, " l=") {
			t.Error(head)
		}
	})
	t.Run("RPT-073 the TLS-Report fields are signed", func(t *testing.T) {
		for _, v := range verify(t, text, ed, rsa) {
			for _, field := range []string{"TLS-Report-Domain", "TLS-Report-Submitter", "Subject", "From", "TLS-Required"} {
				if !slices.Contains(v.HeaderKeys, field) {
					t.Errorf("%s is not in %q", field, v.HeaderKeys)
				}
			}
		}
	})
	t.Run("RPT-075 what is changed or added is noticed", func(t *testing.T) {
		for name, forged := range map[string][]byte{
			"domain":    bytes.Replace(text, []byte("\r\nTLS-Report-Domain: example.com"), []byte("\r\nTLS-Report-Domain: example.net"), 1),
			"submitter": bytes.Replace(text, []byte("\r\nTLS-Report-Submitter: mta"), []byte("\r\nTLS-Report-Submitter: mtb"), 1),
			"From":      append([]byte("From: other@example.net\r\n"), text...),
			"body":      append(slices.Clone(text), "more\r\n"...),
		} {
			if bytes.Equal(forged, text) {
				t.Fatalf("%s: nothing was forged", name)
			}
			for _, v := range verify(t, forged, ed, rsa) {
				if v.Err == nil {
					t.Errorf("%s: verifies", name)
				}
			}
		}
	})
	t.Run("RPT-075 without keys the host signs", func(t *testing.T) {
		if unsigned := message(t); !bytes.HasPrefix(unsigned, []byte("Date: ")) || !bytes.HasSuffix(text, unsigned) {
			t.Errorf("%s", unsigned)
		}
	})
}

// TestSignedBytes holds the bytes of a signed message, which has the time of the
// bubble in its signature.
func TestSignedBytes(t *testing.T) {
	key := loadKey(t, "ed", pkcs8(t, edKey()))
	synctest.Test(t, func(t *testing.T) {
		text := message(t, key)
		path := filepath.Join("testdata", "signed.eml")
		if *update {
			if err := os.WriteFile(path, text, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(text)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}

// TestSignedParts reads what is submitted with the parsers of the standard library.
func TestSignedParts(t *testing.T) {
	m, err := mail.ReadMessage(bytes.NewReader(message(t, loadKey(t, "ed", pkcs8(t, edKey())))))
	if err != nil {
		t.Fatal(err)
	}
	media, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	text, err := parts.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	textType := text.Header.Get("Content-Type")
	file, err := parts.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if _, err := packed.ReadFrom(base64.NewDecoder(base64.StdEncoding, file)); err != nil {
		t.Fatal(err)
	}
	t.Run("RPT-070 file name", func(t *testing.T) {
		if got := file.FileName(); got != report().FileName("example.com") {
			t.Error(got)
		}
	})
	t.Run("RPT-071 gzip", func(t *testing.T) {
		z, err := gzip.NewReader(&packed)
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		if err := report().Encode(&want); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(z); err != nil || string(got) != want.String() {
			t.Errorf("%s, %v", got, err)
		}
	})
	t.Run("RPT-072 parts", func(t *testing.T) {
		if media != "multipart/report" || params["report-type"] != "tlsrpt" || !strings.HasPrefix(textType, "text/plain") ||
			file.Header.Get("Content-Type") != "application/tlsrpt+gzip" {
			t.Errorf("%s %v: %s, %v", media, params, textType, file.Header)
		}
	})
	t.Run("RPT-073 fields", func(t *testing.T) {
		if m.Header.Get("TLS-Report-Domain") != "example.com" || m.Header.Get("TLS-Report-Submitter") != "mta.example.org" {
			t.Errorf("%v", m.Header)
		}
	})
	t.Run("RPT-074 Subject", func(t *testing.T) {
		if got := m.Header.Get("Subject"); got != "Report Domain: example.com Submitter: mta.example.org Report-ID: <"+report().ID+">" {
			t.Error(got)
		}
	})
	t.Run("RPT-076 TLS-Required", func(t *testing.T) {
		if m.Header.Get("TLS-Required") != "No" {
			t.Errorf("%v", m.Header)
		}
	})
	t.Run("RPT-082 Subject, file name and body agree", func(t *testing.T) {
		subject := m.Header.Get("Subject")
		for _, want := range []string{" " + m.Header.Get("TLS-Report-Domain") + " ", " " + report().Submitter() + " ", report().ID} {
			if !strings.Contains(subject, want) {
				t.Errorf("%s: no %q", subject, want)
			}
		}
		if name := file.FileName(); !strings.HasPrefix(name, report().Submitter()+"!example.com!") {
			t.Error(name)
		}
	})
}

func TestMessageFailures(t *testing.T) {
	key := loadKey(t, "ed", pkcs8(t, edKey()))
	m := &send.Mail{From: from, Keys: []send.Key{key}}
	_, err := m.Message(&tlsrpt.Report{}, "example.com", to, sent)
	failure(t, err, false, true)
	_, err = m.Message(report(), "example.com", "a@example.net\r\nBcc: b@example.net", sent)
	failure(t, err, false, true)
	m.Keys = []send.Key{{Domain: "mta.example.org", Selector: "s1"}} // no LoadKey made it
	_, err = m.Message(report(), "example.com", to, sent)
	failure(t, err, false, false)
}
