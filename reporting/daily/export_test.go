package daily

// Decode reads a stored state.
func Decode(state []byte) Progress { return decode(state) }
