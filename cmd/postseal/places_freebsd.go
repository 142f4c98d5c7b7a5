package main

// Where the daemon listens, and keeps its state, when rc.d starts it by
// contrib/freebsd/postseal. An administrator's shell has not its environment.
const (
	serviceSocket = "/var/run/postseal/control.sock"
	serviceState  = "/var/db/postseal"
)
