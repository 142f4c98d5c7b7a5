package daily

import (
	"fmt"
	"os"
	"path/filepath"

	"postseal/reporting/tlsrpt"
)

// file puts a report into a folder, whole or not at all.
func file(folder string, report *tlsrpt.Report, domain string) (reply string, err error) {
	f, err := os.CreateTemp(folder, ".report-*")
	if err != nil {
		return "", fmt.Errorf("copy of a report: %w", err)
	}
	defer os.Remove(f.Name()) // gone by then, if all went well
	if err := report.EncodeGzip(f); err != nil {
		f.Close()
		return "", err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	path := filepath.Join(folder, report.FileName(domain))
	if err := os.Rename(f.Name(), path); err != nil {
		return "", fmt.Errorf("copy of a report: %w", err)
	}
	return path, nil
}
