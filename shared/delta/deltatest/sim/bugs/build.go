package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// command is this one: with a bug in it, it plays.
const command = "./shared/delta/deltatest/sim/bugs"

// root returns the folder of the module.
func root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("ask go for the module's folder: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// apply makes the bug's changes in copies under dir, and returns which file each copy stands in for.
func (b bug) apply(root, dir string) (map[string]string, error) {
	texts := map[string]string{}
	for _, c := range b.changes {
		path := filepath.Join(root, filepath.FromSlash(c.file))
		text, begun := texts[path]
		if !begun {
			body, err := os.ReadFile(path)
			if err != nil {
				return nil, fmt.Errorf("bug %s: %w", b.name, err)
			}
			text = string(body)
		}
		if n := strings.Count(text, c.old); n != 1 {
			return nil, fmt.Errorf("bug %s no longer fits: what it changes must be in %s once, and is there %d times:\n%s", b.name, c.file, n, c.old)
		}
		texts[path] = strings.Replace(text, c.old, c.new, 1)
	}
	copies := map[string]string{}
	for path, text := range texts {
		to := filepath.Join(dir, fmt.Sprintf("%s-%d.go", b.name, len(copies)))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("bug %s: %w", b.name, err)
		}
		copies[path] = to
	}
	return copies, nil
}

// build compiles this command with some files replaced by copies.
func build(ctx context.Context, root, dir, name string, copies map[string]string) (*program, error) {
	overlay, err := json.Marshal(map[string]any{"Replace": copies})
	if err != nil {
		return nil, err
	}
	list, p := filepath.Join(dir, name+".json"), &program{path: filepath.Join(dir, name), bad: map[int]violation{}, next: 1}
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay", list, "-o", p.path, command)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOEXPERIMENT=jsonv2") // a sixth faster: most of the time goes into the rows of the store
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build with bug %s: %w\n%s", name, err, out)
	}
	return p, nil
}
