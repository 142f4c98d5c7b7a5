package postfix_test

import (
	"testing"
)

// What a log of Postfix says at each level, and in the delivery line of 3.11.
func TestLevels(t *testing.T) {
	delivered := func(tls string) string {
		return id + ": to=<u@a.example>, relay=" + mxA + ":25, delay=0.1, delays=0/0/0/0.1, tls=" + tls + ", dsn=2.0.0, status=sent (250 ok)"
	}
	trusted := "Trusted TLS connection established to " + mxA + ":25: TLSv1.3 with cipher X (256/256 bits)"
	const success = "a.example mx.a.example[192.0.2.1]"
	t.Run("DANE-124 Verified and Trusted are both sessions", func(t *testing.T) {
		reads(t, smtpLog(upA, to("u@a.example", mxA+":25", "250 ok")), success)
		reads(t, smtpLog(trusted, to("u@a.example", mxA+":25", "250 ok")), success) // DANE behind an insecure MX answer
	})
	t.Run("DANE-124 RT-103 the word of the delivery line names no failure where there is none", func(t *testing.T) {
		for _, tls := range []string{"dane", "dane/requiretls", "secure", "secure/requiretls", "verify", "may", "dane:halfdane", "secure?"} {
			reads(t, smtpLog(upA, delivered(tls)), success)
		}
	})
	t.Run("DANE-124 a fall back from DANE to encryption alone is told", func(t *testing.T) {
		reads(t, smtpLog(trusted, delivered("dane:encrypt")), success+" tlsa-invalid all TLSA records unusable")
	})
	refused := func(tls, text string) string {
		return id + ": to=<u@a.example>, relay=" + mxA + ":25, delay=0.1, delays=0/0/0/0.1, tls=" + tls + ", dsn=5.7.30, status=bounced (" + text + ")"
	}
	t.Run("RT-103 a keyword that is missing is no failure of TLS", func(t *testing.T) {
		reads(t, smtpLog(upA, refused("secure/!requiretls:none", "REQUIRETLS Failure: TLS service was offered by host "+mxA+", but not REQUIRETLS support")), success)
	})
	t.Run("RT-104 the codes of REQUIRETLS make no session by themselves", func(t *testing.T) {
		for _, text := range []string{
			"REQUIRETLS Failure: no recipient in this message can be delivered",
			"5.7.10 Sender requested REQUIRETLS, but my configured TLS security level 'may' disables certificate matching",
			"4.7.10 REQUIRETLS policy configuration error",
		} {
			reads(t, smtpLog(refused("may?/!requiretls:nocertmatch", text)))
		}
	})
	t.Run("DANE-112 a certificate that no TLSA record matches is not trusted", func(t *testing.T) {
		reads(t, smtpLog("server certificate verification failed for "+mxA+":25: num=65:no matching DANE TLSA records", upA, to("u@a.example", mxA+":25", "Server certificate not verified")),
			success+" certificate-not-trusted no matching DANE TLSA records")
	})
}
