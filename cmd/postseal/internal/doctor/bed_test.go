package doctor_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/control"
	"postseal/cmd/postseal/internal/doctor"
	"postseal/cmd/postseal/internal/host"
	"postseal/cmd/postseal/internal/status"
	"postseal/policy/dnssec/dnstest"
	"postseal/reporting/send"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.Cleanup(judgeRows)) }

// now is when everything is looked at.
func now() time.Time { return time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC) }

// bed is a machine, made of files, answers of programs, listeners and a resolver.
type bed struct {
	t         *testing.T
	dns       *dnstest.Server
	config    string
	files     map[string]string
	modes     map[string]os.FileMode
	outputs   map[string]string   // of programs, by the command line; "!" before it: an error
	hosts     map[string]listener // by network and address, below the root for unix
	status    control.Status
	noAnswer  error // of the daemon
	explain   map[string]*control.Explanation
	users     map[string]doctor.Account
	synced    bool
	date      time.Time // of the web; zero: it cannot be reached
	configErr error
	name      error    // there is none
	locked    bool     // the database, by process 4711
	dane      []string // domains, of which one is enough; nil: signed.example
	sts       []string // domains with a policy
	denied    string   // what nobody may look at
	stuck     string   // what cannot be looked at
	foreign   string   // what belongs to a stranger
	unsynced  error    // of asking the kernel
	free      uint64   // octets on the disk; 0: cannot be told
}

// listener is what one says at once, and to the first thing that it is told.
type listener struct{ greeting, reply string }

const (
	queue    = "/var/spool/postfix"
	stranger = 54321 // no user of this machine
)

const goodConfig = `
state_dir = "/var/lib/postseal"
[dns]
servers = ["$DNS"]
self_test_signed = ["signed.example", "sealed.example"]
self_test_unsigned = "unsigned.example"
self_test_bogus = "bogus.example"
[socketmap]
listen = ["unix:/var/spool/postfix/postseal/map.sock"]
[milter]
listen = ["unix:/var/spool/postfix/postseal/milter.sock"]
[delivery]
listen = ["unix:/var/spool/postfix/postseal/lmtp.sock"]
requiretls_listen = ["unix:/var/spool/postfix/postseal/requiretls.sock"]
relaxed_listen = ["unix:/var/spool/postfix/postseal/relaxed.sock"]
nexthop = "unix:postseal/lmtp.sock"
hostname = "mail.own.example"
local_domains = ["own.example"]
local_relay = "tcp:127.0.0.1:10026"
[reporting]
contact = "tlsrpt@own.example"
[[reporting.log]]
path = "/var/log/mail.log"
format = "postfix"
[[reporting.dkim]]
selector = "tlsrpt"
key_file = "/etc/postseal/dkim.pem"
`

const zone = `
signed.example. A 192.0.2.1
sealed.example. A 192.0.2.2
unsigned.example. A 192.0.2.3
sts.example. MX 10 mx.sts.example.
mx.sts.example. A 192.0.2.25
_smtp._tls.own.example. TXT "v=TLSRPTv1; rua=mailto:tlsrpt@own.example"
`

// master is Debian's, shortened, with our services.
const master = `smtp       inet  n       -       y       -       -       smtpd
cleanup    unix  n       -       y       -       0       cleanup
rewrite    unix  -       -       y       -       -       trivial-rewrite
smtp       unix  -       -       y       -       -       smtp
relay      unix  -       -       y       -       -       smtp -o syslog_name=postfix/$service_name
postseal   unix  -       -       n       -       100     lmtp
    -o syslog_name=postfix/postseal -o lmtp_send_xforward_command=yes
postseal-requiretls unix - -     n       -       100     lmtp
postseal-relaxed unix -  -       n       -       100     lmtp
127.0.0.1:10026 inet n   -       n       -       20      smtpd
    -o smtpd_milters=
    -o smtpd_proxy_filter=
`

// newBed is Postfix 3.10 of Debian beside postseal, where all is well.
func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, dns: dnstest.New(t, zone+dkimRecord(t)+"\n", "signed.example", "sealed.example"), config: goodConfig, synced: true, date: now(), sts: []string{"sts.example"}, free: 1 << 40,
		users: map[string]doctor.Account{"postfix": {Name: "postfix", UID: stranger, GIDs: []uint32{stranger}}},
		modes: map[string]os.FileMode{"/var/lib/postseal": 0o700, "/etc/postseal/dkim.pem": 0o600},
	}
	b.dns.Fail("bogus.example", "*", "BOGUS")
	b.files = map[string]string{
		"/etc/postfix/main.cf":               "# ",
		"/etc/resolv.conf":                   "nameserver 127.0.0.1\noptions edns0 trust-ad\n",
		queue + "/etc/resolv.conf":           "nameserver 127.0.0.1\noptions edns0 trust-ad\n",
		"/etc/ssl/certs/ca-certificates.crt": authority(t),
		"/var/log/mail.log":                  "a line\n",
		"/etc/postseal/dkim.pem":             dkimKey(t),
		"/var/lib/postseal/policies.db":      "",
		"/proc/42/status":                    fmt.Sprintf("Name:\tpostseal\nUid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\nGid:\t%[2]d\t%[2]d\t%[2]d\t%[2]d\nGroups:\t4 \n", os.Getuid(), os.Getgid()),
	}
	b.hosts = map[string]listener{
		"tcp 198.41.0.4:53":    {},
		"tcp 192.0.2.25:25":    {greeting: "220 mx.sts.example\r\n"},
		"tcp 127.0.0.1:25":     {"220 mail.own.example\r\n", "250-mail.own.example\r\n250 STARTTLS\r\n"},
		"unix map.sock":        {reply: "9:NOTFOUND ,"},
		"unix milter.sock":     {},
		"unix lmtp.sock":       {greeting: "220 ready\r\n"},
		"unix requiretls.sock": {greeting: "220 ready\r\n"},
		"unix relaxed.sock":    {greeting: "220 ready\r\n"},
	}
	for _, s := range []string{"map", "milter", "lmtp", "requiretls", "relaxed"} {
		b.files[queue+"/postseal/"+s+".sock"] = ""
		b.modes[queue+"/postseal/"+s+".sock"] = 0o666
	}
	b.outputs = map[string]string{"postconf -M": master, "postconf -x": `mail_version = 3.10.13
compatibility_level = 3.10
queue_directory = /var/spool/postfix
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
mail_owner = postfix
smtp_tls_security_level = may
smtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt
smtp_tls_CApath =
tls_append_default_CA = no
smtp_dns_support_level = dnssec
smtp_tls_connection_reuse = no
smtp_connection_reuse_time_limit = 300s
smtp_tls_loglevel = 1
smtp_tls_policy_maps = socketmap:unix:postseal/map.sock:postfix-tlsrpt
transport_maps = socketmap:unix:postseal/map.sock:transport
smtpd_milters = { unix:postseal/milter.sock, connect_timeout=5s, default_action=tempfail }
non_smtpd_milters = { unix:postseal/milter.sock, connect_timeout=5s, default_action=tempfail }
milter_default_action = shutdown
milter_header_checks = regexp:/etc/postfix/postseal_milter_header_checks
smtpd_proxy_filter =
smtp_tlsrpt_enable = no
smtp_tlsrpt_socket_name =
smtp_tlsrpt_skip_reused_handshakes = no
`}
	b.status.Report = status.Report{Version: "v1", PID: 42, Started: now().Add(-time.Hour), Config: "postseal.toml", Validation: status.Validation{On: true},
		Recording: &status.Recording{Logs: []status.Log{{Path: "/var/log/mail.log", Format: "postfix", CaughtUp: now()}}}}
	b.explain = map[string]*control.Explanation{
		"sts.example":    {Daemon: true, STS: &control.STS{Mode: "enforce"}},
		"signed.example": {Daemon: true, DANE: control.DANE{Class: "full"}},
		"own.example":    {Daemon: true, STS: &control.STS{Mode: "enforce"}, DANE: control.DANE{Class: "full"}},
	}
	return b
}

// set changes a setting of main.cf.
func (b *bed) set(name, value string) {
	lines := strings.Split(b.outputs["postconf -x"], "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, name+" =") {
			lines[i] = name + " = " + value
			b.outputs["postconf -x"] = strings.Join(lines, "\n")
			return
		}
	}
	b.outputs["postconf -x"] += name + " = " + value + "\n"
}

// conf changes the configuration; toml adds to it.
func (b *bed) conf(old, replacement string) { b.config = replace(b.t, b.config, old, replacement) }

func (b *bed) master(old, replacement string) {
	b.outputs["postconf -M"] = replace(b.t, b.outputs["postconf -M"], old, replacement)
}

func replace(t *testing.T, text, old, replacement string) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("nothing to replace: %q", old)
	}
	return strings.ReplaceAll(text, old, replacement)
}

// run has the doctor look at it.
func (b *bed) run() doctor.Report {
	b.t.Helper()
	root := b.t.TempDir()
	for _, name := range slices.Sorted(maps.Keys(b.files)) {
		path := filepath.Join(root, name)
		b.must(os.MkdirAll(filepath.Dir(path), 0o755))
		b.must(os.WriteFile(path, []byte(b.files[name]), 0o644))
		b.must(os.Chtimes(path, now(), now()))
	}
	for command := range b.outputs {
		program, _, _ := strings.Cut(command, " ")
		b.must(os.MkdirAll(filepath.Join(root, "/usr/sbin"), 0o755))
		b.must(os.WriteFile(filepath.Join(root, "/usr/sbin", program), nil, 0o755))
	}
	for name, mode := range b.modes {
		if err := os.Chmod(filepath.Join(root, name), mode); !errors.Is(err, fs.ErrNotExist) {
			b.must(err)
		}
	}
	if old := filepath.Join(root, "/var/log/old.log"); b.files["/var/log/old.log"] != "" {
		b.must(os.Chtimes(old, now(), now().Add(-100*time.Hour)))
	}
	if info, err := os.Stat(filepath.Join(root, "/var/lib/postseal/policies.db")); b.locked && err == nil {
		lock := fmt.Sprintf("1: POSIX  ADVISORY  WRITE 7 08:01:1 0 EOF\n2: FLOCK  ADVISORY  WRITE 4711 08:01:%d 0 EOF\n", info.Sys().(*syscall.Stat_t).Ino)
		b.must(os.WriteFile(filepath.Join(root, "/proc/locks"), []byte(lock), 0o644))
	}
	cfg, err := config.Decode("postseal.toml", strings.ReplaceAll(b.config, "$DNS", b.dns.Addr))
	b.must(err)
	dane := b.dane
	if dane == nil {
		dane = []string{"signed.example"}
	}
	system := host.System{Root: root, Run: b.output}
	return doctor.Run(b.t.Context(), doctor.Options{
		Config: cfg, ConfigErr: b.configErr, STSDomains: b.sts, DANEDomains: dane, OneDANE: b.dane != nil,
		Status: func(context.Context) (control.Status, error) { return b.status, b.noAnswer },
		Explain: func(_ context.Context, domain string) (*control.Explanation, error) {
			if x := b.explain[domain]; x != nil {
				return x, nil
			}
			return nil, errors.New("no answer")
		},
		Machine: doctor.Machine{
			System: system,
			Stat:   look(b, b.owned(system.Stat)), Read: look(b, system.Read), Free: b.space,
			UID: 1, Now: now, DNSWait: 400 * time.Millisecond,
			Dial: b.dial, User: b.user, Web: b,
			Name:   func() (string, error) { return "mail.own.example", b.name },
			Synced: func() (bool, error) { return b.synced, b.unsynced },
		},
	})
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) output(_ context.Context, argv ...string) (string, error) {
	text, known := b.outputs[strings.Join(argv, " ")]
	if message, failed := strings.CutPrefix(text, "!"); failed || !known {
		return "", errors.New(argv[0] + ": " + message)
	}
	return text, nil
}

func (b *bed) user(name string) (doctor.Account, error) {
	if a, known := b.users[name]; known {
		return a, nil
	}
	return doctor.Account{}, errors.New("no such user")
}

func (b *bed) dial(_ context.Context, network, address string) (net.Conn, error) {
	if network == "unix" {
		address = filepath.Base(address)
	}
	h, known := b.hosts[network+" "+address]
	if !known {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	if h.greeting == "EACCES" {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.EACCES}
	}
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		if h.greeting != "" {
			if _, err := io.WriteString(theirs, h.greeting); err != nil {
				return
			}
		}
		r := bufio.NewReader(theirs)
		buf := make([]byte, 512)
		for answered := false; ; answered = true {
			if _, err := r.Read(buf); err != nil {
				return
			}
			if !answered {
				if _, err := io.WriteString(theirs, h.reply); err != nil {
					return
				}
			}
		}
	}()
	return ours, nil
}

// look refuses some files: root is refused none by the file system.
func look[T any](b *bed, from func(string) (T, error)) func(string) (T, error) {
	return func(name string) (none T, err error) {
		switch name {
		case b.denied:
			return none, &fs.PathError{Op: "open", Path: name, Err: syscall.EACCES}
		case b.stuck:
			return none, &fs.PathError{Op: "open", Path: name, Err: syscall.EIO}
		}
		return from(name)
	}
}

// owned gives a file to a stranger: only root could.
func (b *bed) owned(stat func(string) (fs.FileInfo, error)) func(string) (fs.FileInfo, error) {
	return func(name string) (fs.FileInfo, error) {
		info, err := stat(name)
		if err != nil || name != b.foreign {
			return info, err
		}
		sys := *info.Sys().(*syscall.Stat_t)
		sys.Uid = stranger
		return strangers{info, &sys}, nil
	}
}

// strangers is a file of somebody else.
type strangers struct {
	fs.FileInfo
	sys *syscall.Stat_t
}

func (s strangers) Sys() any { return s.sys }

func (b *bed) space(string) (uint64, error) {
	if b.free == 0 {
		return 0, syscall.ENOSYS
	}
	return b.free, nil
}

// Do is the web: one policy host.
func (b *bed) Do(req *http.Request) (*http.Response, error) {
	if b.date.IsZero() {
		return nil, errors.New("connection refused")
	}
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Header: http.Header{"Date": {b.date.Format(http.TimeFormat)}}, Request: req}, nil
}

// keys are made once: an RSA key takes its time.
var keys = sync.OnceValues(func() (rsaPEM, authorityPEM string) {
	rsaPEM, err := newRSA(2048)
	if err != nil {
		panic(err)
	}
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: now(), IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, ca.Public(), ca)
	if err != nil {
		panic(err)
	}
	return rsaPEM, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
})

func newRSA(bits int) (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})), nil
}

func dkimKey(t *testing.T) string {
	t.Helper()
	key, _ := keys()
	return key
}

func authority(t *testing.T) string {
	t.Helper()
	_, ca := keys()
	return ca
}

// dkimRecord is the key's record in a zone.
func dkimRecord(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, []byte(dkimKey(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := send.LoadKey("own.example", "tlsrpt", file)
	if err != nil {
		t.Fatal(err)
	}
	text := key.Record()
	return fmt.Sprintf(`tlsrpt._domainkey.own.example. TXT "%s" "%s"`, text[:200], text[200:])
}
