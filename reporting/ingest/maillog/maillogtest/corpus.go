package maillogtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"postseal/reporting"
)

// Expectation is a line of the corpora's *.expected.jsonl: what the receiving
// side saw of one connection, and what a sender should report of it.
type Expectation struct {
	Domain      string   `json:"domain"`
	MX          string   `json:"mx"`
	IP          string   `json:"ip"`
	PolicyType  string   `json:"policy_type"`
	TLSSession  bool     `json:"tls_session"`
	Success     bool     `json:"success"`
	ResultType  string   `json:"result_type"`
	Also        []string `json:"also_acceptable"`
	LogAlso     []string `json:"log_also"`
	LogEvidence string   `json:"log_evidence"`
}

// allows reports whether got is a fair account of the connection. fromLog: the source
// knows no more than the log.
func (x *Expectation) allows(got *reporting.Session, fromLog bool) bool {
	// Sendmail does not log the address of a host that was not the last.
	sameIP := got.MXIP.IsValid() && got.MXIP.String() == x.IP || !got.MXIP.IsValid() && (fromLog || x.IP == "")
	if !x.TLSSession || got.Domain != x.Domain || got.MXHost != x.MX || !sameIP {
		return false
	}
	if got.Failed() != x.Success && (!got.Failed() || string(got.Result) == x.ResultType || slices.Contains(x.Also, string(got.Result))) {
		return true
	}
	return fromLog && slices.Contains(x.LogAlso, string(got.Result))
}

// ReadExpected reads a file of them.
func ReadExpected(t *testing.T, file string) []Expectation {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []Expectation
	for scan := bufio.NewScanner(bytes.NewReader(data)); scan.Scan(); {
		var x Expectation
		if err := json.Unmarshal(scan.Bytes(), &x); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, x)
	}
	return all
}

// Compare pairs sessions with expectations: nothing may be invented, and nothing
// that must be there may be missing.
func Compare(t *testing.T, want []Expectation, got []reporting.Session, fromLog bool, mayMiss func(*Expectation) bool) {
	t.Helper()
	left := slices.Clone(want)
	for i := range got {
		at := slices.IndexFunc(left, func(x Expectation) bool { return x.allows(&got[i], fromLog) })
		if at < 0 {
			t.Errorf("not seen by the other side: %+v", got[i])
			continue
		}
		left = slices.Delete(left, at, at+1)
	}
	for i := range left {
		if left[i].TLSSession && !mayMiss(&left[i]) {
			t.Errorf("missing: %+v", left[i])
		}
	}
}
