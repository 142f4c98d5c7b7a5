package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// arrivedReport is a report as its receiver has it, taken apart without our own code.
type arrivedReport struct {
	domain   string // that it is about
	header   string // of the mail, or of the request
	file     string // its name
	size     int    // of the mail, or the body
	packed   int    // of the report
	json     []byte
	dkim     string // what the verifier says; "" by https
	problems []string
}

// mailedReports waits until all reports that are wanted by mail are in a mailbox.
func (l *lab) mailedReports(ctx context.Context, receiver *postfix, box string) (list []arrivedReport, err error) {
	wanted := 0
	for _, r := range reported {
		if strings.Contains(r.rua, reportBox) {
			wanted++
		}
	}
	var files []string
	err = until(ctx, func() error {
		files, err = filepath.Glob(filepath.Join(box, "new/*"))
		if err == nil && len(files) < wanted {
			err = fmt.Errorf("%d reports of %d arrived at Postfix %s", len(files), wanted, receiver.version)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		r, err := openMail(text)
		if err != nil {
			r.problems = append(r.problems, err.Error())
		}
		r.dkim = l.dkimVerify(ctx, text)
		list = append(list, r)
	}
	return list, nil
}

// dkimVerify is what dkimverify(1) of Debian says of a message.
func (l *lab) dkimVerify(ctx context.Context, text []byte) string {
	cmd := exec.CommandContext(ctx, "chroot", filepath.Join(l.work, "bookworm"), "dkimverify")
	cmd.Stdin = bytes.NewReader(text)
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

// openMail takes a message apart by RFC 8460 §5.3.
func openMail(text []byte) (r arrivedReport, err error) {
	r.size = len(text)
	head, _, _ := strings.Cut(string(text), "\n\n")
	r.header = head
	m, err := netmail.ReadMessage(bytes.NewReader(text))
	if err != nil {
		return r, err
	}
	r.domain = m.Header.Get("TLS-Report-Domain")
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "tlsrpt" {
		return r, fmt.Errorf("content type %q: %w", m.Header.Get("Content-Type"), err)
	}
	subject := fmt.Sprintf("Report Domain: %s Submitter: %s Report-ID: <", r.domain, reporter)
	if got := m.Header.Get("Subject"); !strings.HasPrefix(got, subject) {
		r.problems = append(r.problems, fmt.Sprintf("subject %q", got))
	}
	for name, want := range map[string]string{
		"TLS-Report-Submitter": reporter, "TLS-Required": "No", "Auto-Submitted": "auto-generated",
		"From": "tlsrpt@" + reporter, "Return-Path": "<bounces@" + localDomain + ">",
	} {
		if got := m.Header.Get(name); got != want {
			r.problems = append(r.problems, fmt.Sprintf("%s is %q, not %q", name, got, want))
		}
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	if text, err := parts.NextPart(); err != nil || !strings.HasPrefix(text.Header.Get("Content-Type"), "text/plain") {
		return r, fmt.Errorf("first part: %w", err)
	}
	part, err := parts.NextPart()
	if err != nil || part.Header.Get("Content-Type") != "application/tlsrpt+gzip" {
		return r, fmt.Errorf("second part: %w", err)
	}
	r.file = part.FileName()
	packed, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, part))
	if err != nil {
		return r, err
	}
	r.packed = len(packed)
	r.json, err = unpack(packed)
	return r, err
}

func unpack(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// postedReports waits until all reports that are wanted by https are there, behind those
// of earlier.
func (l *lab) postedReports(ctx context.Context, earlier int) (list []arrivedReport, err error) {
	wanted := 0
	for _, r := range reported {
		if strings.Contains(r.rua, reportHost) {
			wanted++
		}
	}
	err = until(ctx, func() error {
		if n := len(l.web.taken()) - earlier; n < wanted {
			return fmt.Errorf("%d reports of %d were posted", n, wanted)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, p := range l.web.taken()[earlier:] {
		r := arrivedReport{header: "POST " + p.path + "\nContent-Type: " + p.mediaType, size: len(p.body), packed: len(p.body)}
		r.domain = byName(strings.TrimPrefix(p.path, "/")).domain()
		if p.mediaType != "application/tlsrpt+gzip" {
			r.problems = append(r.problems, "media type "+p.mediaType)
		}
		if r.json, err = unpack(p.body); err != nil {
			r.problems = append(r.problems, err.Error())
		}
		list = append(list, r)
	}
	return list, nil
}

// readReport is the part of a report that is compared (RFC 8460 §4.4).
type readReport struct {
	Organization string `json:"organization-name"`
	ID           string `json:"report-id"`
	Contact      string `json:"contact-info"`
	Policies     []struct {
		Policy struct {
			Type   string   `json:"policy-type"`
			Domain string   `json:"policy-domain"`
			Lines  []string `json:"policy-string"`
		} `json:"policy"`
		Summary struct {
			OK     int `json:"total-successful-session-count"`
			Failed int `json:"total-failure-session-count"`
		} `json:"summary"`
		Details []struct {
			Result   string `json:"result-type"`
			Sessions int    `json:"failed-session-count"`
		} `json:"failure-details"`
	} `json:"policies"`
}

// compareReports checks each report, and prints sizes, names and, once, a whole one.
func (l *lab) compareReports(p *postfix, how string, list []arrivedReport) {
	fmt.Printf("\n  reports %s\n", how)
	for _, a := range list {
		fmt.Printf("  %-32s %6d bytes, report %5d, packed %4d  %s\n", a.domain, a.size, len(a.json), a.packed, a.file)
	}
	if len(list) > 0 {
		fmt.Printf("\n%s\n\n%s\n", indent(list[0].header), indent(string(list[0].json)))
	}
	for _, want := range reported {
		domain := byName(want.name).domain()
		byMail := how == "by mail"
		if byMail && !strings.Contains(want.rua, reportBox) || !byMail && !strings.Contains(want.rua, reportHost) {
			continue
		}
		var found []arrivedReport
		for _, a := range list {
			if a.domain == domain {
				found = append(found, a)
			}
		}
		if len(found) != 1 {
			l.expectAt(p, "reports", how+": one on "+want.name, fmt.Sprint(len(found)), false)
			continue
		}
		a := found[0]
		seen, err := a.differs(want.policy, want.ok, want.failed, want.result)
		problems := a.problems
		if err != nil {
			problems = append(problems, err.Error())
		}
		if byMail && a.dkim != "signature ok" {
			problems = append(problems, "dkimverify: "+a.dkim)
		}
		l.report.add(p, "reports", fmt.Sprintf("%s: %s %s, %d succeeded, %d failed %s", how, want.name, want.policy, want.ok, want.failed, want.result), seen, problems)
	}
}

// differs says what a report has, and what it should not.
func (a *arrivedReport) differs(policy string, ok, failed int, result string) (seen string, err error) {
	var r readReport
	if err := json.Unmarshal(a.json, &r); err != nil {
		return "", err
	}
	if len(r.Policies) != 1 {
		return "", fmt.Errorf("%d policies", len(r.Policies))
	}
	got := r.Policies[0]
	seen = fmt.Sprintf("%s, %d succeeded, %d failed", got.Policy.Type, got.Summary.OK, got.Summary.Failed)
	if a.dkim != "" {
		seen += ", dkimverify: " + a.dkim
	}
	switch {
	case got.Policy.Type != policy || got.Summary.OK != ok || got.Summary.Failed != failed:
		return seen, errors.New("seen: " + seen)
	case result == "" && len(got.Details) > 0, result != "" && (len(got.Details) != 1 || got.Details[0].Result != result):
		return seen, fmt.Errorf("details: %+v", got.Details)
	case r.Organization != "The Lab" || r.Contact != "tlsrpt@"+reporter || !strings.HasSuffix(r.ID, "."+a.domain+"@"+reporter):
		return seen, fmt.Errorf("%+v", r)
	case policy != "no-policy-found" && len(got.Policy.Lines) == 0:
		return seen, errors.New("no policy-string")
	}
	return seen, nil
}
