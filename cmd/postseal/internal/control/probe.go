package control

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/url"
	"strings"
	"time"

	"postseal/policy/probe"
	"postseal/policy/smtpclient"
)

// ProbeLimit is for all connections to the hosts of a destination together.
const ProbeLimit = time.Minute

// Probed is what the addresses of a destination's hosts have shown.
type Probed struct {
	Answers []Probe `json:"answers"`
}

// Probe is what one address has shown, now.
type Probe struct {
	Host    string `json:"host"`
	Address string `json:"address"`           // with the port
	TLS     string `json:"tls,omitempty"`     // "TLS 1.3"; absent: no TLS
	Cipher  string `json:"cipher,omitempty"`  //
	Proven  string `json:"proven,omitempty"`  // "dane", "pkix", or "encrypt": nothing
	DANE    string `json:"dane,omitempty"`    // why it is not proven by DANE, where there are usable TLSA records
	PKIX    string `json:"pkix,omitempty"`    // why it is not proven by a certificate of a known authority
	STS     string `json:"sts,omitempty"`     // why it does not satisfy the policy, where there is one
	Failure string `json:"failure,omitempty"` // why there is no session, or none with TLS
	Result  string `json:"result_type,omitempty"`
}

// NewProbed puts answers into words.
func NewProbed(answers []probe.Answer) Probed {
	p := Probed{Answers: []Probe{}}
	for _, a := range answers {
		p.Answers = append(p.Answers, newProbe(a))
	}
	return p
}

func newProbe(a probe.Answer) Probe {
	p := Probe{Host: a.Host, Address: a.Addr.String()}
	failure := a.Err
	if failure == nil {
		failure = a.Info.NoTLS
	}
	if failure != nil {
		// The failure names the host, as here its line does.
		p.Failure = strings.TrimPrefix(failure.Error(), smtpclient.Target{Name: a.Host, Addr: a.Addr}.String()+": ")
		p.Result = failure.Result
		return p
	}
	p.TLS, p.Cipher = tls.VersionName(a.Info.Version), tls.CipherSuiteName(a.Info.Cipher)
	p.Proven, p.DANE, p.PKIX, p.STS = a.Info.Secured.String(), text(a.Info.DANEErr), text(a.Info.PKIXErr), text(a.Info.STSErr)
	return p
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (s *Server) probe(w http.ResponseWriter, r *http.Request) {
	dest, ok := destination(w, r)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), ProbeLimit)
	defer cancel()
	answers, err := s.Probe(ctx, dest)
	if err != nil {
		refuse(w, http.StatusConflict, err)
		return
	}
	answer(w, NewProbed(answers))
}

// Probe has the hosts of a destination connected to.
func (c *Client) Probe(ctx context.Context, dest string) (Probed, error) {
	var p Probed
	err := c.do(ctx, http.MethodGet, "/v1/probe", url.Values{"domain": {dest}}, nil, into(&p))
	return p, err
}
