package delivery

import (
	"context"
	"strings"

	"postseal/policy/dane"
	"postseal/policy/mtasts"
	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
)

// maxText is a reply line of SMTP (RFC 5321 §4.5.3.1.5) less codes and CRLF.
const maxText = 490

// answer is a reply of ours. Its enhanced code has the class of the code (RFC 3463 §2).
func answer(code int, enhanced, text string) smtpclient.Reply {
	class := byte('0' + code/100)
	switch {
	case enhanced == "":
		enhanced = string(class) + ".0.0"
	case enhanced[0] != class:
		enhanced = string(class) + enhanced[1:]
	}
	b := []byte(text[:min(len(text), maxText)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return smtpclient.Reply{Code: code, Enhanced: enhanced, Text: string(b)}
}

// said is a remote's own reply, with its name.
func said(host string, r smtpclient.Reply) smtpclient.Reply {
	return answer(r.Code, r.Enhanced, host+" said: "+r.Text)
}

// setback is why a host did not take the mail.
type setback struct {
	*smtpclient.Failure
	absent    bool // the host provably does not exist, and does not count
	published bool // it fell short of what its domain publishes, which may be mended (RFC 8461 §5, RFC 7672 §2.2)
}

// definitive: no other attempt at this host will end differently.
func (b setback) definitive() bool { return !b.Temporary() && !b.published }

// weight orders failures by how much they say: a host that was reached and must not
// be used before one that answered badly, and that before one that did not answer.
func (b setback) weight() int {
	f := b.Failure
	switch {
	case b.absent, strings.HasSuffix(f.Reply.Enhanced, ".4.4"): // no host, no address
		return 0
	case strings.HasSuffix(f.Reply.Enhanced, ".4.3"), f.Stage == smtpclient.StageConnect: // DNS
		return 1
	case f.Stage == smtpclient.StageKeyword: // authenticated, and only the keyword was missing
		return 5
	case f.Policy():
		return 4
	case !f.Temporary():
		return 3
	}
	return 2
}

// verdict is the reply to those whom no host took or refused by name.
func (w *walk) verdict(ctx context.Context) smtpclient.Reply {
	all := w.words()
	if ctx.Err() != nil {
		return unfinished(ctx, all)
	}
	top, final := w.weigh()
	if top == nil {
		return answer(451, "4.4.4", "no usable host for "+w.nextHop.String())
	}
	r := top.Reply
	if final {
		return answer(r.Code, r.Enhanced, all)
	}
	if r.Code/100 == 5 {
		r.Code = 451
		if w.mode == requiretls.Required && top.Policy() { // RFC 8689 has no temporary code: encryption needed
			r.Enhanced = "4.7.10"
		}
	}
	return answer(r.Code, r.Enhanced, all)
}

// weigh finds the failure that says most; of several the last, as it is of the host
// that was tried last. final tells whether all hosts failed for good: one that
// could not be reached may yet take the mail (RFC 5321 §5.1, RFC 8689 §4.2.1).
func (w *walk) weigh() (top *setback, final bool) {
	final = !w.untried
	counted := false
	for i := range w.setbacks {
		b := &w.setbacks[i]
		if top == nil || b.weight() >= top.weight() {
			top = b
		}
		if b.absent {
			continue
		}
		counted = true
		final = final && b.definitive()
	}
	return top, final && counted
}

// words tells all failures, the one that says most first.
func (w *walk) words() string {
	top, _ := w.weigh()
	if top == nil {
		return ""
	}
	said := []string{top.Error()}
	for i := range w.setbacks {
		text := w.setbacks[i].Error()
		if &w.setbacks[i] != top && text != top.Error() {
			said = append(said, text)
		}
	}
	const between = "; "
	all := strings.Join(said, between)
	if len(all) <= maxText {
		return all
	}
	// Each gets its share, so that a talkative host does not silence the others.
	share := maxText/min(len(said), 4) - len(between)
	for i, s := range said {
		said[i] = s[:min(len(s), share)]
	}
	return strings.Join(said, between)
}

// failed remembers why a host did not take the mail; h is nil where DNS was not asked.
func (w *walk) failed(h *dane.Host, f *smtpclient.Failure) {
	b := setback{Failure: f}
	if h != nil {
		b.absent = h.State == dane.Absent
		tls := f.Stage >= smtpclient.StageSTARTTLS && f.Stage <= smtpclient.StageVerify
		b.published = tls && w.published(h)
	}
	w.setbacks = append(w.setbacks, b)
}

// published reports whether authentication is what the domain itself asks for.
func (w *walk) published(h *dane.Host) bool {
	sts := w.decision.STS
	return h.State == dane.Usable || h.State == dane.Broken || sts != nil && sts.Mode == mtasts.Enforce
}
