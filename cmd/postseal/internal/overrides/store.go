package overrides

import (
	"fmt"
	"sync"
	"time"

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

// Set adds a rule or replaces that for the same domain. A rule without an action
// changes requiretls, and the reason if it has one, of the rule in force and
// leaves its action alone. It returns the rule as stored, and the one before it.
func (s *Store) Set(r Rule) (stored Rule, replaced *Rule, err error) {
	err = s.change(func(rules []Rule) ([]Rule, error) {
		replaced = find(rules, r.Domain)
		var err error
		if stored, err = amend(replaced, r); err != nil {
			return nil, err
		}
		return Set(rules, stored), nil
	})
	return stored, replaced, err
}

// amend is r, with the action of the rule before it if it has none of its own.
func amend(old *Rule, r Rule) (Rule, error) {
	if r.Action != "" || old == nil || old.Action == "" || old.Expired(time.Now()) {
		return r, nil
	}
	if !r.Expires.IsZero() {
		return r, wrong("expires", "would be that of %s too, which %s has already: name the action again", old.Action, r.Domain)
	}
	amended := *old
	amended.RequireTLS, amended.Author, amended.Created = r.RequireTLS, r.Author, r.Created
	if r.Reason != "" {
		amended.Reason = r.Reason
	}
	return amended, nil
}

// Remove removes the rule for a domain in canonical form and returns it; nil if
// there was none.
func (s *Store) Remove(domain string) (removed *Rule, err error) {
	err = s.change(func(rules []Rule) ([]Rule, error) {
		removed = find(rules, domain)
		rules, _ = Remove(rules, domain)
		return rules, nil
	})
	return removed, err
}

func find(rules []Rule, domain string) *Rule {
	for _, r := range rules {
		if r.Domain == domain {
			return &r
		}
	}
	return nil
}

// change works on the file as it is now, which may have been edited by hand since.
func (s *Store) change(f func([]Rule) ([]Rule, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rules, err := Load(s.Path)
	if err != nil {
		return err
	}
	if rules, err = f(rules); err != nil {
		return err
	}
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
