package overrides

import (
	"fmt"
	"sync"

	"postseal/policy"
)

// Store is the file in the daemon: it changes it and hands every new set of rules
// to Apply. Its methods may be called side by side.
type Store struct {
	Path  string
	Apply func([]policy.Override)

	mu    sync.Mutex
	rules []Rule
}

// Reload reads the file. If it cannot be used, the rules stay as they are.
func (s *Store) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rules, err := Load(s.Path)
	if err != nil {
		return err
	}
	return s.adopt(rules)
}

// List returns the rules in force and those expired, in the order of the file.
func (s *Store) List() []Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rules
}

// Set adds a rule or replaces that for the same domain.
func (s *Store) Set(r Rule) error {
	return s.change(func(rules []Rule) []Rule { return Set(rules, r) })
}

// Remove removes the rule for a domain in canonical form; found tells whether
// there was one.
func (s *Store) Remove(domain string) (found bool, err error) {
	err = s.change(func(rules []Rule) []Rule {
		rules, found = Remove(rules, domain)
		return rules
	})
	return found, err
}

// change works on the file as it is now, which may have been edited by hand since.
func (s *Store) change(f func([]Rule) []Rule) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rules, err := Load(s.Path)
	if err != nil {
		return err
	}
	rules = f(rules)
	if len(rules) > maxRules {
		return fmt.Errorf("%s: more than %d rules", s.Path, maxRules)
	}
	if err := Save(s.Path, rules); err != nil {
		return err
	}
	return s.adopt(rules)
}

func (s *Store) adopt(rules []Rule) error {
	compiled, err := Compile(rules)
	if err != nil {
		return err
	}
	s.rules = rules
	s.Apply(compiled)
	return nil
}
