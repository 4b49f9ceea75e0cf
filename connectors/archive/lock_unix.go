//go:build unix

package archive

import (
	"errors"
	"os"
	"syscall"
)

// tryLock takes the exclusive lock of an open file, or tells that somebody else has it. The lock goes when the file is
// closed or its process dies.
func tryLock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return false, nil
	}
	return err == nil, err
}
