package socketmap

import (
	"errors"
	"strconv"
)

const (
	// maxRequest is what Postfix 3.12 limits itself to; Sendmail cuts keys at 256
	// octets. The longest domain name has 253.
	maxRequest = 10_000

	// maxReply is what Postfix reads (socketmap_max_reply_size); Sendmail reads
	// ten times that.
	maxReply = 100_000

	// maxDigits of a length; Sendmail has the same limit. More cannot be meant.
	maxDigits = 9
)

var errFrame = errors.New("malformed or over-long netstring")

// parseFrame reads the netstring that begins buf: decimal length, ":", as many
// octets, ",". It returns the content and the size of the whole, or size 0 if
// more must be read, and then how much buf must hold at least. Leading zeros are
// tolerated. After errFrame there is no way to tell where the next begins.
func parseFrame(buf []byte) (content []byte, size, need int, err error) {
	length, i := 0, 0
	for ; i < len(buf) && '0' <= buf[i] && buf[i] <= '9'; i++ {
		length = 10*length + int(buf[i]-'0')
		if length > maxRequest || i == maxDigits {
			return nil, 0, 0, errFrame
		}
	}
	if i == len(buf) {
		return nil, 0, i + 1, nil
	}
	if i == 0 || buf[i] != ':' {
		return nil, 0, 0, errFrame
	}
	start, end := i+1, i+1+length
	if end >= len(buf) {
		return nil, 0, end + 1, nil
	}
	if buf[end] != ',' {
		return nil, 0, 0, errFrame
	}
	return buf[start:end], end + 1, 0, nil
}

const reserved = "000000:" // room for the length of a reply, maxReply at most

// beginFrame makes room for the length of a netstring whose content is appended
// next; start is for endFrame.
func beginFrame(dst []byte) (_ []byte, start int) {
	return append(dst, reserved...), len(dst)
}

// endFrame writes the length, without leading zeros, and the final comma.
func endFrame(dst []byte, start int) []byte {
	content := dst[start+len(reserved):]
	header := strconv.AppendInt(dst[start:start], int64(len(content)), 10)
	header = append(header, ':')
	n := copy(dst[start+len(header):], content)
	return append(dst[:start+len(header)+n], ',')
}
