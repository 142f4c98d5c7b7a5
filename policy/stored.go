package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"postseal/policy/dane"
	"postseal/policy/mtasts"
)

// The stored form of a memo is a format byte, a checksum over the key and all
// that follows (bbolt has none for its contents), then the fields in order:
// numbers and times (Unix seconds, 0 for the zero time) as uvarint, strings with
// their length before them. It is a third shorter than JSON, and with a hundred
// thousand domains the pages of the database are most of the daemon's memory. A
// change of the fields is a new format byte.
const memoFormat = 1

// hasSTS and hasDANE say which parts follow.
const (
	hasSTS = 1 << iota
	hasDANE
)

func appendMemo(dst []byte, m *memo) []byte {
	w := storedWriter(append(dst, memoFormat, 0, 0, 0, 0))
	parts := 0
	if !m.sts.recordUntil.IsZero() {
		parts |= hasSTS
	}
	if m.dane.known {
		parts |= hasDANE
	}
	w.number(parts)
	w.number(int(max(m.used.Load(), 0)))
	if parts&hasSTS != 0 {
		w.sts(&m.sts)
	}
	if parts&hasDANE != 0 {
		w.dane(&m.dane)
	}
	w.number(len(m.answered))
	for i := range m.answered {
		w.answered(&m.answered[i], m.sts.policy)
	}
	body := w[len(dst)+headerSize:]
	binary.BigEndian.PutUint32(w[len(dst)+1:], checksum(m.key, body))
	return w
}

// headerSize is that of the format byte and the checksum.
const headerSize = 5

func checksum(key string, body []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE([]byte(key)), crc32.IEEETable, body)
}

type storedWriter []byte

func (w *storedWriter) number(n int)     { *w = binary.AppendUvarint(*w, uint64(n)) }
func (w *storedWriter) text(s string)    { w.number(len(s)); *w = append(*w, s...) }
func (w *storedWriter) time(t time.Time) { w.number(int(unix(t))) }
func (w *storedWriter) flag(b bool) {
	if b {
		w.number(1)
		return
	}
	w.number(0)
}

func (w *storedWriter) sts(s *stsState) {
	w.text(s.record)
	w.time(s.recordUntil)
	w.flag(s.unknown)
	w.flag(s.policy != nil)
	if s.policy != nil {
		w.text(s.policy.Text)
	}
	w.flag(s.id == s.record)
	if s.id != s.record {
		w.text(s.id)
	}
	w.text(s.source.addr)
	w.text(s.source.issuer)
	w.time(s.source.notAfter)
	w.time(s.fetched)
	w.time(s.refresh)
	w.text(s.failedID)
	w.time(s.failed)
	w.number(s.failures)
	w.text(s.failure)
}

func (w *storedWriter) dane(d *daneState) {
	w.number(int(d.class))
	w.flag(d.mxSecure)
	w.text(d.reason)
	w.time(d.until)
	w.number(int(d.proven))
	w.time(d.provenAt)
	w.time(d.used)
}

// answered writes the STS policy of an answer only where it is not the current one.
func (w *storedWriter) answered(a *Answered, current *mtasts.Policy) {
	w.time(a.Start)
	w.text(a.Type)
	old := a.sts != nil && (current == nil || a.sts.Text != current.Text)
	w.flag(old)
	if old {
		w.text(a.sts.Text)
	}
	w.number(len(a.tlsa))
	for _, s := range a.tlsa {
		w.text(s)
	}
}

func unix(t time.Time) int64 {
	if t.IsZero() || t.Unix() < 0 {
		return 0
	}
	return t.Unix()
}

var errStored = errors.New("cut short or damaged")

func decodeMemo(key string, data []byte) (*memo, error) {
	if len(data) < headerSize || data[0] != memoFormat {
		return nil, fmt.Errorf("stored state of %s has an unknown format", key)
	}
	r := storedReader{left: data[headerSize:]}
	if binary.BigEndian.Uint32(data[1:]) != checksum(key, r.left) {
		return nil, fmt.Errorf("stored state of %s: %w", key, errStored)
	}
	m := &memo{key: key}
	parts := r.number()
	m.stored = int64(r.number())
	m.used.Store(m.stored)
	if parts&hasSTS != 0 {
		r.sts(&m.sts)
	}
	if parts&hasDANE != 0 {
		r.dane(&m.dane)
	}
	for range r.count(keptAnswers) {
		m.answered = append(m.answered, r.answered(m.sts.policy))
	}
	if r.err == nil && len(r.left) > 0 {
		r.err = errStored
	}
	if r.err != nil {
		return nil, fmt.Errorf("stored state of %s: %w", key, r.err)
	}
	return m, nil
}

// storedReader reads on until its first error, from which on all is zero.
type storedReader struct {
	left []byte
	err  error
}

func (r *storedReader) number() int {
	n, size := binary.Uvarint(r.left)
	if size <= 0 || n > 1<<62 {
		r.fail(errStored)
		return 0
	}
	r.left = r.left[size:]
	return int(n)
}

func (r *storedReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.left = nil
}

func (r *storedReader) count(limit int) int {
	n := r.number()
	if n > limit {
		r.fail(errStored)
		return 0
	}
	return n
}

func (r *storedReader) flag() bool { return r.number() != 0 }

func (r *storedReader) text() string {
	n := r.number()
	if n > len(r.left) {
		r.fail(errStored)
		return ""
	}
	s := string(r.left[:n])
	r.left = r.left[n:]
	return s
}

func (r *storedReader) time() time.Time {
	s := r.number()
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(int64(s), 0)
}

func (r *storedReader) policy() *mtasts.Policy {
	p, _, err := mtasts.ParsePolicy(r.text())
	if err != nil {
		r.fail(err)
		return nil
	}
	return p
}

func (r *storedReader) sts(s *stsState) {
	s.record, s.recordUntil, s.unknown = r.text(), r.time(), r.flag()
	if r.flag() {
		s.policy = r.policy()
	}
	if s.id = s.record; !r.flag() {
		s.id = r.text()
	}
	s.source = source{r.text(), r.text(), r.time()}
	s.fetched, s.refresh = r.time(), r.time()
	s.failedID, s.failed, s.failures, s.failure = r.text(), r.time(), r.number(), r.text()
}

func (r *storedReader) class() dane.Class {
	n := r.number()
	if n > int(dane.ClassBroken) {
		r.fail(errStored)
		return dane.ClassBroken
	}
	return dane.Class(n)
}

func (r *storedReader) dane(d *daneState) {
	d.known, d.class, d.mxSecure = true, r.class(), r.flag()
	d.reason, d.until, d.proven = r.text(), r.time(), r.class()
	d.provenAt, d.used = r.time(), r.time()
}

func (r *storedReader) answered(current *mtasts.Policy) Answered {
	a := Answered{Start: r.time(), Type: r.text()}
	switch old := r.flag(); {
	case old:
		a.sts = r.policy()
	case a.Type == TypeSTS:
		a.sts = current
	}
	for range r.count(maxStrings) {
		a.tlsa = append(a.tlsa, r.text())
	}
	return a
}
