//go:build race

package datagram_test

// burst is less, since the race detector makes a datagram ten times as slow.
const burst = 30_000
