package doctor

// For the tests: the space on a disk cannot be had as wanted.
func Room(free uint64, name string) []Finding { return room(free, name) }
