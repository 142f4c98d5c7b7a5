package ingest_test

import (
	"postseal/reporting/ingest"
	"postseal/reporting/ingest/maillog"
)

// reader makes readers of one format.
func reader(format string) func(maillog.Options) maillog.Reader {
	return func(o maillog.Options) maillog.Reader {
		r, err := ingest.New(format, o)
		if err != nil {
			panic(err)
		}
		return r
	}
}

var newSendmail = reader("sendmail")
