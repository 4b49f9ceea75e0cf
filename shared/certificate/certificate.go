// Package certificate is what a comparison of both desks leaves behind: one file that says, record by record, what was
// compared and how it came out, and that anybody who may read both desks can check again later, without the ledger.
//
// # Form
//
// A certificate is a text of JSON lines, so that a million records can be written and read a line at a time:
//
//	{"format":"deltadesk certificate","version":1,…}     first line: what was compared, and what this file cannot say
//	{"record":"ticket/42","outcome":"unchanged",…}       a line for each record
//	{"records":1,"unchanged":1,…,"sha256":"…"}           last line: the sums, and the SHA-256 of all bytes before it
//
// It names ids, versions, counts, fields and sentences, never a value. schema.json describes each line.
//
// # Digests
//
// A digest is of one side's record as that desk shows it, with that desk's own ids: the source's before it was mapped, the
// target's with the entries that carry the migration's marker and no others. So each can be made again from the desk alone.
// Left out is what moves by itself or is somebody else's: stamps, addresses, names of authors, the target's own entries.
package certificate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// Format and Version are how a certificate begins.
const (
	Format  = "deltadesk certificate"
	Version = 1

	schemaID = "https://raw.githubusercontent.com/deltadesk/deltadesk/main/shared/certificate/schema.json"
)

// What every certificate has to say of itself.
const (
	LimitGuess = "Each digest is of a whole record, made with the salt in the certificate's first line. Whoever holds this file and knows a record but for one short value, say its status, " +
		"can find that value by trying. Keep the file as confidential as the desks, or hand it on without its salt (deltadesk certificate --salt-out FILE)."
	LimitSigned = "The SHA-256 in the last line shows damage and a cut end. It is no signature: whoever can write this file can write it anew. Keep that SHA-256 in another place as well."
)

// Header is the first line.
type Header struct {
	Format    string `json:"format"`
	Version   int    `json:"version"`
	Schema    string `json:"schema"`
	Migration string `json:"migration"`
	Run       string `json:"run"`
	Scope     string `json:"scope"`
	// ScopeDigest is of the scope's filters as they were.
	ScopeDigest string `json:"scope_digest"`
	// Config is the SHA-256 of the migration file, Mapping of what its mapping says.
	Config  string `json:"config_hash"`
	Mapping string `json:"mapping_hash"`
	// Source and Target name the desks: connector and address.
	Source string `json:"source"`
	Target string `json:"target"`
	// Mark is the source's cursor for the moment before the first record was listed.
	Mark    json.RawMessage `json:"source_mark"`
	Started time.Time       `json:"started"`
	Ended   time.Time       `json:"ended"`
	// MaxFile is the size in bytes beyond which the source's files were not read, because the target takes none of them.
	MaxFile int64 `json:"max_file,omitempty"`
	// Salt goes into every digest. A certificate that was written without it can be checked only by who has it.
	Salt string `json:"salt,omitempty"`
	// SaltSHA256 is of the salt, in hex: a salt that was handed on apart is known again by it. Empty in certificates of earlier
	// versions.
	SaltSHA256 string `json:"salt_sha256,omitempty"`
	// Limits are sentences about what this certificate does not say.
	Limits []string `json:"limits"`
}

// Fits tells whether a salt can be that of the certificate. One that does not say which its salt is takes any.
func (h Header) Fits(salt string) bool { return h.SaltSHA256 == "" || h.SaltSHA256 == saltDigest(salt) }

func saltDigest(salt string) string {
	sum := sha256.Sum256([]byte(salt))
	return hex.EncodeToString(sum[:])
}

// Side is what was compared on one desk.
type Side struct {
	ID string `json:"id"`
	// Version is the desk's own word for the record's version: a lock, or a stamp.
	Version string `json:"version"`
	// Entries and Files that went into the digest.
	Entries int    `json:"entries"`
	Files   int    `json:"files"`
	Digest  string `json:"digest"`
	// Copies is how many records of the target carry the source's id, where that is more than one.
	Copies int `json:"copies,omitempty"`
}

// Line is what is certified of one record.
type Line struct {
	Record  string `json:"record"`  // kind/id in the source
	Outcome string `json:"outcome"` // unchanged, held, failed or excluded, as in the report
	// Reason is a sentence for an outcome other than unchanged: what differs, or why nothing was compared.
	Reason string `json:"reason,omitempty"`
	// Source and Target are absent where nothing was compared.
	Source *Side `json:"source,omitempty"`
	Target *Side `json:"target,omitempty"`
	// Kept are fields (and entries) that people changed in the target and that were left to them; Held those that wait for
	// a decision.
	Kept []string `json:"kept,omitempty"`
	Held []string `json:"held,omitempty"`
}

// Trailer is the last line.
type Trailer struct {
	Records   int `json:"records"`
	Unchanged int `json:"unchanged"`
	Excluded  int `json:"excluded"`
	Held      int `json:"held"`
	Failed    int `json:"failed"`
	// Verdict is "verified" where nothing is held or failed, else "exceptions".
	Verdict string `json:"verdict"`
	// SHA256 is of every byte before this line, in hex.
	SHA256 string `json:"sha256"`
}

// add counts a line.
func (t *Trailer) add(l Line) {
	t.Records++
	switch l.Outcome {
	case "unchanged":
		t.Unchanged++
	case "excluded":
		t.Excluded++
	case "held":
		t.Held++
	default:
		t.Failed++
	}
	t.Verdict = "verified"
	if t.Held+t.Failed > 0 {
		t.Verdict = "exceptions"
	}
}
