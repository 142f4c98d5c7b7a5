package edit

// Undo, for tests.
func Undo(before, after, current string) (string, []string) {
	text, changed := undo([]byte(before), []byte(after), []byte(current))
	return string(text), changed
}
