package dnssec_test

import (
	"net"
	"testing"

	"postseal/policy/dnssec/dnstest"
)

// BenchmarkLookup compares a lookup with a round trip of the same size to a
// bare echo, each with a socket of its own. The server's work is included.
func BenchmarkLookup(b *testing.B) {
	b.Run("client", func(b *testing.B) {
		c := dnstest.New(b, testZone, "example.org").Client()
		b.ReportAllocs()
		for b.Loop() {
			if a, err := c.LookupTLSA(b.Context(), "_25._tcp.mx.example.org"); err != nil || len(a.Records) != 1 {
				b.Fatal(a, err)
			}
		}
	})
	b.Run("echo", func(b *testing.B) {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			b.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			buf := make([]byte, 512)
			for {
				n, from, err := conn.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				conn.WriteToUDPAddrPort(buf[:n], from)
			}
		}()
		defer func() { conn.Close(); <-done }()
		to := conn.LocalAddr().(*net.UDPAddr)
		buf := make([]byte, 512)
		b.ReportAllocs()
		for b.Loop() {
			c, err := net.DialUDP("udp", nil, to)
			if err != nil {
				b.Fatal(err)
			}
			c.Write(buf[:100])
			c.Read(buf)
			c.Close()
		}
	})
}
