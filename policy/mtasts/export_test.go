package mtasts

// IsPublic is for tests: no test may connect to a public address.
var IsPublic = isPublic
