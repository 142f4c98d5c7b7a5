package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"strings"

	"postseal/cmd/postseal/internal/host"
)

const installAuthorities = "apt-get install ca-certificates   (or: dnf install ca-certificates)"

// checkAuthorities: without a store of authorities no policy can be fetched, and every
// MX host under MTA-STS fails (RFC 8461 §3.3, §4.2).
func checkAuthorities(_ context.Context, e *env) []Finding {
	found := []Finding{}
	for _, own := range []struct{ key, file string }{{"sts.ca_file", e.Config.STS.CAFile}, {"delivery.ca_file", e.Config.Delivery.CAFile}, {"reporting.ca_file", e.Config.Reporting.CAFile}} {
		if own.file != "" {
			found = append(found, e.store(own.key+" "+own.file, own.file, "set "+own.key+" to a PEM file with certificates that every user may read")...)
		}
	}
	if e.Config.STS.CAFile == "" {
		system := failure("the system has no store of authorities: no policy can be fetched", installAuthorities)
		for _, file := range host.Authorities() {
			if text, err := e.Machine.Read(file); err == nil && certificates(text) {
				system = ok("the system's authorities are in " + file)
				break
			}
		}
		found = append(found, system)
	}
	return found
}

// store looks at one file of authorities.
func (e *env) store(what, file, do string) []Finding {
	text, err := e.Machine.Read(file)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return []Finding{hint(what+" cannot be read as this user", "sudo postseal doctor")}
	case err != nil:
		return []Finding{failure(what+" cannot be read: "+reason(err), do)}
	case !certificates(text):
		return []Finding{failure(what+" has no certificate", do)}
	}
	return nil
}

// folder looks at a folder of hashed authorities, as OpenSSL has it (c_rehash(1)).
func (e *env) folder(what, dir, do string) []Finding {
	entries, err := os.ReadDir(e.Machine.Path(dir))
	if err != nil {
		return []Finding{failure(what+" cannot be read: "+reason(err), do)}
	}
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".0") {
			return nil
		}
	}
	return []Finding{failure(what+" has no hashed certificate (NAME.0)", "c_rehash "+dir+"   (or: update-ca-certificates)")}
}

func certificates(text []byte) bool { return x509.NewCertPool().AppendCertsFromPEM(text) }
