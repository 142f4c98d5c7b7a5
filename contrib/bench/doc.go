// Package bench measures postseal as a process: memory with many domains
// remembered, and the time from exec to the first answer. What can be measured
// inside of a process is measured beside the code.
//
//	go test ./contrib/bench -run '^$' -bench Daemon -benchtime 1x -domains 100000
//
// fills a database through real lookups, over DNS and HTTPS on loopback, in a
// process of its own, and then starts the real daemon on it.
package bench
