package house_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestManual looks for every key of the configuration in its manual page.
func TestManual(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(root(t), filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var items strings.Builder
	for line := range strings.Lines(read("contrib/man/postseal.toml.5")) {
		if strings.HasPrefix(line, ".It Va ") || strings.HasPrefix(line, ".Ss [") {
			items.WriteString(strings.NewReplacer(",", " ", "[", " ", "]", " ").Replace(line))
		}
	}
	described := strings.Fields(items.String())
	source := ""
	for _, name := range []string{"config.go", "mail.go", "reporting.go"} {
		source += read("cmd/postseal/internal/config/" + name)
	}
	keys := regexp.MustCompile("`toml:\"([a-z_]+)").FindAllStringSubmatch(source, -1)
	if len(keys) < 10 {
		t.Fatalf("only %d keys found in the configuration's source", len(keys))
	}
	for _, key := range keys {
		if !slices.Contains(described, key[1]) {
			t.Errorf("contrib/man/postseal.toml.5 does not describe %s", key[1])
		}
	}
}
