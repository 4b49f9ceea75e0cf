package localstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
)

const (
	objectsName = "objects"
	tempName    = "tmp"
)

// Objects is the folder of objects of a Store. An object is there when the index in the database names its file.
type Objects struct {
	s *Store
	// synced are the directories that are known to survive a power cut.
	synced sync.Map
}

func newObjects(s *Store) *Objects { return &Objects{s: s} }

// Put implements delta.Objects.
func (o *Objects) Put(ctx context.Context, key string, r io.Reader) (delta.Info, error) {
	o.s.calls.add("objects.Put")
	info, err := o.put(ctx, key, r)
	if err != nil {
		return delta.Info{}, fmt.Errorf("put object %+q: %w", key, err)
	}
	return info, nil
}

func (o *Objects) put(ctx context.Context, key string, r io.Reader) (info delta.Info, err error) {
	if err := checkObjectKey(key); err != nil {
		return info, err
	}
	switch _, _, err := o.find(ctx, key); {
	case err == nil:
		return info, delta.ErrExists
	case !errors.Is(err, delta.ErrNoObject):
		return info, err
	}
	temp, err := os.CreateTemp(filepath.Join(o.s.dir, tempName), "put-")
	if err != nil {
		return info, err
	}
	defer os.Remove(temp.Name()) // it has another name by then, if all went well
	defer temp.Close()
	sum := sha256.New()
	info.Size, err = io.Copy(io.MultiWriter(temp, sum), untilDone{ctx, r})
	if err != nil {
		return info, err
	}
	info.SHA256 = hex.EncodeToString(sum.Sum(nil))
	if err := errors.Join(temp.Sync(), temp.Close()); err != nil {
		return info, err
	}
	name := fileName(key)
	file := o.path(name)
	if err := o.makeDir(filepath.Dir(file)); err != nil {
		return info, err
	}
	if err := os.Rename(temp.Name(), file); err != nil {
		return info, err
	}
	if err := syncDir(filepath.Dir(file)); err != nil {
		os.Remove(file)
		return info, err
	}
	n, err := o.s.write(ctx, func(ctx context.Context) (sql.Result, error) {
		return o.s.writer.ExecContext(ctx, `INSERT INTO objects (key, file, size, sha256, made) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			key, name, info.Size, info.SHA256, time.Now().UnixMilli())
	})
	switch {
	case err != nil:
		// The index may name the file all the same. If not it is rubbish, which Expire finds.
		return info, err
	case n == 0:
		os.Remove(file)
		return info, delta.ErrExists
	}
	return info, nil
}

// Open implements delta.Objects. The reader checks the bytes against the hash that was taken when they were written, and
// fails at the end if they differ.
func (o *Objects) Open(ctx context.Context, key string) (io.ReadCloser, delta.Info, error) {
	o.s.calls.add("objects.Open")
	f, info, err := o.open(ctx, key)
	if err != nil {
		return nil, delta.Info{}, fmt.Errorf("open object %+q: %w", key, err)
	}
	return &checked{f: f, key: key, want: info, sum: sha256.New()}, info, nil
}

func (o *Objects) open(ctx context.Context, key string) (*os.File, delta.Info, error) {
	if err := checkObjectKey(key); err != nil {
		return nil, delta.Info{}, err
	}
	name, info, err := o.find(ctx, key)
	if err != nil {
		return nil, info, err
	}
	f, err := os.Open(o.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		// Expired since we looked, or lost.
		if _, _, err := o.find(ctx, key); err != nil {
			return nil, info, err
		}
		return nil, info, fmt.Errorf("its file is gone from the store; restore %s from a backup: %w", objectsName, err)
	}
	return f, info, err
}

// Path returns the file that holds an object, for programs that want a file: a report that is to be shown in a browser.
func (o *Objects) Path(ctx context.Context, key string) (string, error) {
	name, _, err := o.find(ctx, key)
	if err != nil {
		return "", fmt.Errorf("find object %+q: %w", key, err)
	}
	return o.path(name), nil
}

// find looks an object up in the index.
func (o *Objects) find(ctx context.Context, key string) (name string, info delta.Info, err error) {
	err = o.s.readers.QueryRowContext(ctx, `SELECT file, size, sha256 FROM objects WHERE key = ?`, key).Scan(&name, &info.Size, &info.SHA256)
	if errors.Is(err, sql.ErrNoRows) {
		return "", info, delta.ErrNoObject
	}
	if err == nil && !filepath.IsLocal(filepath.FromSlash(name)) { // a damaged index must not make us read or remove anything else
		return "", info, fmt.Errorf("the index of the store is damaged: object %+q names a file outside of %s", key, objectsName)
	}
	return name, info, explain(err)
}

// Expire removes the objects whose key begins with prefix and that are older than age, and returns how many. It stands in
// for the bucket's lifecycle rules. It also removes what processes that were killed left behind more than a day ago.
func (o *Objects) Expire(ctx context.Context, prefix string, age time.Duration) (int, error) {
	o.s.calls.add("objects.Expire")
	n, err := o.expire(ctx, prefix, time.Now().Add(-age))
	if err == nil {
		err = o.sweep(ctx, time.Now().Add(-24*time.Hour))
	}
	if err != nil {
		return n, fmt.Errorf("expire objects %+q: %w", prefix, err)
	}
	return n, nil
}

func (o *Objects) expire(ctx context.Context, prefix string, before time.Time) (n int, err error) {
	if err := checkText("prefix", prefix); err != nil {
		return 0, err
	}
	for {
		keys, err := o.texts(ctx, `SELECT key FROM objects WHERE key >= ? AND key < ? AND made < ? LIMIT 1000`,
			prefix, prefix+"\x7f", before.UnixMilli())
		if err != nil || len(keys) == 0 {
			return n, err
		}
		for _, key := range keys {
			// The index first: an object that it names must have its file.
			name, _, err := o.find(ctx, key)
			if errors.Is(err, delta.ErrNoObject) {
				continue
			} else if err != nil {
				return n, err
			}
			gone, err := o.s.write(ctx, func(ctx context.Context) (sql.Result, error) {
				return o.s.writer.ExecContext(ctx, `DELETE FROM objects WHERE key = ? AND file = ?`, key, name)
			})
			if err != nil {
				return n, err
			}
			n += int(gone)
			if err := os.Remove(o.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return n, err
			}
		}
	}
}

// sweep removes files that no index entry names. Whoever is writing one has a file that is younger than before.
func (o *Objects) sweep(ctx context.Context, before time.Time) error {
	for _, root := range []string{tempName, objectsName} {
		root = filepath.Join(o.s.dir, root)
		err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			} else if err != nil || !info.ModTime().Before(before) {
				return err
			}
			rel, err := filepath.Rel(filepath.Join(o.s.dir, objectsName), file)
			if err != nil {
				return err
			}
			names, err := o.texts(ctx, `SELECT key FROM objects WHERE file = ?`, filepath.ToSlash(rel))
			if err != nil || len(names) > 0 {
				return err
			}
			return os.Remove(file)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// texts returns the one column of a query.
func (o *Objects) texts(ctx context.Context, query string, args ...any) (all []string, err error) {
	rows, err := o.s.readers.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, explain(err)
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, explain(rows.Err())
}

func (o *Objects) path(name string) string {
	return filepath.Join(o.s.dir, objectsName, filepath.FromSlash(name))
}

// makeDir makes a directory below objects/ and sees to it that it survives a power cut, whoever made it.
func (o *Objects) makeDir(dir string) error {
	if _, ok := o.synced.Load(dir); ok {
		return nil
	}
	if dir == filepath.Join(o.s.dir, objectsName) {
		return nil
	}
	if err := o.makeDir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	o.synced.Store(dir, true)
	return nil
}

// fileName returns a new name for an object's file: readable, and unique whatever the key, so that neither case nor
// length nor odd characters nor two writers of one key can make two files meet. The name is never parsed.
func fileName(key string) string {
	first, rest, ok := strings.Cut(key, "/")
	if !ok {
		first, rest = "_", key
	}
	id := rand.Text() // base32, 26 characters
	ext := path.Ext(rest)
	if len(ext) > 8 || ext != plain(ext, 8) {
		ext = ""
	}
	rest = strings.TrimSuffix(rest, ext)
	return plain(first, 40) + "/" + id[:1] + id[1:2] + "/" + plain(rest, 120) + "~" + id + ext
}

// plain keeps the letters that are harmless in a file name and at most n of them, the last ones.
func plain(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		}
		return '_'
	}, s)
	if strings.Trim(s, ".") == "" {
		s = strings.Repeat("_", max(1, len(s)))
	}
	return s[max(0, len(s)-n):]
}

func checkObjectKey(key string) error {
	if key == "" {
		return errors.New("the key is empty")
	}
	return checkText("key", key)
}

// untilDone reads until ctx ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// checked reads an object and compares it with what was written.
type checked struct {
	f    *os.File
	key  string
	want delta.Info
	sum  hash.Hash
	size int64
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.f.Read(p)
	c.sum.Write(p[:n])
	c.size += int64(n)
	if errors.Is(err, io.EOF) && (c.size != c.want.Size || hex.EncodeToString(c.sum.Sum(nil)) != c.want.SHA256) {
		err = fmt.Errorf("read object %+q: its file is damaged (%d bytes of %d); restore %s from a backup", c.key, c.size, c.want.Size, c.f.Name())
	}
	return n, err
}

func (c *checked) Close() error { return c.f.Close() }
