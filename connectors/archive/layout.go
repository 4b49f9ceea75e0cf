package archive

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// The names in the folder. README.md describes them; layoutVersion changes with them.
const (
	layoutVersion = 1

	deskFile    = "desk.json"
	journalFile = "journal.log"
	pendingFile = "pending.json"
	fieldsFile  = "fields.json"
	lockFile    = "lock"
	recordsDir  = "records"
	filesDir    = "files"
	tmpDir      = "tmp"
)

// identity is the content of desk.json.
type identity struct {
	Format string    `json:"format"` // always "deltadesk-archive"
	Layout int       `json:"layout"`
	ID     string    `json:"id"` // 32 hex digits, made once; cursors of other archives are told by it
	Made   time.Time `json:"made"`
}

const format = "deltadesk-archive"

var hexID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// parseIdentity reads desk.json.
func parseIdentity(b []byte) (identity, error) {
	var id identity
	if err := json.Unmarshal(b, &id); err != nil {
		return identity{}, fmt.Errorf("%s is damaged: %w", deskFile, jsonPlace(err))
	}
	switch {
	case id.Format != format:
		return identity{}, fmt.Errorf("%s is not that of an archive", deskFile)
	case id.Layout != layoutVersion:
		return identity{}, fmt.Errorf("the archive has layout %d, this program knows layout %d", id.Layout, layoutVersion)
	case !hexID.MatchString(id.ID):
		return identity{}, fmt.Errorf("%s is damaged: it has no valid id", deskFile)
	}
	return id, nil
}

// makeFolder makes an empty archive, unless there is one.
func makeFolder(s settings) error {
	fail := func(err error) error { return fmt.Errorf("archive: make %s: %w", s.dir, err) }
	if _, err := os.Lstat(filepath.Join(s.dir, deskFile)); err == nil {
		return nil
	}
	names, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	for _, n := range names {
		switch n.Name() {
		case recordsDir, filesDir, tmpDir, lockFile: // another process is making it, or died while it did
		case deskFile:
			return nil
		default:
			return fail(errors.New("the folder is not empty and is no archive; name an empty folder"))
		}
	}
	for _, d := range []string{"", recordsDir, filesDir, tmpDir} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o700); err != nil {
			return fail(err)
		}
	}
	lock, err := lockFolder(context.Background(), s.dir)
	if err != nil {
		return fail(err)
	}
	defer lock.Close()
	if _, err := os.Lstat(filepath.Join(s.dir, deskFile)); err == nil {
		return nil
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	b, err := json.MarshalIndent(identity{Format: format, Layout: layoutVersion, ID: hex.EncodeToString(id[:]), Made: time.Now().UTC().Truncate(time.Second)}, "", "  ")
	if err != nil {
		return fail(err)
	}
	if err := s.replace(filepath.Join(s.dir, deskFile), append(b, '\n')); err != nil {
		return fail(err)
	}
	return nil
}

// lockFolder waits for the folder's writer lock. Closing the file gives it back.
func lockFolder(ctx context.Context, folder string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(folder, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-wait.C:
		}
		if ok, err := tryLock(f); err != nil {
			_ = f.Close()
			return nil, err
		} else if ok {
			return f, nil
		}
		wait.Reset(2 * time.Millisecond)
	}
}

// recordPath says where a record lies, relative to the folder. Two ids never share a path, no id leaves the folder, and
// ids that differ in case only are different files also where the file system does not tell them apart.
func recordPath(ref desk.Ref) (string, error) {
	switch ref.Kind {
	case desk.Company, desk.Person, desk.Ticket:
	default:
		return "", fmt.Errorf("an archive has no records of kind %q", string(ref.Kind))
	}
	sum := sha256.Sum256([]byte(ref.ID))
	shard := hex.EncodeToString(sum[:1])
	return filepath.Join(recordsDir, string(ref.Kind), shard, fileName(ref.ID)+".json"), nil
}

// fileName writes an id as a file name: lower-case letters, digits, - and _ stay, every other byte becomes %XX. A name that
// would be too long for some file systems becomes %% and the id's SHA-256.
func fileName(id string) string {
	var b strings.Builder
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() == 0 || b.Len() > 150 {
		sum := sha256.Sum256([]byte(id))
		return "%%" + hex.EncodeToString(sum[:])
	}
	return b.String()
}

var hexSHA = regexp.MustCompile(`^[0-9a-f]{64}$`)

// blobPath says where the bytes with this hash lie, relative to the folder.
func blobPath(sha string) (string, error) {
	if !hexSHA.MatchString(sha) {
		return "", errors.New("not a SHA-256 in hex")
	}
	return filepath.Join(filesDir, sha[:2], sha[2:]), nil
}

// replace writes a file so that after a crash it has either its old or its new content.
func (s settings) replace(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Join(s.dir, tmpDir), "w-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone where it got its name
	defer tmp.Close()
	if _, err := tmp.Write(content); err != nil {
		return err
	}
	return s.place(tmp, path)
}

// place makes a complete temporary file durable under its final name. It closes the file.
func (s settings) place(tmp *os.File, path string) error {
	if s.fsync {
		if err := tmp.Sync(); err != nil {
			return err
		}
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return s.rename(tmp.Name(), path)
}

func (s settings) rename(from, to string) error {
	dir := filepath.Dir(to)
	_, err := os.Lstat(dir)
	if fresh := errors.Is(err, fs.ErrNotExist); fresh {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := s.syncDirs(dir); err != nil {
			return err
		}
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return s.syncDir(dir)
}

// syncDirs makes a folder's name durable, and those of the folders above it up to the archive's.
func (s settings) syncDirs(dir string) error {
	for dir = filepath.Dir(dir); len(dir) >= len(s.dir); dir = filepath.Dir(dir) {
		if err := s.syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (s settings) syncDir(dir string) error {
	if !s.fsync {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// staged is a file's content, complete and on its disk, but without its final name.
type staged struct {
	path, sha string
	size      int64
}

// stage copies and hashes a stream. Memory does not grow with it.
func (s settings) stage(ctx context.Context, r io.Reader) (_ staged, err error) {
	tmp, err := os.CreateTemp(filepath.Join(s.dir, tmpDir), "f-")
	if err != nil {
		return staged{}, err
	}
	defer func() {
		if cerr := tmp.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(tmp, h), ctxReader{ctx, r})
	if err != nil {
		return staged{}, err
	}
	if s.fsync {
		if err := tmp.Sync(); err != nil {
			return staged{}, err
		}
	}
	return staged{path: tmp.Name(), sha: hexSum(h), size: n}, nil
}

func hexSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// decodeStrict reads exactly one JSON value and knows every member of it, so that nothing a newer program wrote gets lost
// when the file is written again.
func decodeStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return jsonPlace(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return nil
}

// jsonPlace says where JSON is wrong without quoting any of it.
func jsonPlace(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("not JSON at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Errorf("wrong type at byte %d", kind.Offset)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errors.New("the JSON ends too early")
	}
	return errors.New("JSON with unknown members or values")
}
