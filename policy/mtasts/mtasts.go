// Package mtasts implements the sending side of SMTP MTA Strict Transport
// Security, RFC 8461: it finds a domain's policy and matches MX hosts with it.
//
// A domain announces a policy with a TXT record at _mta-sts.DOMAIN (§3.1,
// [LookupRecord]). The record holds only an id; a changed id means a changed
// policy. The policy itself is a small text at a fixed HTTPS address (§3.2,
// [Fetcher.Fetch], [ParsePolicy]): how strict to be, which MX hosts are right
// ([Policy.Match], §4.1), and for how long a sender shall remember all this.
// Whoever can forge DNS but holds no certificate for mta-sts.DOMAIN can hide a
// policy never seen before, but neither invent one nor shorten a remembered
// one. Hence a failure to get a policy must never remove a remembered one.
//
// The package remembers nothing; package policy does. Domains are given as
// A-labels in lower case without the final dot.
package mtasts
