package ledger

// For tests of what is on disk.
var Decode = decode

func (e Entry) Encode() []byte { return e.clean().encode(nil) }

const Keep = keep
