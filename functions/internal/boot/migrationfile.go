// Package boot turns what surrounds the engine (the migration file, the environment, secrets) into checked values, and
// reports everything that is wrong with it at once.
package boot

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// File is the checked content of a migration file, secrets resolved. It may be printed: a Desk shows no secret.
type File struct {
	Migration      delta.Migration
	Source, Target Desk
	Backup         Backup
	// Owner looks at the exceptions every day; Decider may stop the migration and decides what is held. Both are named where
	// people read of it.
	Owner, Decider Contact
}

// Backup says where a backup run writes the source to.
type Backup struct {
	Folder string // a relative one is resolved against the migration file's; empty without a backup section
}

// Contact is a person of the migration's own.
type Contact struct{ Name, Email string }

// String returns "Name <email>".
func (c Contact) String() string { return c.Name + " <" + c.Email + ">" }

// Options are what Load needs besides the file.
type Options struct {
	// Connectors that the file may name.
	Connectors []desk.Connector
	// LookupEnv and ReadFile resolve secrets. Nil means those of package os.
	LookupEnv func(name string) (string, bool)
	ReadFile  func(name string) ([]byte, error)
}

// Mistake is one thing wrong with a migration file, and what to do about it. It never holds the value of an option.
type Mistake struct {
	Line, Column int    // from 1
	Path         string // the file's
	Message      string // begins with the place in the file: "windows.night.scope: …"
}

// Error returns "FILE:LINE: message".
func (m *Mistake) Error() string { return fmt.Sprintf("%s:%d: %s", m.Path, m.Line, m.Message) }

// Load reads and checks a migration file. It makes no request. The error joins all mistakes, each a *Mistake, by line.
func Load(path string, opts Options) (*File, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the migration file: %w", err)
	}
	return Parse(path, data, opts)
}

// Parse is Load for a file whose bytes are at hand. Relative paths in it are relative to the folder of path.
func Parse(path string, data []byte, opts Options) (*File, error) {
	if opts.LookupEnv == nil {
		opts.LookupEnv = os.LookupEnv
	}
	if opts.ReadFile == nil {
		opts.ReadFile = os.ReadFile
	}
	d := &decoder{path: path, opts: opts}
	f := d.file(d.parse(data))
	if err := d.err(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	f.Migration.Hash = hex.EncodeToString(sum[:])
	return f, nil
}

// err joins the mistakes by line.
func (d *decoder) err() error {
	slices.SortStableFunc(d.mistakes, func(a, b *Mistake) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	var errs []error
	for _, m := range d.mistakes {
		errs = append(errs, m)
	}
	return errors.Join(errs...)
}

// resolve returns name relative to the folder of the migration file.
func (d *decoder) resolve(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(d.path), name)
}
