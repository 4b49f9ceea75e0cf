// Package migrations holds the JSON schema of the migration file and the examples that explain it. Checking a file is
// the work of functions/internal/boot, which also finds what a schema cannot.
package migrations

import "embed"

// Schema is the JSON schema (draft 2020-12) of the migration file.
//
//go:embed schema.json
var Schema []byte

// Examples holds a complete, commented migration file for each of the usual cases.
//
//go:embed *.yaml
var Examples embed.FS
