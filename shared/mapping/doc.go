// Package mapping turns a canonical record of the source into the canonical record that the target is to hold, by the rules
// of the migration file. It is pure: no I/O, no clock, no environment. What a value means is written here; what follows
// from a value that has no home is decided in shared/delta.
package mapping
