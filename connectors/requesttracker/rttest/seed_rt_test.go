//go:build rt

package rttest

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// The tests' own servers: RTTEST_DIR (below the temporary folder), RTTEST_PORT (18281) and the next one. A seeded source that
// is there already is used again; remove the folder to begin anew.
var (
	liveDir     = cmp.Or(os.Getenv("RTTEST_DIR"), filepath.Join(os.TempDir(), "deltadesk-rttest"))
	livePort, _ = strconv.Atoi(cmp.Or(os.Getenv("RTTEST_PORT"), "18281"))
)

func TestMain(m *testing.M) {
	code := m.Run()
	for i, name := range []string{"src", "dst"} {
		if _, err := os.Stat(filepath.Join(liveDir, name, "initialised")); err != nil {
			continue
		}
		s := &Server{Name: name, port: livePort + i, dir: liveDir, script: filepath.Join(liveDir, "rt.sh")}
		if err := s.Stop(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

func up(t *testing.T, role Role) *Server {
	t.Helper()
	name, port := "src", livePort
	if role == TargetRole {
		name, port = "dst", livePort+1
	}
	s, err := Up(t.Context(), name, port, liveDir, Options{Role: role})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// renew makes the instance anew.
func renew(t *testing.T, role Role) *Server {
	t.Helper()
	if err := up(t, role).Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	return up(t, role)
}

// seededSource returns the source in its seeded state, and its script.
func seededSource(t *testing.T) (*Server, *Script) {
	t.Helper()
	file := filepath.Join(liveDir, "script.json")
	if script, err := LoadScript(file); err == nil {
		src := up(t, SourceRole)
		if err := src.Reset(t.Context()); err != nil {
			t.Fatal(err)
		}
		return src, script
	}
	src := renew(t, SourceRole)
	t0 := time.Now()
	script, err := Seed(t.Context(), src, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("seeded %d tickets in %v", script.Tickets(), time.Since(t0))
	if err := script.Save(file); err != nil {
		t.Fatal(err)
	}
	return src, script
}

func TestSeed(t *testing.T) {
	if err := os.Remove(filepath.Join(liveDir, "script.json")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	_, script := seededSource(t)
	if n := script.Tickets(); n < 200 {
		t.Errorf("%d tickets, at least 200 are wanted", n)
	}
}
