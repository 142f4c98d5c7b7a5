package probe

// Waits reports whether a domain waits to be asked, or is being asked.
func (p *Prober) Waits() bool {
	waits := false
	p.waiting.Range(func(any, any) bool {
		waits = true
		return false
	})
	return waits
}
