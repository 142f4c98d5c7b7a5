package milter

import (
	"strings"

	gomilter "github.com/emersion/go-milter"
)

// tempfail is the answer to a message that could not be judged: it comes again.
// The client learns no more than that; the log has the reason.
var tempfail = reply("451", "4.3.0", "Message could not be judged, try again later")

// reply makes an answer with a text of our own. The class of the code and of the
// enhanced code (RFC 3463) must be the same, and 4 or 5; a text with "%" is doubled
// on the wire, where it stands for a format (smfi_setreply of libmilter).
func reply(code, enhanced, text string) gomilter.Response {
	if len(code) != 3 || code[0] != '4' && code[0] != '5' || !strings.HasPrefix(enhanced, code[:1]+".") {
		panic("reply " + code + " " + enhanced)
	}
	return gomilter.NewResponseStr(byte(gomilter.ActReplyCode), code+" "+enhanced+" "+strings.ReplaceAll(text, "%", "%%"))
}
