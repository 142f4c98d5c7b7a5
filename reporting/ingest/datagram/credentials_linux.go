package datagram

import (
	"net"

	"golang.org/x/sys/unix"
)

// credentialsSpace is room for one SCM_CREDENTIALS message, which takes 32 bytes (unix(7)).
const credentialsSpace = 64

// askCredentials makes the kernel add who sent to each datagram.
func askCredentials(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	})
	if err != nil {
		return err
	}
	return failed
}

// senderUID is the user who sent, as the kernel saw it.
func senderUID(oob []byte) (uid uint32, ok bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for i := range messages {
		if cred, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			return cred.Uid, true
		}
	}
	return 0, false
}
