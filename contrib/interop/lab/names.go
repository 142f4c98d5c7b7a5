package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Where the name servers and the policy hosts listen.
const (
	validating    = "127.0.53.1" // unbound, validating
	notValidating = "127.0.53.2" // unbound, without its validator
	authoritative = "127.0.54.1" // nsd
	nobody        = "127.0.54.9" // where no name server is
	policyAddress = "127.0.44.3"
)

// stsTTL is the TTL of the _mta-sts TXT records: a changed policy must be
// obeyed within it.
const stsTTL = 5 * time.Second

// names serves the zones: nsd behind two unbounds, all from one chroot.
type names struct {
	root  string // the chroot
	logs  string
	keys  []string          // base names of the zone signing keys, in the chroot
	hosts map[string]*sink  // by host name
	ids   map[string]string // of the STS policies, by domain
	gone  []string          // domains whose TXT record has been taken away
	rua   map[string]string // where reports are wanted, by domain; absent: at the domain itself
	extra []string          // further records of the plain zone

	servers map[string]*process
	serial  int64
}

const zoneFolder = "/etc/lab" // in the chroot

// newNames writes everything, starts the servers and waits for their answers.
func newNames(ctx context.Context, root, logs string, hosts map[string]*sink) (*names, error) {
	n := &names{root: root, logs: logs, hosts: hosts, ids: map[string]string{}, servers: map[string]*process{}, serial: time.Now().Unix()}
	if err := os.MkdirAll(n.path(""), 0o755); err != nil {
		return nil, err
	}
	for _, flags := range [][]string{{"-k"}, nil} { // a key signing key, a zone signing key
		args := append([]string{root, "sh", "-c", `cd "$0" && exec ldns-keygen "$@"`, zoneFolder, "-a", "ECDSAP256SHA256"}, append(flags, string(signed))...)
		key, err := output(ctx, "chroot", args...)
		if err != nil {
			return nil, err
		}
		n.keys = append(n.keys, strings.TrimSpace(key))
	}
	if err := n.write(ctx); err != nil {
		return nil, err
	}
	return n, n.start(ctx)
}

func (n *names) path(file string) string { return filepath.Join(n.root, zoneFolder, file) }

// write makes and signs the zone files.
func (n *names) write(ctx context.Context) error {
	n.serial++
	for _, z := range []zone{plain, signed} {
		if err := os.WriteFile(n.path(string(z)+".zone"), []byte(n.text(z)), 0o644); err != nil {
			return err
		}
	}
	file := string(signed) + ".zone"
	_, err := output(ctx, "chroot", n.root, "sh", "-c", `cd "$0" && exec ldns-signzone "$@"`, zoneFolder, "-f", file+".signed", file, n.keys[0], n.keys[1])
	if err != nil {
		return err
	}
	text, err := os.ReadFile(n.path(file + ".signed"))
	if err != nil {
		return err
	}
	return os.WriteFile(n.path(file+".signed"), []byte(breakSignatures(string(text))), 0o644)
}

// start launches the servers, or those that were stopped.
func (n *names) start(ctx context.Context) error {
	if err := os.WriteFile(n.path("nsd.conf"), []byte(nsdConfig()), 0o644); err != nil {
		return err
	}
	commands := map[string][]string{"nsd": {"nsd", "-d", "-c", zoneFolder + "/nsd.conf"}}
	for address, modules := range map[string]string{validating: "validator iterator", notValidating: "iterator"} {
		file := "unbound-" + address + ".conf"
		if err := os.WriteFile(n.path(file), []byte(unboundConfig(address, modules, n.keys[0])), 0o644); err != nil {
			return err
		}
		commands["unbound-"+address] = []string{"unbound", "-d", "-c", zoneFolder + "/" + file}
	}
	for name, command := range commands {
		p, err := launch(filepath.Join(n.logs, name+".log"), "chroot", append([]string{n.root}, command...)...)
		if err != nil {
			return err
		}
		n.servers[name] = p
	}
	for _, server := range []string{validating, notValidating} {
		if err := n.await(ctx, server); err != nil {
			return fmt.Errorf("resolver %s: %w", server, err)
		}
	}
	return nil
}

// stop ends all servers.
func (n *names) stop() {
	for _, p := range n.servers {
		p.stop()
	}
}

// change writes the zones anew and waits until nsd serves them.
func (n *names) change(ctx context.Context) error {
	if err := n.write(ctx); err != nil {
		return err
	}
	n.servers["nsd"].cmd.Process.Signal(syscall.SIGHUP)
	return n.await(ctx, authoritative)
}

// await waits until the server answers from zones of the present serial number,
// or, being a resolver, from any.
func (n *names) await(ctx context.Context, server string) error {
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server+":53")
	}}
	return until(ctx, func() error {
		for _, z := range []zone{plain, signed} {
			got, err := resolver.LookupTXT(ctx, "serial."+string(z)+".")
			if err != nil {
				return err
			}
			if server == authoritative && !slices.Equal(got, []string{fmt.Sprint(n.serial)}) {
				return errors.New("still the old zone")
			}
		}
		return nil
	})
}

// text is a zone file without signatures.
func (n *names) text(z zone) string {
	var b strings.Builder
	add := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	add("$ORIGIN %s.\n$TTL 60", z)
	add("@ IN SOA ns hostmaster %d 3600 600 86400 60\n@ IN NS ns", n.serial)
	add("ns IN A %s\ngone IN A %s", authoritative, nobody)
	add("serial 0 IN TXT %d", n.serial)
	add("one.selftest IN A 192.0.2.1\ntwo.selftest IN A 192.0.2.2\nbogus.selftest IN A 192.0.2.3")
	for _, s := range scenarios {
		if s.zone == z {
			n.records(add, s)
		}
	}
	if z == plain {
		add("%s", strings.Join(n.extra, "\n"))
	}
	return b.String()
}

// records adds what a scenario publishes.
func (n *names) records(add func(string, ...any), s scenario) {
	for i, m := range s.mx {
		host := n.hosts[s.host(i)]
		add("%s. IN MX %d %s.", s.domain(), 10*(i+1), host.name)
		if s.shares != "" {
			continue
		}
		add("%s. IN A %s", host.name, host.address)
		spki, authority := spkiHash(host.cert.Leaf), host.authority
		data := map[tlsa]string{
			ee: "3 1 1 " + spki, bogus: "3 1 1 " + spki, ta: "2 1 1 " + authority, unusable: "1 1 1 " + spki,
			mismatch: "3 1 1 " + strings.Repeat("ab", 32),
		}[m.tlsa]
		if data != "" {
			add("_25._tcp.%s. IN TLSA %s", host.name, data)
		}
		if m.tlsa == dead {
			add("_tcp.%s. IN NS gone.%s.", host.name, s.zone)
		}
	}
	rua := n.rua[s.domain()]
	if rua == "" {
		rua = "mailto:reports@" + s.domain()
	}
	add(`_smtp._tls.%s. %d IN TXT "v=TLSRPTv1; rua=%s"`, s.domain(), int(stsTTL.Seconds()), rua) // or Postfix reports no sessions
	if s.sts != nil && !slices.Contains(n.gone, s.domain()) {
		id := n.ids[s.domain()]
		if id == "" {
			id = "1"
		}
		add(`_mta-sts.%s. %d IN TXT "v=STSv1; id=%s;"`, s.domain(), int(stsTTL.Seconds()), id)
		add("mta-sts.%s. IN A %s", s.domain(), policyAddress)
	}
}

// breakSignatures spoils the signatures of every name that is to be bogus.
func breakSignatures(zone string) string {
	spoiled := map[string]string{"bogus.selftest." + string(signed) + ".": ""} // owner: type, "" = all
	for _, s := range scenarios {
		if s.badMX {
			spoiled[s.domain()+"."] = "MX"
		}
		for i, m := range s.mx {
			if m.tlsa == bogus {
				spoiled["_25._tcp."+s.host(i)+"."] = "TLSA"
			}
		}
	}
	lines := strings.Split(zone, "\n")
	for i, line := range lines {
		// owner TTL IN RRSIG type algorithm labels TTL expiration inception tag signer signature
		field := strings.Fields(line)
		if len(field) < 13 || field[3] != "RRSIG" {
			continue
		}
		if kind, found := spoiled[field[0]]; found && (kind == "" || kind == field[4]) {
			field[12] = strings.Repeat("A", len(field[12])-2) + "=="
			lines[i] = strings.Join(field, "\t")
		}
	}
	return strings.Join(lines, "\n")
}

func nsdConfig() string {
	config := `server:
  ip-address: ` + authoritative + `
  username: ""
  zonesdir: "` + zoneFolder + `"
  database: ""
  pidfile: ""
  zonelistfile: "` + zoneFolder + `/zone.list"
  xfrdfile: ""
  server-count: 1
remote-control:
  control-enable: no
`
	for name, file := range map[zone]zone{plain: plain + ".zone", signed: signed + ".zone.signed"} {
		config += fmt.Sprintf("zone:\n  name: %s\n  zonefile: %s\n", name, file)
	}
	return config
}

// unboundConfig knows the lab's zones and refuses everything else. "test." and
// the loopback addresses are special to unbound unless it is told otherwise.
func unboundConfig(address, modules, anchor string) string {
	config := `server:
  interface: ` + address + `
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  username: ""
  chroot: ""
  directory: "` + zoneFolder + `"
  pidfile: ""
  use-syslog: no
  logfile: ""
  val-log-level: 1
  ede: yes
  module-config: "` + modules + `"
  local-zone: "test." nodefault
  local-zone: "." refuse
  local-zone: "` + string(plain) + `." transparent
  local-zone: "` + string(signed) + `." transparent
  trust-anchor-file: "` + anchor + `.key"
  infra-host-ttl: 1
  num-threads: 1
remote-control:
  control-enable: no
`
	for _, z := range []zone{plain, signed} {
		config += fmt.Sprintf("stub-zone:\n  name: %s\n  stub-addr: %s\n", z, authoritative)
	}
	return config
}
