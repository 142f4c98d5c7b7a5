// Package postfix carries the files of its folder, the lines that Postfix needs to
// work with postseal, each with its reason in a comment above it (postconf(5),
// master(5)). The program reads them from here for "postseal setup postfix", the lab
// runs Postfix with the same files, and an administrator may copy them by hand, so
// there is one text of them.
package postfix

import "embed"

// Files are main.cf and what goes behind it, master.cf and milter_header_checks.
//
//go:embed main.cf main_3.10.cf main_3.11.cf main_tlsrpt.cf master.cf milter_header_checks
var Files embed.FS
