package setup

// Undo, for tests.
func Undo(before, after, current string) (string, []string) {
	text, changed := undo([]byte(before), []byte(after), []byte(current))
	return string(text), changed
}

// Wrote has f called after each file that Apply writes, to end it there.
func (s *System) Wrote(f func(path string) error) { s.wrote = f }

// Sets are all settings of contrib/postfix that a set has.
func Sets() []string {
	var all []string
	for _, set := range [][]string{policySet, routingSet, tagSet, datagramSet} {
		all = append(all, set...)
	}
	return all
}

// Settings are those of files of contrib/postfix, by name.
func Settings(names ...string) map[string]string {
	all := map[string]string{}
	for _, s := range settings(names...) {
		all[s.name] = s.value
	}
	return all
}

// Services are those of contrib/postfix/master.cf.
func Services() map[string]string {
	all := map[string]string{}
	for _, s := range services() {
		all[s.name] = s.entry
	}
	return all
}

// SplitList takes a list of Postfix apart.
func SplitList(list string) []string { return splitList(list) }
