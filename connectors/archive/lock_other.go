//go:build !unix

package archive

import (
	"errors"
	"os"
)

// tryLock fails: an archive can be read on this system, but not written.
func tryLock(*os.File) (bool, error) {
	return false, errors.New("writing an archive needs a system with flock")
}
