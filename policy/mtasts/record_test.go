package mtasts_test

import (
	"errors"
	"strings"
	"testing"

	"postseal/policy/mtasts"
)

func TestParseRecord(t *testing.T) {
	const id32 = "abcdefghijABCDEFGHIJ012345678901"
	good := func(name, id string, warnings int, txts ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			r, err := mtasts.ParseRecord(txts)
			if err != nil || r.ID != id || len(r.Warnings) != warnings {
				t.Errorf("ParseRecord(%q) = %+v, %v; want id %q with %d warnings", txts, r, err, id, warnings)
			}
		})
	}
	none := func(name string, want error, txts ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			if r, err := mtasts.ParseRecord(txts); !errors.Is(err, want) {
				t.Errorf("ParseRecord(%q) = %+v, %v; want %v", txts, r, err, want)
			}
		})
	}
	bad := func(name, reason string, txts ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			r, err := mtasts.ParseRecord(txts)
			var malformed *mtasts.RecordError
			if !errors.As(err, &malformed) || !strings.Contains(malformed.Reason, reason) {
				t.Errorf("ParseRecord(%q) = %+v, %v; want a RecordError with %q", txts, r, err, reason)
			}
		})
	}

	good("STS-013 others are dropped first", "1", 0, "google-site-verification=x", "v=STSv1; id=1;")
	good("STS-013 a near miss is an other", "1", 0, "v=STSv10; id=2;", "v=STSv1; id=1;", "v=STSv1")
	none("STS-014 two different records", mtasts.ErrSeveralRecords, "v=STSv1; id=1;", "v=STSv1; id=2;")
	none("STS-014 two equal records", mtasts.ErrSeveralRecords, "v=STSv1; id=1;", "v=STSv1; id=1;")
	none("STS-014 one of two is malformed", mtasts.ErrSeveralRecords, "v=STSv1; id=1;", "v=STSv1;")
	none("STS-014 none", mtasts.ErrNoRecord)
	none("STS-014 only others", mtasts.ErrNoRecord, "v=spf1 -all", "")
	bad("STS-014 no id", "id is missing", "v=STSv1;")

	for _, txt := range []string{"id=1; v=STSv1;", "V=STSv1; id=1;", "v=stsv1; id=1;", "v=STSv2; id=1;", " v=STSv1; id=1;", "v =STSv1; id=1", "v= STSv1; id=1", "v=STSv1", "v=STSv1 id=1;", "v=STSv1, id=1;"} {
		none("STS-015 "+txt, mtasts.ErrNoRecord, txt)
	}

	good("STS-016 32 characters", id32, 0, "v=STSv1; id="+id32)
	bad("STS-016 33 characters", "1 to 32", "v=STSv1; id="+id32+"x")
	bad("STS-016 empty", "1 to 32", "v=STSv1; id=;")
	bad("STS-016 punctuation", "1 to 32", "v=STSv1; id=2026-01-01")
	bad("STS-016 name is case-sensitive", "id is missing", "v=STSv1; ID=1")
	bad("STS-016 blank in the id", "1 to 32", "v=STSv1; id=1 2;")
	bad("STS-016 blank before the id", "1 to 32", "v=STSv1; id= 1;")
	bad("STS-016 blank after the name", "field name", "v=STSv1; id =1;")

	good("STS-017 no blank", "a", 0, "v=STSv1;id=a")
	good("STS-017 final semicolon", "a", 0, "v=STSv1; id=a;")
	good("STS-017 tabs", "a", 0, "v=STSv1;\tid=a\t;\t")
	good("STS-017 many blanks", "a", 0, "v=STSv1; \t  id=a  \t ;  ")
	bad("STS-017 two semicolons", "nothing between", "v=STSv1;; id=a")
	bad("STS-017 two final semicolons", "nothing between", "v=STSv1; id=a;;")
	bad("STS-017 final blank without semicolon", "1 to 32", "v=STSv1; id=a ")
	bad("STS-017 line feed is no blank", "field name", "v=STSv1;\nid=a")

	good("STS-018 blank before the first semicolon", "a", 1, "v=STSv1 ; id=a;")
	good("STS-018 tab before the first semicolon", "a", 1, "v=STSv1 \t; id=a")
	none("STS-018 with a second record", mtasts.ErrSeveralRecords, "v=STSv1 ; id=a;", "v=STSv1; id=b;")

	good("STS-019 unknown field", "a", 0, "v=STSv1; foo=bar; id=a;")
	good("STS-019 unknown field behind", "a", 0, `v=STSv1; id=a; 0-x_y.z=!"#$%&'()*+,-./:<>?@[\]^_{|}~;`)
	good("STS-019 name of 32", "a", 0, "v=STSv1; id=a; "+id32+"=x")
	bad("STS-019 name of 33", "field name", "v=STSv1; id=a; "+id32+"x=x")
	bad("STS-019 no value", `no "="`, "v=STSv1; id=a; foo;")
	bad("STS-019 empty value", "invalid value", "v=STSv1; id=a; foo=;")
	bad("STS-019 second equals sign", "invalid value", "v=STSv1; id=a; f=x=y;")
	bad("STS-019 space in a value", "invalid value", "v=STSv1; id=a; f=x y;")
	bad("STS-019 name begins with a hyphen", "field name", "v=STSv1; id=a; -f=x;")
	bad("STS-019 empty name", "field name", "v=STSv1; id=a; =x;")

	good("STS-020 first id wins", "a", 1, "v=STSv1; id=a; id=b;")
	good("STS-020 first id wins over an invalid one", "a", 1, "v=STSv1; id=a; id=2026-01-01;")
	bad("STS-020 first id is invalid", "1 to 32", "v=STSv1; id=2026-01-01; id=a;")
	good("STS-020 repeated version", "a", 0, "v=STSv1; v=STSv2; id=a;")

	good("STS-021 case of the id is kept", "AbC", 0, "v=STSv1; id=AbC;")

	bad("STS-022 id in UTF-8", "1 to 32", "v=STSv1; id=\xc3\xa9;")
	bad("STS-022 value in UTF-8", "invalid value", "v=STSv1; id=a; f=\xc3\xa9;")
	bad("STS-022 name in UTF-8", "field name", "v=STSv1; id=a; \xc3\xa9=f;")
	bad("STS-022 NUL", "1 to 32", "v=STSv1; id=a\x00;")
	bad("STS-022 DEL", "invalid value", "v=STSv1; id=a; f=\x7f;")

	none("SEED-001 record of 2016", mtasts.ErrNoRecord, "v=STS1; to=true; mx=*.example.org; a=dnssec; c=webpki; e=86400")
	bad("SEED-004 id with punctuation", "1 to 32", "v=STSv1; id=20260101.1")
	bad("SEED-004 id of 33 characters", "1 to 32", "v=STSv1; id="+id32+"3")
}

func TestRecordErrorIsPrintable(t *testing.T) {
	_, err := mtasts.ParseRecord([]string{"v=STSv1; \x1b[31m\xff\r\n=" + strings.Repeat("\x00", 60000)})
	checkPrintable(t, err.Error(), 600)
}

// checkPrintable checks a message that holds words of a stranger.
func checkPrintable(t *testing.T, s string, limit int) {
	t.Helper()
	if len(s) > limit {
		t.Errorf("%d bytes, more than %d: %s", len(s), limit, s)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			t.Fatalf("unprintable byte %#x in %q", s[i], s)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, s := range []string{
		"v=STSv1; id=20260101;", "v=STSv1 ;\tid=a\t;\t", "v=STSv1; foo=bar; id=a; id=b", "v=STSv1;", "v=STSv1;;",
		"v=STSv1; id=\xc3", "v=STS1; to=true", "v=STSv1; f=x=y; id=1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, txt string) {
		r, err := mtasts.ParseRecord([]string{"other", txt})
		if err != nil {
			checkPrintable(t, err.Error(), 900)
			if r.ID != "" {
				t.Errorf("id %q in spite of %v", r.ID, err)
			}
			return
		}
		if len(r.ID) < 1 || len(r.ID) > 32 || strings.Trim(r.ID, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			t.Errorf("id %q", r.ID)
		}
		if !strings.HasPrefix(txt, "v=STSv1") || !strings.Contains(txt, "id="+r.ID) {
			t.Errorf("id %q from %q", r.ID, txt)
		}
		if again, err := mtasts.ParseRecord([]string{"v=STSv1; id=" + r.ID}); err != nil || again.ID != r.ID {
			t.Errorf("id %q is not stable: %+v, %v", r.ID, again, err)
		}
		for _, w := range r.Warnings {
			checkPrintable(t, w, 200)
		}
	})
}
