// Package exim carries the files of its folder, which Exim includes to work with
// postseal: macros, ACL lines, routers and transports (Exim specification, chapter 6).
// The head of the file main says where each belongs. The program installs them for
// "postseal setup exim" where no package has, and the lab runs Exim with the same
// files.
package exim

import "embed"

// Files are all files that are included.
//
//go:embed main acl acl_data acl_not_smtp routers transports event_options lmtp_options message_options session_options
var Files embed.FS
