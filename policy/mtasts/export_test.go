package mtasts

// For tests of what no server on loopback can bring about.
var (
	HandshakeError = handshakeError
)
