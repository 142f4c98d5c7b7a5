//go:build !freebsd

package main

// Where the daemon listens, and keeps its state, when systemd starts it
// (RuntimeDirectory=postseal, StateDirectory=postseal). An administrator's shell has
// not its environment.
const (
	serviceSocket = "/run/postseal/control.sock"
	serviceState  = "/var/lib/postseal"
)
