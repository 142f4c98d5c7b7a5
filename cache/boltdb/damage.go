package boltdb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// damage says what is wrong with a file that must not be used.
type damage struct{ what string }

func (d *damage) Error() string { return d.what }

func damaged(format string, args ...any) error { return &damage{fmt.Sprintf(format, args...)} }

// asideTime is the time in the name of a file that was set aside, in UTC.
const asideTime = "20060102T150405Z"

// setAside renames the file of g and returns d, or why renaming was impossible.
// A name that leads to another file by now is left alone.
func (db *DB) setAside(g *file, d *damage) error {
	now, err := os.Stat(db.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(g.info, now) {
		db.o.Log.Error("state file was damaged and replaced from outside", "file", db.path, "reason", d.what)
		return d
	}
	if err != nil {
		return fmt.Errorf("state file %s is damaged (%s) and cannot be set aside: %w", db.path, d.what, err)
	}
	aside, err := db.asideName()
	if err == nil {
		err = os.Rename(db.path, aside)
	}
	if err == nil {
		err = syncFolder(db.path)
	}
	if err != nil {
		return fmt.Errorf("state file %s is damaged (%s) and cannot be set aside: %w", db.path, d.what, err)
	}
	db.o.Log.Error("state file cannot be used and was set aside", "file", db.path, "kept_as", aside, "reason", d.what,
		"effect", "a new empty file takes its place; what was remembered in the old one is not known any more")
	return d
}

// asideName finds a name that is not taken.
func (db *DB) asideName() (string, error) {
	const most = 1000 // in one second; more is a loop of ours
	base := db.path + ".damaged-" + db.o.Now().UTC().Format(asideTime)
	name := base
	for n := 2; n < most; n++ {
		_, err := os.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return name, nil
		}
		if err != nil {
			return "", err
		}
		name = fmt.Sprintf("%s-%d", base, n)
	}
	return "", fmt.Errorf("%s and %d more exist", base, most)
}
