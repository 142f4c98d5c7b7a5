package mtasts

// For tests of what no server on loopback can bring about.
var (
	IsPublic       = isPublic
	HandshakeError = handshakeError
)
