package localstore

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// takeLock takes the lock in file and writes into it who has it. It is never deleted, since a process that opened the old
// file and one that made a new one would both hold a lock.
func takeLock(file, session string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w; check owner and rights of the directory", err)
	}
	ok, err := tryLock(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w; the directory must be on a local disk", file, err)
	}
	if !ok {
		f.Close()
		text, _ := os.ReadFile(file) // only to say who
		first, _, _ := strings.Cut(string(text), "\n")
		pid, err := strconv.Atoi(first)
		if err != nil {
			return nil, fmt.Errorf("%w; wait for it to end", ErrBusy)
		}
		return nil, fmt.Errorf("%w: process %d; wait for it to end, or end it", ErrBusy, pid)
	}
	text := fmt.Sprintf("%d\n%s\n", os.Getpid(), session)
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(text), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write %s: %w", file, err)
	}
	return f, nil
}
