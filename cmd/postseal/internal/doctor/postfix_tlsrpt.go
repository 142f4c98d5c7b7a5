package doctor

import (
	"context"
	"debug/elf"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/host/postconf"
)

// checkPostfixTLSRPT looks at where sessions become known: datagrams of libtlsrpt, from
// 3.10 on and where it is compiled in, or the log.
func checkPostfixTLSRPT(_ context.Context, e *env) []Finding {
	p := e.postfix
	if p == nil {
		return nil
	}
	ours, enabled := e.Config.Reporting.TLSRPTSocket, p.get("smtp_tlsrpt_enable") == "yes"
	const off = `remove reporting.tlsrpt_socket, and follow the log: [[reporting.log]] path = "/var/log/mail.log", format = "postfix"`
	const on = "postconf -e 'smtp_tlsrpt_enable = yes' 'smtp_tlsrpt_socket_name = postseal/tlsrpt.sock'; postfix reload"
	switch {
	case ours == "" && !enabled:
		return nil
	case ours == "":
		return []Finding{hint("smtp_tlsrpt_enable is yes, but reporting.tlsrpt_socket is not set: its datagrams go elsewhere, or nowhere", "nothing, if another program collects them; else: postconf -e 'smtp_tlsrpt_enable = no'; postfix reload")}
	case !p.release.Has(postconf.Patterns):
		return []Finding{failure("reporting.tlsrpt_socket is set, but Postfix "+p.get("mail_version")+" has no TLSRPT, 3.10 is the first: no session is counted", off)}
	case !enabled:
		return []Finding{failure("reporting.tlsrpt_socket is set, but smtp_tlsrpt_enable is no: no session is counted", on)}
	}
	found := []Finding{}
	if linked, known := e.linked(); known && !linked {
		found = append(found, failure("this Postfix was built without libtlsrpt: no session is counted", off))
	}
	name := p.get("smtp_tlsrpt_socket_name")
	at, _ := p.place("unix:" + name)
	switch {
	case name == "" || !e.listed(at, config.Listen{ours}):
		found = append(found, failure(fmt.Sprintf("Postfix reports to %q, but reporting.tlsrpt_socket is %s: no session is counted", name, ours), on))
	case at.absolute && p.chrooted("smtp"):
		found = append(found, failure("smtp_tlsrpt_socket_name is the absolute path "+name+", which a chrooted smtp(8) does not find", on))
	}
	if p.get("smtp_tlsrpt_skip_reused_handshakes") == "yes" {
		found = append(found, warning("smtp_tlsrpt_skip_reused_handshakes is yes: resumed sessions are not counted (RFC 8460 §4.2 counts sessions)", "postconf -e 'smtp_tlsrpt_skip_reused_handshakes = no'; postfix reload"))
	}
	found = append(found, e.queue()...)
	if len(found) == 0 {
		found = append(found, ok("Postfix reports its sessions to "+ours))
	}
	return found
}

// linked reports whether smtp(8) was built with libtlsrpt; known is false where its
// program cannot be read. Postfix tells nowhere else but in its log, with mail.
func (e *env) linked() (linked, known bool) {
	p := e.postfix
	files := []string{path.Join(p.get("daemon_directory"), "smtp")}
	if libraries, err := filepath.Glob(e.Machine.Path(path.Join(p.get("shlib_directory"), "libpostfix-*"))); err == nil {
		for _, l := range libraries {
			files = append(files, strings.TrimPrefix(l, strings.TrimSuffix(e.Machine.Root, "/")))
		}
	}
	for _, file := range files {
		f, err := elf.Open(e.Machine.Path(file))
		if err != nil {
			continue
		}
		libraries, err := f.ImportedLibraries()
		f.Close()
		if err != nil {
			continue
		}
		known = true
		if slices.ContainsFunc(libraries, func(l string) bool { return strings.HasPrefix(l, "libtlsrpt.") }) {
			return true, true
		}
	}
	return false, known
}

// queue: Postfix does not wait, so what does not fit is lost (unix(7)).
func (e *env) queue() []Finding {
	const file, enough = "/proc/sys/net/unix/max_dgram_qlen", 64
	text, err := e.Machine.Read(file)
	if err != nil {
		return nil
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && n < enough {
		return []Finding{warning(fmt.Sprintf("net.unix.max_dgram_qlen is %d: of a burst of sessions some are lost", n), "echo net.unix.max_dgram_qlen=512 > /etc/sysctl.d/postseal.conf; sysctl --system; systemctl restart postseal")}
	}
	return nil
}
