package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/desk/desktest"
)

// seed is another process that works on the archive.
type seed struct{ *target }

func newSeed(t *testing.T, c desk.Config) seed {
	t.Helper()
	tg, err := Connector.NewTarget(c, desk.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return seed{tg.(*target)}
}

// Delete implements desktest.Seed: people delete whatever is there.
func (s seed) Delete(ctx context.Context, ref desk.Ref) error { return s.target.Delete(ctx, ref, "") }

// Merge implements desktest.Seed: people merge whatever is there.
func (s seed) Merge(ctx context.Context, from, into desk.Ref) error {
	return s.target.Merge(ctx, from, into, "")
}

// Create implements desktest.Seed.
func (s seed) Create(ctx context.Context, r desk.Record) (desk.Ref, error) {
	r.Entries = byPeople(r.Entries)
	w, err := s.target.Create(ctx, r)
	return desk.Ref{Kind: r.Ref.Kind, ID: w.ID}, err
}

// Change implements desktest.Seed.
func (s seed) Change(ctx context.Context, ref desk.Ref, c desk.Change) error {
	c.Entries = byPeople(c.Entries)
	_, err := s.Apply(ctx, ref, c)
	return err
}

func byPeople(es []desk.Entry) []desk.Entry {
	var out []desk.Entry
	for _, e := range es {
		e.At = time.Now().UTC().Truncate(time.Second)
		e.Author = desk.Author{Name: "Somebody"}
		out = append(out, e)
	}
	return out
}

func TestConformance(t *testing.T) {
	for name, fsync := range map[string]string{"fsync": "true", "no fsync": "false"} {
		t.Run(name, func(t *testing.T) {
			conform(t, fsync)
		})
	}
}

func conform(t *testing.T, fsync string) {
	config := func() desk.Config {
		return desk.Config{"folder": t.TempDir(), "page_size": "5", "fsync": fsync}
	}
	src, tgt, other := config(), config(), config()
	newSeed(t, other)
	desktest.Run(t, desktest.Options{
		Connector: Connector, Source: src, Target: tgt, Other: other, NoHTTP: true, NewFields: true,
		Seed: newSeed(t, src), TargetSeed: newSeed(t, tgt),
		Reset:       func(context.Context) error { return nil }, // a new folder is empty
		Fingerprint: func(context.Context) (string, error) { return fingerprint(src["folder"]) },
		Mails:       func(context.Context) (int, error) { return 0, nil },
		Ticket: desk.Fields{
			desk.Status: {"open"}, desk.Tags: {"a", "b"}, desk.Created: {"2019-03-04T05:06:07Z"}, desk.Custom("Größe"): {"L", "XL"},
			desk.Group: {"support"}, desk.TimeWorked: {"5"},
		},
		Update: desk.Fields{desk.Status: {"resolved"}, desk.Tags: {"c"}, desk.Resolved: {"2020-01-02T03:04:05Z"}, desk.Custom("Größe"): nil},
		Person: desk.Fields{desk.Role: {"customer"}, desk.Phone: {"+49 30 1", "+49 30 2"}, desk.Active: {"true"}},
	})
}

// fingerprint hashes every byte and name in a folder.
func fingerprint(dir string) (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		_, _ = h.Write([]byte(path + "\x00"))
		if d.IsDir() {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(h, f)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}
