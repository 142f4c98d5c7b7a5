package socketmap_test

import (
	"bytes"
	"strings"
	"testing"

	"postseal/socketmap"
)

func TestParseFrame(t *testing.T) {
	good := []struct{ name, in, content, rest string }{
		{"SM-001 the example", "19:postfix example.com,", "postfix example.com", ""},
		{"SM-001 empty", "0:,", "", ""},
		{"SM-006 leading zeros", "005:a b c,", "a b c", ""},
		{"SM-006 nine digits", "000000001:a,", "a", ""},
		{"SM-008 more behind", "1:a,1:b,", "a", "1:b,"},
		{"SM-007 any octets", "4:\x00,:\xff,", "\x00,:\xff", ""},
		{"SM-005 the limit", "10000:" + strings.Repeat("x", 10000) + ",", strings.Repeat("x", 10000), ""},
	}
	for _, c := range good {
		t.Run(c.name, func(t *testing.T) {
			content, size, _, err := socketmap.ParseFrame([]byte(c.in))
			if err != nil || string(content) != c.content || c.in[size:] != c.rest {
				t.Errorf("got %q, %d, %v", content, size, err)
			}
		})
	}
	bad := []struct{ name, in string }{
		{"SM-006 sign", "+5:"},
		{"SM-006 minus", "-1:,"},
		{"SM-006 blank", " 5:"},
		{"SM-006 no colon", "5;"},
		{"SM-006 no digits", ":"},
		{"SM-006 letter", "x:"},
		{"SM-006 no comma", "5:abcdex"},
		{"SM-006 ten digits", "0000000001"},
		{"SM-005 long length", "99999999999:"},
		{"SM-005 one octet too many", "10001"},
		{"SM-006 hexadecimal", "0x5"},
		{"SM-006 newline", "\n5:"},
		{"HTTP", "GET / HTTP/1.1\r\n"},
	}
	for _, c := range bad {
		t.Run(c.name, func(t *testing.T) {
			if content, size, need, err := socketmap.ParseFrame([]byte(c.in)); err == nil {
				t.Errorf("got %q, %d, %d", content, size, need)
			}
		})
	}
	for _, in := range []string{"", "1", "000000001", "5:", "5:abc", "5:abcde"} {
		t.Run("SM-006 incomplete "+in, func(t *testing.T) {
			if _, size, need, err := socketmap.ParseFrame([]byte(in)); err != nil || size != 0 || need <= len(in) {
				t.Errorf("got %d, %d, %v", size, need, err)
			}
		})
	}
}

func FuzzNetstring(f *testing.F) {
	for _, s := range []string{"19:postfix example.com,", "0:,", "5:abcdex", "99999999999:", "005:a b c,7:", "-1:,", "10000:x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		content, size, need, err := socketmap.ParseFrame(in)
		switch {
		case err != nil:
		case size == 0:
			if need <= len(in) || need > 10_000+11 {
				t.Fatalf("%q: needs %d of %d", in, need, len(in))
			}
			for i := range in { // a prefix of what is incomplete is incomplete
				if _, size, _, err := socketmap.ParseFrame(in[:i]); err != nil || size != 0 {
					t.Fatalf("%q: %d, %v", in[:i], size, err)
				}
			}
		default:
			again, n, _, err := socketmap.ParseFrame([]byte(frame(string(content))))
			if err != nil || !bytes.Equal(again, content) || n > size {
				t.Fatalf("%q: %q, then %q, %v", in, content, again, err)
			}
		}
	})
}
