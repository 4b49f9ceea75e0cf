package delta

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// zips are kept: a new one costs more than what it compresses.
var zips = sync.Pool{New: func() any { return gzip.NewWriter(io.Discard) }}

// stageRaw keeps what a batch read and is about to write, as one object. It is what a ticket can be rebuilt from if
// something goes wrong with it later.
func (e *Engine) stageRaw(ctx context.Context, jobs []*work) error {
	var recs []desk.Record
	for _, w := range jobs {
		if w.err == nil && !w.done && !w.run.Dry {
			recs = append(recs, w.rec)
		}
	}
	if len(recs) == 0 {
		return nil
	}
	var b bytes.Buffer
	z := zips.Get().(*gzip.Writer)
	defer zips.Put(z)
	z.Reset(&b)
	if err := json.NewEncoder(z).Encode(recs); err != nil {
		return fmt.Errorf("stage %d records: %w", len(recs), err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("stage %d records: %w", len(recs), err)
	}
	key := fmt.Sprintf(stagingPrefix+"%s/raw/%s-%s.json.gz", e.mig.ID, jobs[0].m.Run, e.NewID())
	if _, err := e.Objects.Put(ctx, key, &b); err != nil {
		return fmt.Errorf("stage %d records: %w", len(recs), err)
	}
	return nil
}

// stageFiles streams the entries' files into the store and makes them open from there: hashed on the way in, compared with
// the size the source declares, and compared with that hash on the way out. A file is staged once; a later attempt finds it.
func (e *Engine) stageFiles(ctx context.Context, w *work, entries []desk.Entry) error {
	for i := range entries {
		files := make([]desk.File, len(entries[i].Files))
		copy(files, entries[i].Files)
		for j := range files {
			f := &files[j]
			info, key, err := e.stageFile(ctx, w, entries[i].ID, *f)
			if err != nil {
				return fmt.Errorf("file %s of entry %s of %s: %w", f.ID, entries[i].ID, w.ref, err)
			}
			w.bytes += info.Size
			f.Size, f.SHA256 = info.Size, info.SHA256
			f.Open = func(ctx context.Context) (io.ReadCloser, error) {
				r, _, err := e.Objects.Open(ctx, key)
				if err != nil {
					return nil, err
				}
				return &hashed{r: r, h: sha256.New(), want: info.SHA256, key: key}, nil
			}
		}
		entries[i].Files = files
	}
	return nil
}

func (e *Engine) stageFile(ctx context.Context, w *work, entry string, f desk.File) (Info, string, error) {
	// Size and hash belong to the key: a desk may put other bytes under the same id when something is redacted. Where it tells no hash,
	// what was staged is good for the version of the record that was read then.
	of := []any{w.ref.Kind, entry, f.ID, f.Size, f.SHA256}
	if f.SHA256 == "" {
		of = append(of, w.rec.Stamp)
	}
	same := digestJSON(of)
	key := fmt.Sprintf(stagingPrefix+"%s/files/%s/%s", e.mig.ID, same, keyID(f.ID))
	if len(key) > 400 {
		key = fmt.Sprintf(stagingPrefix+"%s/files/%s", e.mig.ID, same)
	}
	if r, info, err := e.Objects.Open(ctx, key); err == nil {
		return info, key, r.Close()
	} else if !errors.Is(err, ErrNoObject) {
		return Info{}, key, err
	}
	src, err := e.openFile(ctx, w.rec.Ref, f)
	if err != nil {
		return Info{}, key, err
	}
	defer src.Close()
	info, err := e.Objects.Put(ctx, key, &sized{r: src, want: f.Size})
	if errors.Is(err, ErrExists) { // another worker was faster
		r, info, err := e.Objects.Open(ctx, key)
		if err != nil {
			return Info{}, key, err
		}
		return info, key, r.Close()
	}
	return info, key, err
}

func (e *Engine) openFile(ctx context.Context, ticket desk.Ref, f desk.File) (io.ReadCloser, error) {
	o, ok := e.Source.(desk.Opener)
	if !ok {
		return nil, &desk.Error{Op: "open file " + f.ID, Class: desk.ErrRejected, Said: "this source cannot give files out"}
	}
	return o.OpenFile(ctx, ticket, f)
}

// sized fails at the end when fewer or more bytes came than were declared: some servers cut a download short without an
// error.
type sized struct {
	r    io.Reader
	want int64 // -1: not declared
	got  int64
}

func (s *sized) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.got += int64(n)
	if s.want >= 0 && (s.got > s.want || errors.Is(err, io.EOF) && s.got != s.want) {
		return n, &desk.Error{Op: "read file", Class: desk.ErrTransient, Said: fmt.Sprintf("the source declared %d bytes and gave %d", s.want, s.got)}
	}
	return n, err
}

// hashed fails at the end when the bytes are not those that were staged.
type hashed struct {
	r    io.ReadCloser
	h    hash.Hash
	want string
	key  string
}

func (s *hashed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.h.Write(p[:n])
	if errors.Is(err, io.EOF) && hex.EncodeToString(s.h.Sum(nil)) != s.want {
		return n, fmt.Errorf("staged object %s is damaged", s.key)
	}
	return n, err
}

func (s *hashed) Close() error { return s.r.Close() }
