package cache_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

func names(n int) []string {
	s := make([]string, n)
	for i := range s {
		s[i] = fmt.Sprintf("destination-%06d.example", i)
	}
	return s
}

func BenchmarkPeek(b *testing.B) {
	c := over(nil, 16384)
	keys := make([][]byte, 10_000)
	for i, name := range names(len(keys)) {
		c.Put(name, named(name))
		keys[i] = []byte(name)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, ok := c.Peek(keys[i%len(keys)]); !ok {
			b.Fatal("not found")
		}
		i++
	}
}

func BenchmarkPeekParallel(b *testing.B) {
	c := over(nil, 16384)
	c.Put("a.example", named("a.example"))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		key := []byte("a.example")
		for pb.Next() {
			c.Peek(key)
		}
	})
}

// BenchmarkGetFromDisk asks for 10 000 names in turn with room for 10.
func BenchmarkGetFromDisk(b *testing.B) {
	c := over(newDB(b), 10)
	keys := names(10_000)
	for _, name := range keys {
		c.Put(name, named(name))
	}
	flush(b, c)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, ok := c.Get(keys[i%len(keys)]); !ok {
			b.Fatal("not found")
		}
		i++
	}
}

func BenchmarkPut(b *testing.B) {
	c := over(newDB(b), 16384)
	keys := names(50_000)
	e := make([]*entry, len(keys))
	for i, name := range keys {
		e[i] = named(name)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		c.Put(keys[i%len(keys)], e[i%len(keys)])
		i++
	}
}

// BenchmarkBatch writes 500 changed entries of 1 KB among 10 000 on disk.
func BenchmarkBatch(b *testing.B) {
	c := over(newDB(b), 16384)
	keys, text := names(10_000), strings.Repeat("x", 1000)
	for _, name := range keys {
		c.Put(name, &entry{name: name, text: text})
	}
	flush(b, c)
	i := 0
	for b.Loop() {
		for range 500 {
			name := keys[i*7919%len(keys)]
			c.Put(name, &entry{name: name, text: text})
			i++
		}
		flush(b, c)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*500), "ns/record")
}

// BenchmarkMemory reports what 100 000 entries take, without and with the
// values and their names (about 100 bytes here).
func BenchmarkMemory(b *testing.B) {
	const entries = 100_000
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	var own, whole float64
	for b.Loop() {
		start := heap()
		values := make([]*entry, entries)
		for i, name := range names(entries) {
			values[i] = named(name)
		}
		before := heap()
		c := over(nil, entries)
		for _, e := range values {
			c.Put(e.name, e)
		}
		after := heap()
		own, whole = (after-before)/entries, (after-start)/entries
		runtime.KeepAlive(c)
		runtime.KeepAlive(values)
	}
	b.ReportMetric(own, "B/entry")
	b.ReportMetric(whole, "B/entry-with-value")
}
