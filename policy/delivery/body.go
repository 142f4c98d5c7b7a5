package delivery

import "sync/atomic"

// budget counts what all messages together keep in memory.
type budget struct{ used atomic.Int64 }
