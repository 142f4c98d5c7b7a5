//go:build !race

package datagram_test

// burst is ten seconds of 20 000 datagrams.
const burst = 200_000
