// Package overrides keeps the operator's rules in a file of their own. They come
// before whatever a domain publishes: exempt delivers with whatever TLS there is,
// require demands a level, pin stands in for the published MTA-STS policy.
//
// The file is never set aside and never skipped over: a rule that was lost could
// be the one that keeps a partner's mail encrypted. What cannot be read, or makes
// no sense, is an error with file, line and key. Save writes a new file, syncs it
// and renames it over the old one, so that a crash leaves one or the other.
package overrides

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"

	"postseal/cmd/postseal/internal/tomlfile"
	"postseal/policy"
)

// maxSize and maxRules bound the file: an operator's rules are written by hand.
const (
	maxSize  = 16 << 20
	maxRules = 10000
)

// header is written at the top of the file.
const header = `# Rules of the operator, see "postseal override --help". The program rewrites this
# file: comments are not kept. After a change by hand: systemctl reload postseal,
# or kill -HUP.

`

type content struct {
	Override []Rule `toml:"override"`
}

// Load reads the rules of a file; one that does not exist has none. One of no
// bytes is damaged: Save never writes it, a full disk does.
func Load(path string) ([]Rule, error) {
	text, err := tomlfile.Read(path, maxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, fmt.Errorf("%s: empty, so its rules are lost: restore it, or remove it if there shall be none", path)
	}
	return Parse(path, string(text))
}

// Parse reads the rules of a file's text and puts their domains into canonical
// form. Each is valid by itself, and no two are for the same domain.
func Parse(name, text string) ([]Rule, error) {
	var c content
	f, err := tomlfile.Decode(name, text, &c)
	if err != nil {
		return nil, err
	}
	if len(c.Override) > maxRules {
		return nil, fmt.Errorf("%s: more than %d rules", name, maxRules)
	}
	seen := map[string]int{}
	for i := range c.Override {
		rule, number := &c.Override[i], i+1
		if err := rule.Normalize(); err != nil {
			key := fmt.Sprintf("override.%d", number)
			if field, ok := errors.AsType[*FieldError](err); ok {
				return nil, f.Error(key+"."+field.Field, "%v", field.Err)
			}
			return nil, f.Error(key, "%v", err)
		}
		if first, ok := seen[rule.Domain]; ok {
			return nil, f.Error(fmt.Sprintf("override.%d.domain", number), "%s has a rule already, the one with number %d", rule.Domain, first)
		}
		seen[rule.Domain] = number
	}
	return c.Override, nil
}

// Compile turns rules as Load gives them into those of the engine.
func Compile(rules []Rule) ([]policy.Override, error) {
	list := make([]policy.Override, 0, len(rules))
	for _, r := range rules {
		o, err := r.Compile()
		if err != nil {
			return nil, fmt.Errorf("override of %s: %w", r.Domain, err)
		}
		list = append(list, o)
	}
	return list, nil
}

// Set returns rules with r in the place of one for the same domain, or at the end.
func Set(rules []Rule, r Rule) []Rule {
	list, replaced := make([]Rule, 0, len(rules)+1), false
	for _, old := range rules {
		if old.Domain == r.Domain {
			old, replaced = r, true
		}
		list = append(list, old)
	}
	if !replaced {
		list = append(list, r)
	}
	return list
}

// Remove returns rules without that for domain, and whether there was one.
func Remove(rules []Rule, domain string) ([]Rule, bool) {
	var list []Rule
	for _, r := range rules {
		if r.Domain != domain {
			list = append(list, r)
		}
	}
	return list, len(list) < len(rules)
}

// Save writes the file (mode 0600) so that after a crash it has either the old
// content or the new.
func Save(path string, rules []Rule) (err error) {
	var b strings.Builder
	b.WriteString(header)
	enc := toml.NewEncoder(&b)
	enc.Indent = ""
	if err := enc.Encode(content{rules}); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".overrides-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.WriteString(b.String())
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// temporary is a name that Save gave, as os.CreateTemp fills it in.
var temporary = regexp.MustCompile(`^\.overrides-[0-9]+$`)

// Sweep removes what Save left behind in a folder when the program was killed.
// Nobody may be saving there meanwhile.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Type().IsRegular() && temporary.MatchString(e.Name()) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// syncDir makes the new name durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
