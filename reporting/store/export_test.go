package store

import "postseal/reporting"

// AppendKey and DecodeKey are the form in which keys are stored.
func AppendKey(dst []byte, k *reporting.Key) []byte { return appendKey(dst, k) }

func DecodeKey(b []byte) (reporting.Key, bool) { return decodeKey(b) }
