// Conformance keeps the list of every requirement that postseal follows, each
// with the test that holds it, the step of the project that brings it, or the
// reason why it does not apply.
//
// The list is items.txt beside this file. The requirements are numbered after
// the documents they come from: STS (RFC 8461), DANE (RFC 7672, 7671, 6698), SM
// and MIL (the socketmap and milter protocols as Postfix and Sendmail speak
// them), RT (RFC 8689), SMTP (RFC 5321, 3207, 9325 and others), RPT (RFC 8460),
// SEED (what drafts of these said and the RFCs do not). A test names the item
// that it holds at the start of its subtest's name:
//
//	t.Run("STS-012 strings are joined", …)
//
// What only real mail servers show stands with the story of contrib/interop that
// shows it; CI runs all of these.
//
// The test of this folder compares the list with the test files. What only a
// run can show is asked of the command:
//
//	go run ./contrib/conformance                    differences between the list and the test files
//	go test -json ./... > ran.json
//	go run ./contrib/conformance -ran ran.json      has every test of the list run and passed?
//	go run ./contrib/conformance -ran ran.json -update   write the tests that ran into the list
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	ran := flag.String("ran", "", "`file` with the output of go test -json ./...")
	update := flag.Bool("update", false, "write the tests of -ran that passed into the list")
	root := flag.String("root", ".", "`folder` of the repository")
	flag.Parse()
	complaints, err := run(*root, *ran, *update)
	if err != nil {
		fmt.Fprintf(os.Stderr, "conformance: %v\n", err)
		os.Exit(2)
	}
	for _, complaint := range complaints {
		fmt.Println(complaint)
	}
	if len(complaints) > 0 {
		os.Exit(1)
	}
}

// run returns what is wrong with the list, one line each.
func run(root, ran string, update bool) ([]string, error) {
	path := filepath.Join(root, "contrib", "conformance", "items.txt")
	list, err := readList(path)
	if err != nil {
		return nil, err
	}
	if ran == "" {
		written, err := scan(root)
		if err != nil {
			return nil, err
		}
		lab, err := scanLab(root)
		if err != nil {
			return nil, err
		}
		return compare(list, written, lab), nil
	}
	results, err := readRun(ran)
	if err != nil {
		return nil, err
	}
	if update {
		if failed := broken(results); len(failed) > 0 {
			return nil, fmt.Errorf("the list is only updated from a run that passed, but these failed: %s", strings.Join(failed, ", "))
		}
		list.fill(results)
		if err := os.WriteFile(path, []byte(list.String()), 0o644); err != nil {
			return nil, err
		}
	}
	complaints := list.check(results)
	if len(complaints) == 0 {
		fmt.Println(list.summary())
	}
	return complaints, nil
}
