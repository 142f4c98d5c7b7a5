package smtpclient_test

import (
	"strings"
	"testing"

	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

func TestRequireTLS(t *testing.T) {
	for _, ret := range []string{"FULL", "HDRS"} {
		b := newBed(t)
		s := b.open("pkix requiretls")
		e := &smtpclient.Envelope{From: "a@x", To: []smtpclient.Recipient{{Addr: "b@x"}}, Ret: ret}
		b.sendAs(s, e, text)
		s.Close()
		b.Ended()
		t.Run("RT-040 the parameter as sent", func(t *testing.T) {
			if got, want := b.Mails()[0].From, "<a@x> SIZE=21 RET="+ret+" REQUIRETLS"; got != want {
				t.Errorf("MAIL FROM:%s, want %s", got, want)
			}
		})
		t.Run("RT-076 RET="+ret+" is relayed as it is", func(t *testing.T) {
			if got := b.Mails()[0].From; !strings.Contains(got, " RET="+ret) {
				t.Errorf("MAIL FROM:%s", got)
			}
		})
	}
}

// TestAskTLS: what the operator has relaxed is still kept where it can be.
func TestAskTLS(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config mxtest.Config
		want   string
	}{
		{"RT-101 offered, and authenticated", mxtest.Config{}, "<a@x> SIZE=21 REQUIRETLS"},
		{"RT-101 not authenticated", mxtest.Config{Certificate: "selfsigned"}, "<a@x> SIZE=21"},
		{"RT-101 not offered", mxtest.Config{TLSKeywords: []string{"SIZE"}}, "<a@x> SIZE=21"},
		{"RT-101 offered in clear", mxtest.Config{NoSTARTTLS: true, Keywords: []string{"SIZE", "REQUIRETLS"}}, "<a@x> SIZE=21"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t)
			b.Set(tt.config)
			target := b.target("opportunistic")
			target.Demand.AskTLS = true
			s, err := b.client.Connect(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			r := b.sendAs(s, &smtpclient.Envelope{From: "a@x", To: []smtpclient.Recipient{{Addr: "b@x"}}}, text)
			s.Close()
			b.Ended()
			if codes(r) != "250 2.0.0" || b.Mails()[0].From != tt.want {
				t.Errorf("%s; MAIL FROM:%s, want %s", codes(r), b.Mails()[0].From, tt.want)
			}
		})
	}
}
