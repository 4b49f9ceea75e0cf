// Package archive is a desk made of files in a folder: the target of backup runs, the source of restore runs, the
// stand-in of dry runs, and the reference implementation of the contract in shared/desk. README.md describes the layout
// on disk.
package archive

import (
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Connector is the desk made of files. Any number of processes may read and write one folder at the same time; writes
// are put in order by a lock on the folder.
var Connector = desk.Connector{
	Name: "archive",
	Options: []desk.Option{
		{Name: "folder", Help: "folder of the archive; a target makes it where it does not exist", Required: true, Path: true},
		{Name: "read_only", Help: "true: every write is refused", Default: "false"},
		{Name: "page_size", Help: "records on a page of changes, 1 to 10000", Default: "500"},
		{Name: "fsync", Help: "false: do not wait for the disk. For throw-away archives only: the loss of power may damage them", Default: "true"},
	},
	NewSource:  newSource,
	NewTarget:  newTarget,
	SourceSide: traits,
	TargetSide: traits,
}

// traits are the same on both sides: an archive loses nothing and hides nothing.
func traits(desk.Config) desk.Traits {
	return desk.Traits{
		Kinds:           desk.LoadOrder(),
		SeesDeletes:     true,
		KeepsTimes:      true,
		KeepsAuthors:    true,
		KeepsHistory:    true,
		EntryMarker:     "the member \"marker\" of the entry in the record's file",
		StampResolution: stampStep,
	}
}

// stampStep is the smallest step of the stamps that this desk gives; Stamp.Seq orders what shares one.
const stampStep = time.Millisecond

type settings struct {
	dir      string
	readOnly bool
	fsync    bool
	pageSize int
}

func parseConfig(c desk.Config) (settings, error) {
	for name := range c {
		switch name {
		case "folder", "read_only", "page_size", "fsync":
		default:
			return settings{}, fmt.Errorf("archive: there is no option %q", name)
		}
	}
	get := func(name, def string) string {
		if c[name] == "" {
			return def
		}
		return c[name]
	}
	s := settings{}
	if c["folder"] == "" {
		return s, fmt.Errorf("archive: option folder is required")
	}
	var err error
	if s.dir, err = filepath.Abs(c["folder"]); err != nil {
		return s, fmt.Errorf("archive: option folder: %w", err)
	}
	if s.readOnly, err = strconv.ParseBool(get("read_only", "false")); err != nil {
		return s, fmt.Errorf("archive: option read_only must be true or false")
	}
	if s.fsync, err = strconv.ParseBool(get("fsync", "true")); err != nil {
		return s, fmt.Errorf("archive: option fsync must be true or false")
	}
	if s.pageSize, err = strconv.Atoi(get("page_size", "500")); err != nil || s.pageSize < 1 || s.pageSize > 10_000 {
		return s, fmt.Errorf("archive: option page_size must be a number from 1 to 10000")
	}
	return s, nil
}

// newSource opens an archive that exists. It never writes into the folder.
func newSource(c desk.Config, d desk.Deps) (desk.Source, error) {
	s, err := parseConfig(c)
	if err != nil {
		return nil, err
	}
	s.readOnly = true
	f, err := openFolder(s, d)
	if err != nil {
		return nil, err
	}
	return &source{f}, nil
}

// newTarget opens an archive and makes it where the folder does not exist or is empty.
func newTarget(c desk.Config, d desk.Deps) (desk.Target, error) {
	s, err := parseConfig(c)
	if err != nil {
		return nil, err
	}
	s.readOnly = s.readOnly || d.ReadOnly
	if !s.readOnly {
		if err := makeFolder(s); err != nil {
			return nil, err
		}
		s.sweep(24 * time.Hour)
	}
	f, err := openFolder(s, d)
	if err != nil {
		return nil, err
	}
	return &target{f}, nil
}
