package postfix

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
