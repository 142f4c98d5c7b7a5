// Package sendmail carries the files of its folder, which sendmail.mc includes to
// work with postseal: one above the MAILER lines and one below (cf/README of
// Sendmail). The head of postseal.m4 says what they do. The program installs them for
// "postseal setup sendmail" where no package has, and the lab builds its sendmail.cf
// from the same files.
package sendmail

import "embed"

// Files are the two files that are included.
//
//go:embed postseal.m4 postseal_rules.m4
var Files embed.FS
