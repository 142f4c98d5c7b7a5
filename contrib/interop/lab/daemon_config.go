package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Who is who at the site that sends mail.
const (
	daemonAddress = "127.0.0.1"
	sender        = "sender@lab.test"
	confidential  = "confidential@lab.test" // whose mail requires TLS by a rule of the milter
	localDomain   = "local.lab.test"        // of the site itself
	lmtpNexthop   = "inet:[" + daemonAddress + "]:8463"
)

// configure writes the daemon's config; start, or a new start, obeys it.
func (d *daemon) configure() error {
	if err := os.MkdirAll(filepath.Join(d.folder, "state"), 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf(`# written by the lab
state_dir = %[1]q

[host]
dane = true

[dns]
servers = [%[2]q]
trust_ad = "auto"
self_test_signed = ["one.selftest.%[3]s", "two.selftest.%[3]s"]
self_test_unsigned = "one.selftest.%[4]s"
self_test_bogus = "bogus.selftest.%[3]s"

[sts]
ca_file = %[5]q
allow_private_addresses = true

[socketmap]
listen = [%[6]s]
mode = "0666" # Postfix asks as the user postfix

[control]
listen = ["unix:%[7]s"]

[http]
listen = []

[exim]
listen = ["tcp:%[8]s"]
`, filepath.Join(d.folder, "state"), d.resolver+":53", signed, plain, d.authority,
		d.sockets("map.sock", d.mapping), filepath.Join(d.folder, "control.sock"), d.exim)
	return os.WriteFile(d.config, []byte(text+d.fallback()), 0o644)
}

// fallback is the part of the config for milter and delivery.
func (d *daemon) fallback() string {
	text := fmt.Sprintf(`
[milter]
listen = [%[1]s]
mode = "0666"
trusted_networks = ["127.0.0.0/24"] # not all of 127/8: the lab's strangers are there

[[milter.rule]]
sender = %[2]q
tag = "requiretls"

[delivery]
listen = [%[3]s]
requiretls_listen = [%[4]s]
relaxed_listen = [%[5]s]
mode = "0666"
hostname = "postseal.lab.test"
ca_file = %[6]q
allow_private_addresses = true
nexthop = %[7]q
for = ["mixed", %[8]q]
local_domains = [%[9]q]
`, d.sockets("milter.sock", d.address+":8462"), confidential,
		d.sockets("lmtp.sock", d.address+":8463"), d.sockets("lmtp-requiretls.sock", d.address+":8465"),
		d.sockets("lmtp-relaxed.sock", d.address+":8466"), d.authority, lmtpNexthop, byName("bulk-fallback").domain(), localDomain)
	if d.localRelay != "" {
		text += fmt.Sprintf("local_relay = %q\n", "tcp:"+d.localRelay)
	}
	return text
}

// sockets is a list of listeners: one file in each folder, and a TCP address.
func (d *daemon) sockets(file, tcp string) string {
	all := []string{strconv.Quote("tcp:" + tcp)}
	for _, folder := range d.folders {
		all = append(all, strconv.Quote("unix:"+filepath.Join(folder, file)))
	}
	return strings.Join(all, ", ")
}
