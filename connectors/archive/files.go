package archive

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// An archive may have been written by somebody else, so no path below its folder is used as it is: every access goes through
// an os.Root, out of which no link leads, and what is read must be a plain file, because a pipe or a device may never end.
// The root is opened anew each time, so that a folder that was replaced under a running process is noticed.

// in runs f in the archive's folder.
func (s settings) in(f func(*os.Root) error) error {
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return f(root)
}

func (s settings) lstat(name string) (info fs.FileInfo, err error) {
	err = s.in(func(root *os.Root) error {
		info, err = root.Lstat(name)
		return err
	})
	return info, err
}

// open opens a plain file for reading, or for what flag says.
func (s settings) open(name string, flag int) (f *os.File, err error) {
	err = s.in(func(root *os.Root) error {
		info, err := root.Lstat(name)
		switch missing := errors.Is(err, fs.ErrNotExist); {
		case missing && flag&os.O_CREATE != 0:
		case err != nil:
			return err
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is a link or something else that is no plain file", name)
		}
		f, err = root.OpenFile(name, flag, 0o600)
		return err
	})
	return f, err
}

func (s settings) readFile(name string) ([]byte, error) {
	f, err := s.open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

func (s settings) truncate(name string, size int64) error {
	f, err := s.open(name, os.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(size)
}

func (s settings) remove(name string) error {
	return s.in(func(root *os.Root) error { return root.Remove(name) })
}

// lock waits for the folder's writer lock. Closing the file gives it back.
func (s settings) lock(ctx context.Context) (*os.File, error) {
	f, err := s.open(lockFile, os.O_RDWR|os.O_CREATE)
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

// temp makes a file that has no final name yet.
func (s settings) temp() (f *os.File, name string, err error) {
	name = filepath.Join(tmpDir, rand.Text())
	f, err = s.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	return f, name, err
}

// replace writes a file so that after a crash it has either its old or its new content.
func (s settings) replace(name string, content []byte) error {
	tmp, at, err := s.temp()
	if err != nil {
		return err
	}
	defer func() { _ = s.remove(at) }() // gone where it got its name
	defer tmp.Close()
	if _, err := tmp.Write(content); err != nil {
		return err
	}
	if s.fsync {
		if err := tmp.Sync(); err != nil {
			return err
		}
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return s.rename(at, name)
}

// rename gives a complete temporary file its final name, durably.
func (s settings) rename(from, to string) error {
	return s.in(func(root *os.Root) error {
		dir := filepath.Dir(to)
		if _, err := root.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			if err := root.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			for up := dir; up != "."; {
				up = filepath.Dir(up)
				if err := s.syncDir(root, up); err != nil {
					return err
				}
			}
		}
		if err := root.Rename(from, to); err != nil {
			return err
		}
		return s.syncDir(root, dir)
	})
}

func (s settings) syncDir(root *os.Root, name string) error {
	if !s.fsync {
		return nil
	}
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// staged is a file's content, complete and on its disk, but without its final name.
type staged struct {
	name, sha string
	size      int64
}

// stage copies and hashes a stream. Memory does not grow with it.
func (s settings) stage(ctx context.Context, r io.Reader) (_ staged, err error) {
	tmp, name, err := s.temp()
	if err != nil {
		return staged{}, err
	}
	defer func() {
		if cerr := tmp.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = s.remove(name)
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
	return staged{name: name, sha: hexSum(h), size: n}, nil
}

// sweep removes what writers that were killed left behind. A failure is of no consequence: the next one tries again.
func (s settings) sweep(age time.Duration) {
	_ = s.in(func(root *os.Root) error {
		names, err := fs.ReadDir(root.FS(), tmpDir)
		for _, n := range names {
			if info, err := n.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > age {
				_ = root.Remove(filepath.Join(tmpDir, n.Name()))
			}
		}
		return err
	})
}
